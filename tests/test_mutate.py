"""The driver of the mutation run: its map of tests, what it leaves out, and that it tells a broken formula from a formula written otherwise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="the driver forks: POSIX only")

import mutate  # noqa: E402
import parso  # noqa: E402
from swapped_names import Swaps  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RESCALED = "diffusion_core/schedules/rescaled.py"
ASK = """
import json, sys, mutate
source = (mutate.ROOT / sys.argv[1]).read_text()
old, new, limit = json.loads(sys.argv[2])
assert source.count(old) == 1
print(json.dumps(mutate.verdict(*mutate.finish(*mutate.start(["tests/test_rescaled.py"], {}, (sys.argv[1], source.replace(old, new)), limit)))))
"""


def asked(old: str, new: str, limit: int | None = None) -> list[str]:
    """The driver's verdict on the file of `Shifted` with `new` in place of `old`, from a process that has not imported diffusion_core."""
    command = [sys.executable, "-c", ASK, RESCALED, json.dumps([old, new, limit])]
    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_mutated_file_has_tests_and_all_of_them_exist():
    config = mutate.settings()
    paths = config["cosmic-ray"]["module-path"]
    assert len(paths) == len(set(paths)) > 20
    for path in paths:
        assert (ROOT / path).is_file(), path
        assert all((ROOT / test).is_file() for test in mutate.tests_of(path, config)), path
    with pytest.raises(ValueError, match="no tests are named"):
        mutate.tests_of("diffusion_core/nowhere.py", config)


@pytest.mark.parametrize("folder", ["schedules", "oracles", "losses", "samplers", "likelihood"])
def test_no_file_of_a_mutated_folder_is_forgotten(folder):
    config = mutate.settings()
    listed = set(config["cosmic-ray"]["module-path"] + config["sample"]["left-out"])
    there = {f"diffusion_core/{folder}/{file.name}" for file in (ROOT / "diffusion_core" / folder).glob("*.py")}
    assert there - listed == {f"diffusion_core/{folder}/__init__.py"}


def test_a_broken_formula_is_killed_by_a_named_test_and_the_file_is_left_alone():
    before = (ROOT / RESCALED).read_bytes()
    outcome, by = asked("+ self.shift * self.schedule._sigma(t)", "- self.shift * self.schedule._sigma(t)")
    assert outcome == "killed" and by.startswith("tests/test_rescaled.py::test_")
    assert (ROOT / RESCALED).read_bytes() == before


def test_a_formula_written_otherwise_survives():
    assert asked("- 2 * math.log(self.shift)", "- math.log(self.shift) * 2") == ["survived", ""]


def test_a_mutant_that_never_ends_is_killed_by_its_share_of_time():
    assert asked("self.schedule, self.shift = schedule, float(shift)", "while True: pass", limit=5) == ["killed", mutate.OUT_OF_TIME]


SOURCE = '''
Time = Tensor | float
def f(t: Tensor | float = 1 + 1) -> Tensor | None:
    u: int | float = t - 1
    if t < 0:
        raise ValueError(f"got {t + 1}")
    return t - 1
'''


@pytest.mark.parametrize(
    "text, reason",
    [
        ("| float\n", "a type annotation"), ("| float = 1", "a type annotation"), ("| None", "a type annotation"), ("| float = t", "a type annotation"),
        ('+ 1}")', "the text of an error"), ("+ 1)", None), ("- 1\n    if", None), ("< 0", None), ("- 1\n", None),
    ],
)
def test_only_what_means_nothing_is_left_out(text, reason):
    at = SOURCE.rindex(text) if text == "- 1\n" else SOURCE.index(text)
    line = SOURCE.count("\n", 0, at) + 1
    start = (line, at - (SOURCE.rindex("\n", 0, at) + 1))
    assert mutate.reason_to_skip(SOURCE, "core/ReplaceBinaryOperator_Sub_Add", start, ["core/Other_.*"]) == reason
    assert mutate.reason_to_skip(SOURCE, "core/Other_Not", start, ["core/Other_.*"]) == "an operator of another type of number"


def test_the_same_program_and_no_program_are_no_mutants():
    assert mutate.is_another_program("x = 1 - t", "x = 1 + t")
    assert not mutate.is_another_program("x = 1 - t", "x = (1  - t)")
    assert not mutate.is_another_program("x = 1 - t", "x = 1 - ") and not mutate.is_another_program("x = 1 - t", None)


FORMULA = """
def f(alpha, sigma=1):
    x = g(alpha, sigma=sigma)
    return torch.exp(alpha) + x.alpha
def h(alpha):
    return alpha
"""


@pytest.mark.parametrize(("operator", "places"), [
    ("SwapName_alpha_sigma", [(3, 10), (4, 21)]), ("SwapName_sigma_alpha", [(3, 23)]), ("SwapName_exp_expm1", [(4, 17)]), ("SwapName_log_log1p", []),
])
def test_a_name_is_swapped_where_it_is_read_and_its_sibling_known(operator, places):
    swap, tree = Swaps()[operator](), parso.parse(FORMULA)
    leaves, leaf = [], tree.get_first_leaf()
    while leaf is not None:
        leaves, leaf = [*leaves, leaf], leaf.get_next_leaf()
    found = [leaf for leaf in leaves if list(swap.mutation_positions(leaf))]
    assert [leaf.start_pos for leaf in found] == places
    for leaf in found[:1]:
        swap.mutate(leaf, 0)
        old, new = operator.split("_")[1:]
        lines = FORMULA.splitlines()
        line, column = places[0]
        assert tree.get_code().splitlines()[line - 1] == lines[line - 1][:column] + new + lines[line - 1][column + len(old):]
