"""Break the formulas on purpose and see whether a test goes red: a seeded sample of mutants, each shown to the tests of its file.

    python scripts/mutate.py run              draw the sample (tests/mutation/cosmic-ray.toml) if there is none yet, test what is not tested
    python scripts/mutate.py run --survivors  test those again that were not killed, slow tests included: to be done last, and after a new test
    python scripts/mutate.py table [--all]    the counts and the survivors (or all mutants) as Markdown

With --kind swap the mutants are those of `swapped_names.py`, alpha for sigma, in place of cosmic-ray's own. cosmic-ray makes the mutants and keeps the
session, .mutants/KIND.sqlite: a run that is stopped goes on where it was. No file is ever changed: a mutant lives in a forked process, whose import of
the one module is answered with the mutated source. The parent has imported what the tests need but not diffusion_core, so that a mutant costs the time
of its tests. What is left out of the sample, and why, is said in `reason_to_skip`. POSIX only (os.fork).
"""

import argparse
import ast
import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import random
import re
import resource
import signal
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "tests/mutation/cosmic-ray.toml"
FOLDER = ROOT / ".mutants"
SECONDS = FOLDER / "seconds.json"
CPU_SECONDS, TIMES_SLOWER = 60, 10  # a mutant may take this and so many times what its tests take without one, in CPU time
OUT_OF_TIME = "took more CPU time than it may"


# The mutant: one module, imported from other source.


class MutantLoader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, source: str):
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str):
        return compile(self.source, self.path, "exec", dont_inherit=True)


class MutantFinder(importlib.abc.MetaPathFinder):
    """Answers the import of one file of the repository with the source that is given, and remembers that it was asked."""

    def __init__(self, path: str, source: str):
        self.path, self.source, self.asked = path, source, False
        self.name = path.removesuffix(".py").replace("/", ".")

    def find_spec(self, fullname, path, target=None):
        if fullname != self.name:
            return None
        self.asked = True
        file = str(ROOT / self.path)
        return importlib.util.spec_from_file_location(fullname, file, loader=MutantLoader(fullname, file, self.source))


# The tests: in a forked process, file by file, the quickest of each first, until one fails.


class Watch:
    """A pytest plugin: puts the quick tests first and leaves out those beyond `longest` seconds; notes what each took and which failed first."""

    def __init__(self, seconds: dict[str, float], longest: float):
        self.known, self.longest, self.seconds, self.failed = seconds, longest, {}, None

    def pytest_collection_modifyitems(self, items):
        items[:] = sorted((item for item in items if self._usual(item) <= self.longest), key=self._usual)

    def _usual(self, item) -> float:
        return self.known.get(item.nodeid, 0.0)

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        self._note(report)

    def pytest_collectreport(self, report):
        self._note(report)

    def _note(self, report):
        if report.failed and self.failed is None:
            self.failed = report.nodeid


def start(
    tests: list[str], seconds: dict[str, float], mutant: tuple[str, str] | None = None, cpu_limit: int | None = None, longest: float = math.inf,
) -> tuple[int, int]:
    """Fork a process that runs the tests on the mutant (path, source); returns its id and the pipe that its result comes through.

    seconds: what each test usually takes; those that take longer than `longest` are left out.
    """
    out, into = os.pipe()
    pid = os.fork()
    if pid:
        os.close(into)
        return pid, out
    os.close(out)
    try:
        os.write(into, json.dumps(_in_child(tests, Watch(seconds, longest), mutant, cpu_limit)).encode())
    finally:
        os._exit(0)


def _in_child(tests: list[str], watch: Watch, mutant: tuple[str, str] | None, cpu_limit: int | None) -> dict:
    import pytest

    if cpu_limit is not None:
        used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
        resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_limit, used + cpu_limit))
        signal.alarm(20 * cpu_limit)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.dont_write_bytecode = True
    finder = MutantFinder(*mutant) if mutant else None
    if finder:
        sys.meta_path.insert(0, finder)
    before = set(sys.modules)
    for file in tests:  # one after another: most mutants are killed in the first, and the others need not be collected
        code = pytest.main(["-x", "-q", "-n0", "--tb=no", "-o", "addopts=", "-p", "no:nbval", "-p", "no:cacheprovider", file], plugins=[watch])
        if code != 0:
            break
    core = sys.modules.get("diffusion_core")
    here = finder.asked if finder else core is not None and Path(core.__file__).is_relative_to(ROOT)
    others = [name for name in set(sys.modules) - before if not name.startswith(("diffusion_core", "tests", "test_", "conftest", "paths"))]
    return {"code": int(code), "here": here, "failed": watch.failed, "seconds": watch.seconds, "modules": sorted(others)}


