"""Timing that a busy machine spoils for all candidates alike: they take turns, and medians are compared."""

import statistics
import time
from collections.abc import Callable


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, float]:
    """Median seconds of one call of each candidate over `rounds` rounds, after `warmup` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + rounds):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(medians: dict[str, float], unit: float, name: str, peer: str) -> None:
    """One line a candidate: the median in `unit` (called `name`) and its ratio to the peer's."""
    for candidate, median in medians.items():
        print(f"{candidate:44s} {median / unit:10.1f} {name}   {median / medians[peer]:5.2f} x {peer}")
