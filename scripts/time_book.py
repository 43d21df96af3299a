"""Measure how long each notebook of the book takes in a fresh kernel, and write the seconds into book/run_times.json, from which the pages show them.

No notebook is changed. As for `make execute`, one thread of the CPU computes. What counts are the seconds that the processor worked for the kernel, its
start and imports included: with one thread the clock shows the same when nothing else runs, and they hold on a busy machine too. Of several runs
(`--runs`) the shortest counts. Without paths, every notebook under book/ is measured; a measured notebook's old entry is replaced.
"""

import argparse
import datetime
import json
import os
import pathlib
import resource
import sys
import time

from execute_book import BOOK, chosen, run

RECORD = BOOK / "run_times.json"


def work() -> float:
    """Seconds of CPU time of the child processes that have ended: of the kernels, and of what they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(path: pathlib.Path) -> float:
    """Seconds of CPU time of one run. Raises CellExecutionError when a cell fails."""
    start, before = time.perf_counter(), work()
    run(path)
    seconds = work() - before
    print(f"{seconds:7.1f} s of work, {time.perf_counter() - start:7.1f} s on the clock  {path}", flush=True)
    return seconds


def record(path: pathlib.Path, seconds: float, file: pathlib.Path = RECORD) -> None:
    """Put one measurement into the record: the notebook's path in the repository, its seconds, the day, and the machine in words."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known[path.resolve().relative_to(BOOK.parent).as_posix()] = {
        "seconds": round(seconds, 1),
        "day": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores",
    }
    file.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", type=pathlib.Path, nargs="*", help="the notebooks to measure (default: all of them)")
    parser.add_argument("--runs", type=int, default=1, help="how often each is run (default: 1)")
    args = parser.parse_args()
    paths = chosen(parser, args.notebooks)
    os.environ["DIFFUSION_CORE_DEVICE"] = "cpu"
    os.environ["OMP_NUM_THREADS"] = "1"  # what the stored outputs are computed with
    for path in paths:
        record(path, min(measure(path) for _ in range(args.runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