def finish(pid: int, pipe: int) -> tuple[dict | None, int]:
    """Wait for a process of `start`: its result, None where it died, and its exit status."""
    with os.fdopen(pipe, "rb") as stream:
        text = stream.read()
    status = os.waitpid(pid, 0)[1]
    return (json.loads(text) if text else None), status


def verdict(result: dict | None, status: int) -> tuple[str, str]:
    """("killed" or "survived" or "incompetent", by what)."""
    if result is None:
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL)
        return ("killed", OUT_OF_TIME) if killed else ("incompetent", f"the process ended with status {status}")
    if not result["here"]:
        return "incompetent", "the tests did not import the mutant"
    if result["code"] == 0:
        return "survived", ""
    if result["code"] in (1, 2) and result["failed"]:
        return "killed", result["failed"]
    return "incompetent", f"pytest ended with code {result['code']}"


# The sample: cosmic-ray's mutants without those that mean nothing.


def settings() -> dict:
    return tomllib.loads(CONFIG.read_text())


def tests_of(path: str, config: dict) -> list[str]:
    """The test files, relative to the repository, that a mutant of this file is shown to."""
    fitting = [prefix for prefix in config["tests"] if path.startswith(prefix)]
    if not fitting:
        raise ValueError(f"no tests are named for {path}; add a line to [tests] of {CONFIG.relative_to(ROOT)}")
    return [f"tests/{name}.py" for name in config["tests"][max(fitting, key=len)]]


@functools.cache
def _said(source: str) -> dict[str, list[tuple[tuple[int, int], tuple[int, int]]]]:
    """Where a file speaks of types, and where it says what was wrong: spans (line, column) by kind."""
    spans: dict[str, list] = {"a type annotation": [], "the text of an error": []}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.AnnAssign):
            notes, kind = [node.annotation], "a type annotation"
        elif isinstance(node, ast.FunctionDef):
            notes, kind = [node.returns], "a type annotation"
        elif isinstance(node, ast.Assign) and node.col_offset == 0 and isinstance(node.targets[0], ast.Name) and node.targets[0].id.istitle():
            notes, kind = [node.value], "a type annotation"
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            notes, kind = node.exc.args, "the text of an error"
        else:
            continue
        spans[kind] += [((note.lineno, note.col_offset), (note.end_lineno, note.end_col_offset)) for note in notes if note is not None]
    return spans


def reason_to_skip(source: str, operator: str, start: tuple[int, int], excluded: list[str]) -> str | None:
    """Why the mutants of an operator at a place can mean nothing, or None: they are to be tested."""
    if any(re.fullmatch(pattern, operator) for pattern in excluded):
        return "an operator of another type of number"
    return next((kind for kind, spans in _said(source).items() if any(first <= start < end for first, end in spans)), None)


def is_another_program(source: str, mutated: str | None) -> bool:
    try:
        return mutated is not None and ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def mutated_source(mutation) -> str | None:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    return mutate_code((ROOT / mutation.module_path).read_text(), get_operator(mutation.operator_name)(**mutation.operator_args), mutation.occurrence)


def fingerprint(config: dict) -> str:
    """Of the files that are mutated: a session belongs to one state of them."""
    return hashlib.sha256(b"".join((ROOT / path).read_bytes() for path in config["cosmic-ray"]["module-path"])).hexdigest()


