"""What `import diffusion_core` costs beyond torch and numpy, and how that compares with diffusers. Every run is a fresh process; the candidates take turns.

The clock stands inside the process, after Python's own start. The first round, which may compile bytecode, does not count.

    python benchmarks/import_time.py [--rounds 9]
"""

import argparse
import statistics
import subprocess
import sys

CLOCK = """
import time
start = time.perf_counter()
import numpy, torch
between = time.perf_counter()
import {package}
print(between - start, time.perf_counter() - between)
"""


def seconds(package: str) -> tuple[float, float]:
    """Of `import numpy, torch`, and of the import of the package after it, in a process of their own."""
    out = subprocess.run([sys.executable, "-c", CLOCK.format(package=package)], check=True, capture_output=True, text=True).stdout
    base, beyond = map(float, out.split())
    return base, beyond


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="processes of each candidate that count")
    arguments = parser.parse_args()

    packages = "diffusion_core", "diffusers"
    runs = [{package: seconds(package) for package in packages} for _ in range(arguments.rounds + 1)][1:]
    print(f"{'numpy, torch':44s} {1000 * statistics.median(run[name][0] for run in runs for name in packages):8.0f} ms")
    for name in packages:
        beyond = [1000 * run[name][1] for run in runs]
        print(f"{name + ', after them':44s} {statistics.median(beyond):8.0f} ms   ({min(beyond):.0f} to {max(beyond):.0f})")


if __name__ == "__main__":
    main()
