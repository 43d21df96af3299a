"""The line of a download, drawn at given times. That of a training run is tested with `fit`."""

import sys

from diffusion_core import progress
from diffusion_core.progress import Transfer


def test_a_download_shows_bytes_rate_and_time_left_and_is_cleaned(monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    clock = iter([0.0, *(second for now in (1.0, 2.0, 2.1, 3.0) for second in ((now,) if now > 1 else (now, now)))])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    with Transfer("cifar.tar.gz", 200_000_000) as line:
        for offset in (100_000_000, 110_000_000, 110_500_000, 120_000_000):
            line.at(offset)
    shown = capfd.readouterr().err.split("\r\x1b[K")
    assert shown == [
        "",
        "cifar.tar.gz: 50% of 200.0 MB, 0.00 MB/s, ? left",
        "cifar.tar.gz: 55% of 200.0 MB, 10.00 MB/s, 00:09 left",
        "cifar.tar.gz: 60% of 200.0 MB, 10.00 MB/s, 00:08 left",
        "",
    ]


def test_a_download_that_starts_over_starts_its_rate_over(monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    clock = iter([0.0, 1.0, 1.0, 5.0, 5.0, 6.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    with Transfer("f", 40_000_000) as line:
        for offset in (20_000_000, 1_000_000, 2_000_000):
            line.at(offset)
    assert "5% of 40.0 MB, 1.00 MB/s, 00:38 left" in capfd.readouterr().err


def test_hours_are_shown_as_hours():
    assert [progress._clock(s) for s in (0.4, 59.6, 3600, 7384.2)] == ["00:00", "01:00", "1:00:00", "2:03:04"]