def draw(database, config: dict, kind: str) -> dict:
    """Fill a new session: all mutants of a kind, of which the sample is left to do. One site is drawn as likely as another, then one of its mutants.

    Returns what the table says of it.
    """
    from cosmic_ray import plugins
    from cosmic_ray.commands.init import init
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    os.chdir(ROOT)
    others = {name: plugins.OPERATOR_PROVIDERS.pop(name) for name in set(plugins.OPERATOR_PROVIDERS) - {kind}}
    init([Path(path) for path in config["cosmic-ray"]["module-path"]], database, {})
    plugins.OPERATOR_PROVIDERS |= others
    excluded = config["cosmic-ray"]["filters"]["operators-filter"]["exclude-operators"]
    source = {path: (ROOT / path).read_text() for path in config["cosmic-ray"]["module-path"]}
    sites: dict[tuple, list] = {}
    skipped: dict[str, list] = {}
    for item in sorted(database.work_items, key=place):
        path, start, operator, _ = place(item)
        reason = reason_to_skip(source[path], operator, start, excluded)
        (skipped.setdefault(reason, []) if reason else sites.setdefault((path, start, operator.split("_")[0]), [])).append(item)
    drawn = random.Random(config["sample"]["seed"])
    in_order, sample = sorted(sites), []
    drawn.shuffle(in_order)
    for item in (drawn.choice(sites[site]) for site in in_order):
        if len(sample) == config["sample"]["size"][kind]:
            break
        if is_another_program(source[place(item)[0]], mutated_source(item.mutations[0])):
            sample.append(item.job_id)
        else:
            skipped.setdefault("drawn, but no Python or the same program", []).append(item)
    known = set(sample).union(item.job_id for items in skipped.values() for item in items)
    skipped["not drawn"] = [item for items in sites.values() for item in items if item.job_id not in known]
    for reason, items in skipped.items():
        database.set_multiple_results([item.job_id for item in items], WorkResult(WorkerOutcome.SKIPPED, output=reason))
    return {"sources": fingerprint(config), "sites": len(sites), "skipped": {reason: len(items) for reason, items in skipped.items()}}


def place(item) -> tuple[str, tuple[int, int], str, int]:
    """The mutants' order: by file, line, column, operator and its which occurrence."""
    mutation = item.mutations[0]
    return str(mutation.module_path), mutation.start_pos, mutation.operator_name, mutation.occurrence


def session(config: dict, kind: str):
    """The session, drawn where there is none, and what is noted of it. Exits where the sources have changed since."""
    tool = FOLDER / "tool"
    if tool.is_dir():
        sys.path.append(str(tool))
    try:
        from cosmic_ray import plugins
        from cosmic_ray.work_db import WorkDB
    except ImportError:
        sys.exit(f"cosmic-ray is missing: python -m pip install --no-deps --target {tool.relative_to(ROOT)} -r tests/mutation/requirements.txt")
    from swapped_names import Swaps

    plugins.OPERATOR_PROVIDERS["swap"] = Swaps()
    FOLDER.mkdir(exist_ok=True)
    database, notes = WorkDB(FOLDER / f"{kind}.sqlite", WorkDB.Mode.create), FOLDER / f"{kind}.json"
    if not notes.exists():
        print("Drawing the sample", flush=True)
        notes.write_text(json.dumps(draw(database, config, kind), indent=1))
    noted = json.loads(notes.read_text())
    if noted["sources"] != fingerprint(config):
        sys.exit(f"The files have changed since the sample was drawn. Delete {notes.relative_to(ROOT)} to draw it anew, or go back to that commit")
    return database, noted


# The commands.


def baseline(files: list[str]) -> dict[str, float]:
    """What each test takes without a mutant, measured once for each state of its file. Exits where one fails.

    The parent imports what the tests imported, beside the project.
    """
    known = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
    for file in files:
        state = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()
        if known.get(file, {}).get("state") != state:
            result, status = finish(*start([file], {}))
            if verdict(result, status)[0] != "survived":
                sys.exit(f"{file} fails without a mutant ({verdict(result, status)[1]}), or imports another diffusion_core than that of {ROOT}")
            known[file] = {"state": state, "seconds": result["seconds"], "modules": result["modules"]}
            SECONDS.write_text(json.dumps(known))
            print(f"{file}: {len(result['seconds'])} tests, {sum(result['seconds'].values()):.1f} s", flush=True)
        for module in known[file]["modules"]:
            try:
                importlib.import_module(module)
            except Exception:  # a name that only its own package may import
                pass
    return {test: taken for file in files for test, taken in known[file]["seconds"].items()}


