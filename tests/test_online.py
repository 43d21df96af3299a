"""The sets that are fetched: every fault of a mirror, a network and a disk, on a server of the loopback address."""

import ast
import gzip
import hashlib
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback import Mirror, serving

from diffusion_core import data, images, progress
from diffusion_core.data import cache_folder, download, embedded, formats, lock, online
from diffusion_core.data.download import File, MirrorError, fetch
from diffusion_core.progress import Transfer

ROOT = Path(__file__).parent.parent
BODY = np.random.default_rng(0).bytes(20_000)
NAME = "file.bin"
WHOLE = File(NAME, len(BODY), hashlib.sha256(BODY).hexdigest())


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """A cache of its own, no proxy, and patience for fractions of a second."""
    monkeypatch.setenv("DIFFUSION_CORE_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "PATIENCE", 5.0)


@pytest.fixture
def serve():
    """Servers that stop with the test."""
    with ExitStack() as stack:
        yield lambda *args, **faults: stack.enter_context(serving(Mirror(*args, **faults)))


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def refused_address() -> str:
    """An address where nothing listens: a server's, after it stopped."""
    with serving(Mirror({})) as mirror:
        return mirror.url


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


# One file from one mirror


def test_a_file_is_fetched_once_and_kept(serve, tmp_path):
    mirror = serve({NAME: BODY})
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert len(mirror.asked) == 1 and left_in(tmp_path) == [NAME] and (tmp_path / NAME).read_bytes() == BODY


def test_a_cut_connection_goes_on_where_it_was_cut(serve, tmp_path):
    mirror = serve({NAME: BODY}, sends=[7000, 5000])
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert [(a.range, a.if_range, a.status) for a in mirror.asked] == [(None, None, 200), ("bytes=7000-", '"v1"', 206), ("bytes=12000-", '"v1"', 206)]
    assert left_in(tmp_path) == [NAME]


def test_a_later_call_goes_on_where_an_earlier_one_was_left(serve, tmp_path):
    mirror = serve({NAME: BODY}, sends=[7000, 0])
    with pytest.raises(MirrorError, match="cut after 7000 of 20000 bytes"):
        fetch(WHOLE, (mirror.url,), tmp_path)
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert mirror.ranges_asked() == [None, "bytes=7000-", "bytes=7000-"]


def test_the_date_of_the_last_change_serves_where_there_is_no_strong_tag(serve, tmp_path):
    date = "Tue, 01 Aug 2017 00:00:00 GMT"
    mirror = serve({NAME: BODY}, tag='W/"weak"', modified=date, sends=[7000])
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert [(a.range, a.if_range) for a in mirror.asked] == [(None, None), ("bytes=7000-", date)]


def test_without_a_version_nothing_is_continued(serve, tmp_path):
    mirror = serve({NAME: BODY}, tag=None, sends=[7000])
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert mirror.ranges_asked() == [None, None]


@pytest.mark.parametrize("checks_if_range", [True, False])
def test_versions_are_never_mixed(serve, tmp_path, checks_if_range):
    """Another version of the same length: a server that checks If-Range answers 200, one that does not is found out by its tag."""
    mirror = serve({NAME: bytes(len(BODY))}, sends=[7000, 0], checks_if_range=checks_if_range)
    with pytest.raises(MirrorError):
        fetch(WHOLE, (mirror.url,), tmp_path)
    mirror.files[NAME], mirror.tag = BODY, '"v2"'
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert mirror.asked[2].range == "bytes=7000-" and mirror.asked[2].if_range == '"v1"'
    assert [a.status for a in mirror.asked[2:]] == ([200] if checks_if_range else [206, 200]) and mirror.asked[-1].range in ("bytes=7000-", None)


def test_a_server_without_ranges_starts_over(serve, tmp_path):
    mirror = serve({NAME: BODY}, ranges=False, sends=[7000])
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert [(a.range, a.status) for a in mirror.asked] == [(None, 200), ("bytes=7000-", 200)]


def test_a_server_without_ranges_that_always_cuts_is_given_up(serve, tmp_path):
    mirror = serve({NAME: BODY}, ranges=False, sends=[7000] * 50)
    with pytest.raises(MirrorError, match="cut after 7000 of 20000"):
        fetch(WHOLE, (mirror.url,), tmp_path)
    assert len(mirror.asked) == 2


def test_a_mirror_that_cuts_for_ever_is_given_up(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 4)
    mirror = serve({NAME: BODY}, sends=[10] * 50)
    with pytest.raises(MirrorError, match="cut 4 times, the last time: cut after 40 of 20000"):
        fetch(WHOLE, (mirror.url,), tmp_path)
    assert len(mirror.asked) == 4


@pytest.mark.parametrize("content_range", ["bytes 6999-19999/20000", "bytes */20000", "lines 7000-19999/20000", "nonsense"])
def test_a_partial_answer_that_starts_elsewhere_is_not_used(serve, tmp_path, content_range):
    mirror = serve({NAME: BODY}, sends=[7000], content_range=content_range)
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert [(a.range, a.status) for a in mirror.asked] == [(None, 200), ("bytes=7000-", 206), (None, 200)]


def test_a_refused_range_starts_over(serve, tmp_path):
    """The server's file became shorter than what came of the old one: 416, and the answer to a plain request has the wrong length."""
    mirror = serve({NAME: BODY}, sends=[7000, 0], checks_if_range=False)
    with pytest.raises(MirrorError):
        fetch(WHOLE, (mirror.url,), tmp_path)
    mirror.files[NAME] = BODY[:5000]
    with pytest.raises(MirrorError, match="the file has 5000 bytes there, expected 20000"):
        fetch(WHOLE, (mirror.url,), tmp_path)
    assert [(a.range, a.status) for a in mirror.asked[2:]] == [("bytes=7000-", 416), (None, 200)]
    mirror.files[NAME] = BODY
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY and mirror.asked[-1].range is None


def test_without_a_declared_length_the_size_still_counts(serve, tmp_path):
    mirror = serve({NAME: BODY}, declares_length=False, sends=[7000])
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert mirror.ranges_asked() == [None, "bytes=7000-"]


@pytest.mark.parametrize("size", [len(BODY) - 1, len(BODY) + 1])
def test_a_wrong_length_is_refused_before_it_is_fetched(serve, tmp_path, size):
    wrong, right = serve({NAME: bytes(size)}), serve({NAME: BODY})
    with pytest.raises(MirrorError, match=rf"{wrong.url}{NAME}: the file has {size} bytes there, expected 20000"):
        fetch(WHOLE, (wrong.url,), tmp_path)
    assert left_in(tmp_path) == []
    assert fetch(WHOLE, (wrong.url, right.url), tmp_path) == BODY


def test_a_corrupted_file_is_thrown_away_and_the_next_mirror_asked(serve, tmp_path):
    spoiled = bytearray(BODY)
    spoiled[10_000] ^= 1
    bad, good = serve({NAME: bytes(spoiled)}), serve({NAME: BODY})
    with pytest.raises(MirrorError, match=rf"{bad.url}{NAME}: SHA-256 {sha256(spoiled)}, expected {WHOLE.sha256}"):
        fetch(WHOLE, (bad.url,), tmp_path)
    assert left_in(tmp_path) == []
    assert fetch(WHOLE, (bad.url, good.url), tmp_path) == BODY
    assert len(bad.asked) == 2 and len(good.asked) == 1 and left_in(tmp_path) == [NAME]


def test_a_part_spoiled_on_the_disk_is_found_and_fetched_anew(serve, tmp_path):
    mirror = serve({NAME: BODY}, sends=[7000, 0])
    with pytest.raises(MirrorError):
        fetch(WHOLE, (mirror.url,), tmp_path)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(bytes(7000))
    with pytest.raises(MirrorError, match="expected " + WHOLE.sha256):
        fetch(WHOLE, (mirror.url,), tmp_path)
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY and mirror.asked[-1].range is None


def test_a_process_that_ends_while_it_starts_over_leaves_nothing_to_continue(serve, tmp_path, monkeypatch):
    """Between the bytes of the old version and the name of the new one."""
    mirror = serve({NAME: bytes(len(BODY))}, sends=[7000, 0])
    with pytest.raises(MirrorError):
        fetch(WHOLE, (mirror.url,), tmp_path)
    mirror.files[NAME], mirror.tag = BODY, '"v2"'
    for method in ("write_text", "write_bytes"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, method, lambda path, content: (_ for _ in ()).throw(KeyboardInterrupt))
            fetch(WHOLE, (mirror.url,), tmp_path)
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY


def test_a_whole_part_needs_no_mirror(tmp_path):
    """Killed between the last byte and the check: the next call checks and is done."""
    address = refused_address()
    download.Part(tmp_path / NAME, address + NAME).path.write_bytes(BODY)
    assert fetch(WHOLE, (address,), tmp_path) == BODY and left_in(tmp_path) == [NAME]


# Several mirrors


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_the_next_mirror_stands_in_for_one_that_refuses(serve, tmp_path, status):
    bad, good = serve({}, status=status), serve({NAME: BODY})
    assert fetch(WHOLE, (bad.url, good.url), tmp_path) == BODY
    assert len(bad.asked) == 1
    with pytest.raises(MirrorError, match=f"{status} "):
        fetch(WHOLE._replace(name="other"), (bad.url,), tmp_path)


def test_the_next_mirror_stands_in_for_a_dead_one(serve, tmp_path):
    assert fetch(WHOLE, (refused_address(), serve({NAME: BODY}).url), tmp_path) == BODY


def test_an_answer_that_is_no_file_is_refused(serve, tmp_path):
    with pytest.raises(MirrorError, match="unexpected answer 204"):
        fetch(WHOLE, (serve({NAME: BODY}, status=204).url,), tmp_path)


def test_parts_of_two_mirrors_are_never_joined(serve, tmp_path):
    """The first gives the beginning of other bytes under the same tag and dies; the second is asked from the beginning."""
    first, second = serve({NAME: bytes(len(BODY))}, sends=[7000, 0]), serve({NAME: BODY})
    assert fetch(WHOLE, (first.url, second.url), tmp_path) == BODY
    assert second.ranges_asked() == [None] and left_in(tmp_path) == [NAME]


@pytest.mark.parametrize("sent", [0, 7000])
def test_a_mirror_that_stops_sending_is_given_up(serve, tmp_path, monkeypatch, sent):
    monkeypatch.setattr(download, "PATIENCE", 1.0)
    silent, good = serve({NAME: BODY}, sends=[sent, 0, 0], holds=True), serve({NAME: BODY})
    begun = time.monotonic()
    with pytest.raises(MirrorError, match=rf"cut after {sent} of 20000 bytes \(no answer for 1 seconds\)"):
        fetch(WHOLE, (silent.url,), tmp_path)
    assert 1 < time.monotonic() - begun < 30
    assert fetch(WHOLE, (silent.url, good.url), tmp_path) == BODY and len(good.asked) == 1


def test_a_mirror_that_drips_is_given_up(serve, tmp_path, monkeypatch):
    """Always a byte within the time limit of one reading, never enough of them."""
    monkeypatch.setattr(download, "PATIENCE", 1.0)
    monkeypatch.setattr(download, "SLOWEST", 10_000)
    slow, good = serve({NAME: BODY}, drip=0.01), serve({NAME: BODY})
    with pytest.raises(MirrorError, match=r"\d+ bytes in 1 seconds; given up after \d+ of 20000"):
        fetch(WHOLE, (slow.url,), tmp_path)
    assert len(slow.asked) == 1
    assert fetch(WHOLE, (slow.url, good.url), tmp_path) == BODY


class Dripping:
    """A connection that brings these numbers of bytes, one each second of the clock."""

    def __init__(self, numbers: list[int]):
        self.numbers, self.clock = iter(numbers), 0.0

    def read1(self, most: int) -> bytes:
        self.clock += 1.0
        return bytes(min(most, next(self.numbers)))


@pytest.mark.parametrize(
    ("numbers", "given_up"),
    [
        ([1000] * 100, None),
        ([999] * 100, r"20979 bytes in 21 seconds; given up after 20979 of 100000"),
        ([50_000] + [1] * 100, r"21 bytes in 21 seconds; given up after 50041 of 100000"),
        ([0] * 20, "cut after 0 of 100000"),
    ],
)
def test_a_mirror_is_given_up_for_its_rate_of_the_last_twenty_seconds(tmp_path, monkeypatch, numbers, given_up):
    monkeypatch.setattr(download, "PATIENCE", 20.0)
    monkeypatch.setattr(download, "SLOWEST", 1000)
    connection = Dripping(numbers)
    monkeypatch.setattr(download.time, "monotonic", lambda: connection.clock)
    file, part = File(NAME, 100_000, sha256(bytes(100_000))), download.Part(tmp_path / NAME, "http://mirror/")
    with Transfer(NAME, 100_000, show=False) as line:
        if given_up:
            with pytest.raises(MirrorError, match=given_up):
                download._receive(file, connection, part, 0, line)
        else:
            download._receive(file, connection, part, 0, line)
            assert part.size == 100_000


def test_a_redirect_is_followed_with_its_range(serve, tmp_path):
    there = serve({NAME: BODY}, sends=[7000])
    here = serve({NAME: BODY}, moved=there.url)
    assert fetch(WHOLE, (here.url,), tmp_path) == BODY
    assert there.ranges_asked() == [None, "bytes=7000-"] and [a.status for a in here.asked] == [302, 302]


def test_every_mirror_is_named_with_its_fault(serve, tmp_path):
    missing, spoiled, gone = serve({}), serve({NAME: bytes(len(BODY))}), refused_address()
    with pytest.raises(MirrorError) as caught:
        fetch(WHOLE, (gone, missing.url, spoiled.url), tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and f"{gone}{NAME}" in lines[0] and "refused" in lines[0]
    assert f"{missing.url}{NAME}: 404" in lines[1] and f"{spoiled.url}{NAME}: SHA-256" in lines[2]


# The cache


def test_a_damaged_cached_file_is_named_with_the_cure(serve, tmp_path):
    mirror = serve({NAME: BODY})
    fetch(WHOLE, (mirror.url,), tmp_path)
    (tmp_path / NAME).write_bytes(BODY[:-1])
    with pytest.raises(ValueError, match=rf"{NAME} is damaged: 19999 bytes, SHA-256 {sha256(BODY[:-1])}, expected {WHOLE.sha256}; delete it"):
        fetch(WHOLE, (mirror.url,), tmp_path)
    (tmp_path / NAME).unlink()
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY


@pytest.fixture
def read_only(tmp_path):
    """Make folders read-only, for a user whom that stops: root becomes another one meanwhile."""
    made: list[Path] = []

    def lock_up(folder: Path) -> None:
        for parent in (folder, *tmp_path.relative_to("/").parents):
            Path("/", parent).chmod(0o755)
        folder.chmod(0o555)
        made.append(folder)
        if os.geteuid() == 0:
            os.seteuid(65534)

    before = {Path("/", parent): Path("/", parent).stat().st_mode for parent in tmp_path.relative_to("/").parents}
    before[tmp_path] = tmp_path.stat().st_mode
    yield lock_up
    if os.getuid() == 0:
        os.seteuid(0)
    for folder in made:
        folder.chmod(0o755)
    for parent, mode in before.items():
        if parent.stat().st_mode != mode:
            parent.chmod(mode)


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not made read-only this way")
def test_a_read_only_cache_with_the_file_works(serve, tmp_path, read_only):
    folder = tmp_path / "cache"
    mirror = serve({NAME: BODY})
    fetch(WHOLE, (mirror.url,), folder)
    tmp_path.chmod(0o755)
    read_only(folder)
    with pytest.raises(PermissionError):
        (folder / "probe").touch()
    assert fetch(WHOLE, (mirror.url,), folder) == BODY and len(mirror.asked) == 1
    with pytest.raises(PermissionError):
        fetch(WHOLE._replace(name="another"), (mirror.url,), folder)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"DIFFUSION_CORE_DATA": "/some/where", "XDG_CACHE_HOME": "/xdg"}, "/some/where"),
        ("linux", {"DIFFUSION_CORE_DATA": "~/sets"}, "HOME/sets"),
        ("linux", {"DIFFUSION_CORE_DATA": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/diffusion_core"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "HOME/.cache/diffusion_core"),
        ("linux", {}, "HOME/.cache/diffusion_core"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "HOME/Library/Caches/diffusion_core"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/diffusion_core/Cache"),
        ("win32", {}, "HOME/AppData/Local/diffusion_core/Cache"),
    ],
)
def test_the_cache_lies_where_the_system_wants_it(monkeypatch, tmp_path, platform, variables, expected):
    for name in ("DIFFUSION_CORE_DATA", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path(expected.replace("HOME", str(tmp_path)))


def test_a_relative_folder_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFUSION_CORE_DATA", "sets")
    assert cache_folder() == tmp_path / "sets"


# Several processes

FETCH = textwrap.dedent("""
    import sys
    from pathlib import Path
    from diffusion_core.data import download
    name, size, sha256, url, folder = sys.argv[1:]
    raw = download.fetch(download.File(name, int(size), sha256), (url,), Path(folder))
    print(len(raw))
""")


def fetching(mirror: Mirror, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", FETCH, WHOLE.name, str(WHOLE.size), WHOLE.sha256, mirror.url, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_until(true, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def part_size(folder: Path) -> int:
    return sum(part.stat().st_size for part in folder.glob("*.part"))


def test_of_several_processes_one_fetches_and_the_others_wait(serve, tmp_path):
    mirror = serve({NAME: BODY}, sends=[7000], holds=True)
    processes = [fetching(mirror, tmp_path) for _ in range(2)]
    try:
        wait_until(lambda: part_size(tmp_path) == 7000)
        time.sleep(0.5)
        assert len(mirror.asked) == 1
        mirror.release.set()
        assert [process.communicate(timeout=60)[0] for process in processes] == ["20000\n"] * 2
    finally:
        for process in processes:
            process.kill()
    assert [a.range for a in mirror.asked] == [None, "bytes=7000-"] and left_in(tmp_path) == [NAME]


def test_a_killed_process_leaves_no_lock_and_its_bytes_are_continued(serve, tmp_path):
    mirror = serve({NAME: BODY}, sends=[7000], holds=True)
    process = fetching(mirror, tmp_path)
    wait_until(lambda: part_size(tmp_path) == 7000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / NAME).exists()
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert [(a.range, a.status) for a in mirror.asked] == [(None, 200), ("bytes=7000-", 206)] and left_in(tmp_path) == [NAME]


def test_a_holder_that_does_not_get_on_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    with lock.exclusive(tmp_path / ".lock", lambda: 0), pytest.raises(TimeoutError, match=r"\.lock for 0 seconds without progress"):
        fetch(WHOLE, (refused_address(),), tmp_path)
    counter = iter(range(10**6))
    with lock.exclusive(tmp_path / ".lock", lambda: 0):  # free again, although its file is still there
        pass
    ended = time.monotonic() + 1.0
    with lock.exclusive(tmp_path / ".lock", lambda: 0), pytest.raises(InterruptedError), lock.exclusive(tmp_path / ".lock", lambda: busy(counter, ended)):
        pass


def busy(counter, ended: float) -> int:
    """A holder that gets on, until the test has seen that it is waited for longer than the patience."""
    if time.monotonic() > ended:
        raise InterruptedError
    return next(counter)


# What a person sees


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


def test_nobody_watches_nothing_shows(serve, tmp_path, capfd):
    fetch(WHOLE, (serve({NAME: BODY}, sends=[7000]).url,), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_a_fetch(serve, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    clock = iter(range(10**6))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(clock)))
    fetch(WHOLE, (serve({NAME: BODY}, sends=[7000]).url,), tmp_path)
    shown = capfd.readouterr().err
    assert f"{NAME}: 35% of 0.0 MB" in shown and shown.endswith("\r\x1b[K")


# The sets


def idx(array: np.ndarray) -> bytes:
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def grey_files(count: int, seed: int) -> tuple[bytes, bytes, np.ndarray, np.ndarray]:
    """Two gzipped IDX files of `count` images, almost all black, and what they hold."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((count, 28, 28), np.uint8)
    pixels[:: count // 10, 3, 5:9] = rng.integers(1, 256, (10, 4))
    labels = rng.integers(0, 10, count).astype(np.uint8)
    return gzip.compress(idx(pixels), 1), gzip.compress(idx(labels), 1), pixels, labels


def cifar_archive(per_file: int = 10_000, **changes: bytes | None) -> tuple[bytes, dict[str, np.ndarray]]:
    """The archive of CIFAR-10's binary version with other pictures, its files in another order than that of their numbers, and its records."""
    rng = np.random.default_rng(7)
    records = {}
    for name in ("data_batch_3", "data_batch_1", "test_batch", "data_batch_5", "data_batch_2", "data_batch_4"):
        rows = np.zeros((per_file, 3073), np.uint8)
        rows[:, 0] = rng.integers(0, 10, per_file)
        rows[:: max(1, per_file // 10), 1:] = rng.integers(0, 256, 3072)
        records[name] = rows
    members: dict[str, bytes | None] = {"batches.meta.txt": b"airplane\n"} | {f"{name}.bin": rows.tobytes() for name, rows in records.items()}
    members |= {name.replace("__", "."): body for name, body in changes.items()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, body in members.items():
            if body is not None:
                entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                entry.size = len(body)
                tar.addfile(entry, io.BytesIO(body))
    return out.getvalue(), records


def offer(monkeypatch, name: str, files: dict[str, dict[str, bytes]], *mirrors: str) -> None:
    """These bodies as the files of a set, with their true sizes and hashes, at these mirrors."""
    published = {split: tuple(File(file, len(raw), sha256(raw)) for file, raw in bodies.items()) for split, bodies in files.items()}
    monkeypatch.setitem(online.SETS, name, online.SETS[name]._replace(mirrors=mirrors, files=published))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_grey_sets_are_what_their_files_say(monkeypatch, serve, name):
    train, test = grey_files(60_000, 1), grey_files(10_000, 2)
    files = {"train": {"ti.gz": train[0], "tl.gz": train[1]}, "test": {"si.gz": test[0], "sl.gz": test[1]}}
    mirror = serve(files["train"] | files["test"])
    offer(monkeypatch, name, files, mirror.url)
    for split, (_, _, pixels, labels) in (("train", train), ("test", test)):
        x, y = images(name, split)
        assert x.shape == (len(pixels), 1, 28, 28) and x.dtype == torch.float32 and y.dtype == torch.int64
        assert torch.equal(((x[:, 0] + 1) * 127.5).round().to(torch.uint8), torch.tensor(pixels)) and y.tolist() == labels.tolist()
        assert x.min() == -1 and x.max() <= 1
    assert [a.name for a in mirror.asked] == ["ti.gz", "tl.gz", "si.gz", "sl.gz"]
    assert left_in(cache_folder() / name) == ["si.gz", "sl.gz", "ti.gz", "tl.gz"]


def test_cifar10_is_what_its_archive_says(monkeypatch, serve):
    archive, records = cifar_archive()
    offer(monkeypatch, "cifar10", {split: {"cifar.tar.gz": archive} for split in ("train", "test")}, serve({"cifar.tar.gz": archive}).url)
    train = np.concatenate([records[f"data_batch_{i}"] for i in range(1, 6)])
    for split, rows in (("train", train), ("test", records["test_batch"])):
        x, labels = images("cifar10", split)
        assert x.shape == (len(rows), 3, 32, 32) and x.dtype == torch.float32 and labels.tolist() == rows[:, 0].tolist()
        assert torch.equal(((x[::500] + 1) * 127.5).round().to(torch.uint8).flatten(1), torch.tensor(rows[::500, 1:]))
        assert torch.equal(x.amax(dim=(1, 2, 3)) > -1, torch.tensor(rows[:, 1:].any(axis=1)))


def test_a_pixel_of_cifar10_lies_where_its_format_says():
    """The first 1024 bytes are red, row by row: byte 32 * row + column."""
    rows = np.zeros((2, 3073), np.uint8)
    rows[1, 0], rows[1, 1 + 1024 * 2 + 32 * 4 + 9] = 8, 200
    archive, _ = cifar_archive(2, test_batch__bin=rows.tobytes())
    pixels, labels = formats.read_cifar10(archive, "test", 2)
    assert np.argwhere(pixels).tolist() == [[1, 2, 4, 9]] and pixels[1, 2, 4, 9] == 200 and labels.tolist() == [0, 8]


def test_class_names_of_the_full_sets():
    names = data.CLASS_NAMES
    assert names["mnist"] == names["digits"] and names["fashion_mnist"] == names["fashion"]
    assert names["cifar10"] == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert set(names) == set(online.SETS) | set(embedded.SHA256)


def test_the_published_sizes_and_hashes_have_the_form_of_ones():
    files = {file for online_set in online.SETS.values() for split in ("train", "test") for file in online_set.files[split]}
    assert len(files) == 9 and len({file.sha256 for file in files}) == 9
    assert all(len(file.sha256) == 64 and int(file.sha256, 16) and file.size > 4000 for file in files)
    assert all(mirror.startswith("http") and mirror.endswith("/") for s in online.SETS.values() for mirror in s.mirrors)
    attribution = (data.DATASETS / "ATTRIBUTION.md").read_text()
    assert all(f'`images("{name}")`' in attribution for name in online.SETS)


@pytest.mark.parametrize(
    ("name", "split", "names", "instead"),
    [
        ("mnist", "train", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"], 'images("digits")'),
        ("fashion_mnist", "test", ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"], 'images("fashion")'),
        ("cifar10", "test", ["cifar-10-binary.tar.gz"], 'images("emoji") and diffusion_core.shapes'),
    ],
)
def test_without_a_network_the_error_says_what_to_do(monkeypatch, name, split, names, instead):
    gone = refused_address()
    monkeypatch.setitem(online.SETS, name, online.SETS[name]._replace(mirrors=(gone,)))
    with pytest.raises(ConnectionError) as caught:
        images(name, split)
    message = str(caught.value)
    assert all(word in message for word in (name, split, *names, instead, gone + names[0], "refused", str(cache_folder() / name)))


def test_a_name_that_cannot_be_resolved_counts_as_no_network(monkeypatch):
    def unknown(*arguments: object, **keywords: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectionError, match=r"(?s)no mirror gave a file.*brainchip.*Name or service not known.*toronto.*Name or service not known"):
        images("cifar10", "test")


def test_a_set_is_not_fetched_for_a_split_that_does_not_exist(monkeypatch):
    monkeypatch.setattr(online, "fetch", None)
    with pytest.raises(ValueError, match="unknown split 'valid' of cifar10"):
        images("cifar10", "valid")


def test_unknown_sets_are_answered_with_all_known_ones():
    with pytest.raises(ValueError, match=r"'cifar'.*carries 'digits', 'fashion', 'emoji' and fetches 'mnist', 'fashion_mnist', 'cifar10'"):
        images("cifar")


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DIFFUSION_CORE_DATA", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cache folder .*file.mnist cannot be used .*DIFFUSION_CORE_DATA.*train-images-idx3-ubyte\.gz"):
        images("mnist")


# Formats


def test_idx_files_are_read_and_others_refused():
    assert formats.read_idx(idx(np.arange(6).reshape(2, 3))).tolist() == [[0, 1, 2], [3, 4, 5]]
    whole = idx(np.arange(6).reshape(2, 3))
    for raw, fault in (
        (b"\x1f\x8b\x08\x00rest", "1f8b0800"),
        (b"", "not an IDX file"),
        (b"\0\0\x0d\x01" + bytes(8), "00000d01"),
        (whole[:9], "ends within its header"),
        (whole[:-1], r"shape \(2, 3\) and holds 5 bytes"),
        (whole + b"\0", r"shape \(2, 3\) and holds 7 bytes"),
        (b"\0\0\x08\x02" + b"\xff\xff\xff\xff" * 2 + b"\0", r"shape \(-1, -1\)"),
    ):
        with pytest.raises(ValueError, match=fault):
            formats.read_idx(raw)


def test_pairs_of_idx_files_must_fit_together():
    pictures, labels = gzip.compress(idx(np.zeros((3, 28, 28)))), gzip.compress(idx(np.array([1, 2, 9])))
    pixels, classes = formats.read_idx_pair(pictures, labels, 3)
    assert pixels.shape == (3, 1, 28, 28) and classes.tolist() == [1, 2, 9]
    for first, second, count, fault in (
        (pictures, labels, 4, r"\(3, 28, 28\) and \(3,\), expected \(4, 28, 28\)"),
        (pictures, gzip.compress(idx(np.zeros(2))), 3, r"and \(2,\)"),
        (gzip.compress(idx(np.zeros((3, 28, 27)))), labels, 3, r"\(3, 28, 27\)"),
        (labels, pictures, 3, "expected"),
        (pictures, gzip.compress(idx(np.array([1, 2, 10]))), 3, "label is 10"),
        (pictures[:-9], labels, 3, "not a whole gzip file"),
        (b"<html>", labels, 3, "not a whole gzip file"),
    ):
        with pytest.raises(ValueError, match=fault):
            formats.read_idx_pair(first, second, count)


def test_archives_that_cannot_be_meant_are_refused():
    whole, _ = cifar_archive(3)
    assert formats.read_cifar10(whole, "train", 3)[0].shape == (15, 3, 32, 32)
    wrong_label = b"\x0a" + bytes(3 * 3073 - 1)
    for archive, fault in (
        (cifar_archive(3, test_batch__bin=None)[0], r"has no cifar-10-batches-bin/test_batch\.bin"),
        (cifar_archive(3, test_batch__bin=bytes(3 * 3073 - 1))[0], "9218 bytes, expected a file of 9219"),
        (cifar_archive(4)[0], "12292 bytes, expected a file of 9219"),
        (cifar_archive(3, test_batch__bin=wrong_label)[0], "label is 10"),
        (whole[: len(whole) // 2], "cannot be read"),
        (b"<html>", "cannot be read"),
        (b"", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=fault):
            formats.read_cifar10(archive, "test", 3)


def test_a_member_that_is_no_file_is_refused():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        entry = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(ValueError, match="expected a file"):
        formats.read_cifar10(out.getvalue(), "test", 3)


# Nothing is unpickled


def test_no_module_of_the_package_can_unpickle():
    forbidden = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in (ROOT / "diffusion_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("torch", "numpy"):
                assert not {"load", "read_array"} & {a.name for a in node.names}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("load", "read_array"):
                called = ast.unparse(node.func)
                assert called != "torch.load", path
                if called.startswith(("np.", "numpy.")):
                    assert any(k.arg == "allow_pickle" and isinstance(k.value, ast.Constant) and k.value.value is False for k in node.keywords), path


def test_an_embedded_file_that_holds_a_pickle_is_refused(monkeypatch, tmp_path):
    out = io.BytesIO()
    np.savez(out, train_images=np.array([{}], dtype=object), train_labels=np.zeros(1))
    (tmp_path / "digits.npz").write_bytes(out.getvalue())
    monkeypatch.setattr(embedded, "DATASETS", tmp_path)
    monkeypatch.setitem(embedded.SHA256, "digits", sha256(out.getvalue()))
    monkeypatch.setattr(pickle, "Unpickler", None)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        images("digits")
