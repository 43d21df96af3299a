"""One file from its mirrors: every fault of a mirror, a network, a disk and a process, on servers of the loopback address."""

import hashlib
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import time
from email.utils import formatdate
from http.client import IncompleteRead
from pathlib import Path

import numpy as np
import pytest
from loopback import Mirror, mirrors, refused_address, surroundings  # noqa: F401

from diffusion_core import progress
from diffusion_core.data import download, lock
from diffusion_core.data.download import File, MirrorError, fetch
from diffusion_core.progress import Transfer

ROOT = Path(__file__).parent.parent
BODY = np.random.default_rng(0).bytes(20_000)
NAME = "file.bin"
DATE = "Tue, 01 Aug 2017 00:00:00 GMT"

serve = pytest.fixture(mirrors)


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


WHOLE = File(NAME, len(BODY), sha256(BODY))


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


def test_a_cut_connection_is_not_made_again_at_once(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.3)
    begun = time.monotonic()
    fetch(WHOLE, (serve({NAME: BODY}, sends=[7000, 5000]).url,), tmp_path)
    assert time.monotonic() - begun > 0.6


def test_the_date_of_the_last_change_serves_where_there_is_no_tag(serve, tmp_path):
    mirror = serve({NAME: BODY}, tag=None, modified=DATE, sends=[7000])
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert [(a.range, a.if_range) for a in mirror.asked] == [(None, None), ("bytes=7000-", DATE)]


@pytest.mark.parametrize(
    ("tag", "modified"),
    [(None, None), ('W/"weak"', None), ('W/"weak"', DATE), (None, "now"), (None, "Fri, 31 Dec 9999 00:00:00 GMT"), (None, "yesterday")],
)
def test_without_a_strong_version_nothing_is_continued(serve, tmp_path, tag, modified):
    """What If-Range must not carry (RFC 9110, 13.1.5): a weak tag, a date beside any tag, a date so new that the file may change again at the same one."""
    mirror = serve({NAME: BODY}, tag=tag, modified=formatdate(usegmt=True) if modified == "now" else modified, sends=[7000])
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert mirror.ranges_asked() == [None, None]


@pytest.mark.parametrize("checks_if_range", [True, False])
@pytest.mark.parametrize("header", ["tag", "modified"])
def test_versions_are_never_mixed(serve, tmp_path, checks_if_range, header):
    """Another version of the same length: a server that checks If-Range answers 200, one that does not is found out by its tag or date."""
    old, new = {"tag": ('"v1"', '"v2"'), "modified": (DATE, formatdate(usegmt=True))}[header]
    mirror = serve({NAME: bytes(len(BODY))}, sends=[7000, 0], checks_if_range=checks_if_range, **{"tag": None, header: old})
    with pytest.raises(MirrorError):
        fetch(WHOLE, (mirror.url,), tmp_path)
    mirror.files[NAME] = BODY
    setattr(mirror, header, new)
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert mirror.asked[2].range == "bytes=7000-" and mirror.asked[2].if_range == old
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


def test_a_partial_answer_may_be_shorter_than_what_was_asked_for(serve, tmp_path):
    """As RFC 9110 allows (15.3.7): the rest is asked for in its turn."""
    mirror = serve({NAME: BODY}, sends=[7000], partial=5000)
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert mirror.ranges_asked() == [None, "bytes=7000-", "bytes=12000-", "bytes=17000-"]


def test_a_partial_answer_of_a_file_of_another_size_is_refused(serve, tmp_path):
    mirror = serve({NAME: BODY}, sends=[7000], content_range="bytes 7000-19999/20001")
    with pytest.raises(MirrorError, match="the file has 20001 bytes there, expected 20000"):
        fetch(WHOLE, (mirror.url,), tmp_path)
    assert left_in(tmp_path) == []


def test_a_partial_answer_of_unknown_size_is_continued(serve, tmp_path):
    mirror = serve({NAME: BODY}, sends=[7000], content_range="BYTES 7000-19999/*")
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert mirror.ranges_asked() == [None, "bytes=7000-"]


def test_a_partial_answer_that_nobody_asked_for_is_refused(serve, tmp_path):
    """From a server that cuts, and then answers every request with a part."""
    mirror = serve({NAME: BODY}, sends=[7000, 0])
    with pytest.raises(MirrorError):
        fetch(WHOLE, (mirror.url,), tmp_path)
    mirror.status = 206
    with pytest.raises(MirrorError, match="unexpected answer 206"):
        fetch(WHOLE, (mirror.url,), tmp_path)
    mirror.status = None
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY


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
            patch.setattr(Path, method, lambda path, content, **options: (_ for _ in ()).throw(KeyboardInterrupt))
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
    monkeypatch.setattr(download, "PATIENCE", 2.0)
    silent, good = serve({NAME: BODY}, sends=[sent, 0, 0], holds=True), serve({NAME: BODY})
    begun = time.monotonic()
    with pytest.raises(MirrorError, match=rf"cut after {sent} of 20000 bytes \(no answer for 2 seconds\)"):
        fetch(WHOLE, (silent.url,), tmp_path)
    assert 2 < time.monotonic() - begun < 60
    monkeypatch.setattr(download, "PATIENCE", 5.0)  # the good one may be slow to answer on a busy machine
    assert fetch(WHOLE, (silent.url, good.url), tmp_path) == BODY and len(good.asked) == 1


def test_a_mirror_that_drips_is_given_up(serve, tmp_path, monkeypatch):
    """Always a byte within the time limit of one reading, never enough of them."""
    monkeypatch.setattr(download, "SLOWEST", 10_000)
    slow, good = serve({NAME: BODY}, drip=0.01), serve({NAME: BODY})
    begun = time.monotonic()
    assert fetch(WHOLE, (slow.url, good.url), tmp_path) == BODY
    assert time.monotonic() - begun > 5 and len(slow.asked) == len(good.asked) == 1


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


class Breaking:
    """A connection that brings 1000 bytes and then fails."""

    def __init__(self, error: Exception):
        self.answers = iter([bytes(1000), error])

    def read1(self, most: int) -> bytes:
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize("error", [ConnectionResetError("reset by peer"), IncompleteRead(b""), ssl.SSLError("bad record"), TimeoutError()])
def test_a_connection_that_fails_leaves_what_it_brought(tmp_path, error):
    file, part = File(NAME, 5000, sha256(bytes(5000))), download.Part(tmp_path / NAME, "http://mirror/")
    with Transfer(NAME, 5000, show=False) as line, pytest.raises(download.Interrupted, match=r"cut after 1000 of 5000 bytes \(.+\)"):
        download._receive(file, Breaking(error), part, 0, line)
    assert part.size == 1000


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


# Several processes

FETCH = textwrap.dedent("""
    import sys
    from pathlib import Path
    from diffusion_core.data import download
    name, size, sha256, url, folder = sys.argv[1:]
    download.PATIENCE = 200.0  # longer than the tests, in which one process may start long after another
    print("ready", flush=True)
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
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
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
    mirror = serve({NAME: BODY}, sends=[1000], holds=True)
    process = fetching(mirror, tmp_path)
    assert process.stdout.readline() == "ready\n"
    wait_until(lambda: part_size(tmp_path) == 1000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / NAME).exists()
    assert fetch(WHOLE, (mirror.url,), tmp_path) == BODY
    assert [(a.range, a.status) for a in mirror.asked] == [(None, 200), ("bytes=1000-", 206)] and left_in(tmp_path) == [NAME]


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