def run(config: dict, kind: str, survivors: bool, jobs: int) -> None:
    database, _ = session(config, kind)
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

    if survivors:
        todo = [item for item, result in database.completed_work_items if result.test_outcome and (result.test_outcome != TestOutcome.KILLED or result.output == OUT_OF_TIME)]
    else:
        todo = list(database.pending_work_items)
    longest = math.inf if survivors else config["sample"]["longest-test"]
    todo.sort(key=place)
    paths = {str(item.mutations[0].module_path) for item in todo}
    seconds = baseline(sorted({file for path in paths for file in tests_of(path, config)}))
    running: list[tuple] = []
    while todo or running:
        while todo and len(running) < jobs:
            item = todo.pop(0)
            path, source = str(item.mutations[0].module_path), mutated_source(item.mutations[0])
            tests = tests_of(path, config)
            usual = sum(taken for test, taken in seconds.items() if test.split("::")[0] in tests)
            running.append((item, start(tests, seconds, (path, source), CPU_SECONDS + int(TIMES_SLOWER * usual), longest)))
        item, child = running.pop(0)
        outcome, by = verdict(*finish(*child))
        worked = WorkerOutcome.ABNORMAL if outcome == "incompetent" else WorkerOutcome.NORMAL
        database.set_result(item.job_id, WorkResult(worked, output=by, test_outcome=TestOutcome(outcome)))
        print(f"{outcome:11} {name(item.mutations[0])}   {by}", flush=True)


def name(mutation) -> str:
    """A mutant by file, function, operator and the line that it changes: line numbers move."""
    old, new = (ROOT / mutation.module_path).read_text().splitlines(), mutated_source(mutation).splitlines()
    line = mutation.start_pos[0] - 1
    changed = new[line] if len(new) == len(old) else "(line removed)"
    where = mutation.definition_name or "module"
    return f"{mutation.module_path} | {where} | {mutation.operator_name.split('/')[1]} | `{old[line].strip()}` | `{changed.strip()}`"


def table(config: dict, kind: str, everything: bool) -> None:
    database, notes = session(config, kind)
    tested = [(item, result) for item, result in database.completed_work_items if result.test_outcome]
    tested.sort(key=lambda pair: place(pair[0]))
    count = {outcome: sum(result.test_outcome == outcome for _, result in tested) for outcome in ("killed", "survived", "incompetent")}
    print(f"{notes['sites']} sites; left out: {', '.join(f'{n} {reason}' for reason, n in notes['skipped'].items())}")
    print(f"{len(tested)} tested of {config['sample']['size'][kind]}: {', '.join(f'{n} {outcome}' for outcome, n in count.items())}\n")
    print("| file | function | operator | line | mutant | killed by |\n|---|---|---|---|---|---|")
    for item, result in tested:
        if everything or result.test_outcome != "killed":
            print(f"| {name(item.mutations[0])} | {result.output or 'survived'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="test the mutants of the sample that are not tested yet")
    runs.add_argument("--survivors", action="store_true", help="test the mutants again that no test killed, slow tests included")
    runs.add_argument("--jobs", type=int, default=1, help="mutants at a time (1)")
    shows = commands.add_parser("table", help="print the counts and the survivors as Markdown")
    shows.add_argument("--all", action="store_true", help="all mutants of the sample, with the test that killed each")
    for command in (runs, shows):
        command.add_argument("--kind", choices=("core", "swap"), default="core", help="whose mutants: cosmic-ray's (core), or names put in place of their siblings (swap)")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "DIFFUSION_CORE_DEVICE": "cpu", "HYPOTHESIS_STORAGE_DIRECTORY": str(FOLDER / "hypothesis")}
    if args.command == "run":
        run(settings(), args.kind, args.survivors, args.jobs)
    else:
        table(settings(), args.kind, args.all)


if __name__ == "__main__":
    main()
