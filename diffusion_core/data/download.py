"""One file from the first mirror that gives it whole: resumed where it was cut, checked before it is used, fetched by one process.

A file appears under its name only when its SHA-256 is right. Until then its bytes stand beside it in a part file, one for each mirror, with
the version that the mirror gave them (ETag or Last-Modified, RFC 9110): bytes of two versions, or of two mirrors, are never joined.
"""

import glob
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from diffusion_core import carried
from diffusion_core.data.lock import exclusive
from diffusion_core.progress import Transfer

PATIENCE = 20.0  # seconds without an answer, or with fewer than SLOWEST bytes a second, after which a mirror is given up
SLOWEST = 10_000
TRIES = 20  # connections to one mirror; each must get further than the one before
PAUSE = 1.0  # seconds before a connection that was cut is made again
BLOCK = 1 << 18


class File(NamedTuple):
    """What is to be fetched: its name, and its size in bytes and SHA-256, which every mirror must give."""

    name: str
    size: int
    sha256: str


class MirrorError(Exception):
    """Why a mirror did not give the file."""


class Interrupted(MirrorError):
    """The connection ended too early; another one may go on from there."""


class Part:
    """What one mirror has given of a file so far, and of which version."""

    def __init__(self, path: Path, url: str):
        mirror = hashlib.sha256(url.encode()).hexdigest()[:8]
        self.path = path.with_name(f"{path.name}.{mirror}.part")
        self.version_path = self.path.with_name(f"{self.path.name}.version")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> str:
        return self.version_path.read_text(encoding="utf-8") if self.version_path.exists() else ""

    def begin(self, version: str) -> None:
        """Empty, then of this version: a process killed in between leaves nothing that could be continued."""
        self.path.write_bytes(b"")
        self.version_path.write_text(version, encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.version_path.unlink(missing_ok=True)


def fetch(file: File, mirrors: tuple[str, ...], folder: Path) -> bytes:
    """The bytes of a file: from the folder if it is there, otherwise from the first mirror that gives it, and then from the folder.

    mirrors: addresses that end in a slash, in the order in which they are tried.
    Raises ValueError for a file in the folder that is damaged, MirrorError with a line for each mirror when none gives the file, OSError when
    the folder cannot be written, TimeoutError when another process holds it and does not get on.
    """
    path = folder / file.name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / ".lock", lambda: _received(folder)):
            if not path.exists():
                return _download(file, mirrors, path)
    return carried.read(path, file.sha256, "data file", "delete it, and it is fetched again")


def _download(file: File, mirrors: tuple[str, ...], path: Path) -> bytes:
    failures = []
    for mirror in mirrors:
        url = mirror + file.name
        part = Part(path, url)
        try:
            raw = _from_mirror(file, url, part)
        except MirrorError as error:
            failures.append(f"  {url}: {error}")
            continue
        os.replace(part.path, path)
        for left in list(_parts(path)):
            left.unlink(missing_ok=True)
        return raw
    raise MirrorError("\n".join(failures))


def _parts(path: Path) -> Iterator[Path]:
    """All part files of a file, with those that hold their versions."""
    return path.parent.glob(f"{glob.escape(path.name)}.*.part*")


def _received(folder: Path) -> dict[Path, int]:
    """How much of its unfinished files a folder holds."""
    sizes = {}
    for part in folder.glob("*.part"):
        with suppress(FileNotFoundError):
            sizes[part] = part.stat().st_size
    return sizes


def _from_mirror(file: File, url: str, part: Part) -> bytes:
    """The whole file, its SHA-256 found right; a part file with other bytes is discarded."""
    with Transfer(file.name, file.size) as line:
        furthest = part.size
        for _ in range(TRIES):
            try:
                _continue(file, url, part, line)
                break
            except Interrupted as error:
                if part.size <= furthest:
                    raise
                furthest, last = part.size, error
                time.sleep(PAUSE)
        else:
            raise MirrorError(f"cut {TRIES} times, the last time: {last}") from last
    raw = part.path.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != file.sha256:
        part.discard()
        raise MirrorError(f"SHA-256 {found}, expected {file.sha256}")
    return raw


def _continue(file: File, url: str, part: Part, line: Transfer) -> None:
    """One connection: the rest of the file where the mirror can go on with the same version, otherwise the file from its beginning."""
    offset, version = part.size, part.version
    if offset == file.size:
        return
    if offset > file.size or not version:
        offset = 0
    response = _open(url, offset, version)
    if response.status == 206 and offset and not _goes_on(response, offset, version):
        response.close()
        offset = 0
        response = _open(url, 0, "")
    with response:
        if response.status == 200:
            offset = 0
            part.begin(_version(response))
        elif response.status != 206 or not offset:
            raise MirrorError(f"unexpected answer {response.status} {response.reason}")
        size = response.length if response.status == 200 else _content_range(response)[1]
        if size is not None and size != file.size:
            part.discard()
            raise MirrorError(f"the file has {size} bytes there, expected {file.size}")
        _receive(file, response, part, offset, line)


def _receive(file: File, response: HTTPResponse, part: Part, offset: int, line: Transfer) -> None:
    """Append what the connection brings until the file is whole."""
    since, then = time.monotonic(), offset
    with open(part.path, "ab") as out:
        while offset < file.size:
            try:
                block = response.read1(min(BLOCK, file.size - offset))
            except (OSError, HTTPException) as error:
                raise Interrupted(f"cut after {offset} of {file.size} bytes ({_reason(error)})") from error
            if not block:
                raise Interrupted(f"cut after {offset} of {file.size} bytes")
            out.write(block)
            out.flush()
            offset += len(block)
            line.at(offset)
            elapsed = time.monotonic() - since
            if elapsed > PATIENCE:
                if offset - then < SLOWEST * elapsed:
                    raise MirrorError(f"{offset - then} bytes in {elapsed:.0f} seconds; given up after {offset} of {file.size} bytes")
                since, then = time.monotonic(), offset
        os.fsync(out.fileno())


def _open(url: str, offset: int, version: str) -> HTTPResponse:
    headers = {"User-Agent": "diffusion_core", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=PATIENCE)
        return response
    except HTTPError as error:
        error.close()
        range_refused = error.code == 416 and offset
        if not range_refused:
            raise MirrorError(f"{error.code} {error.reason}") from error
    except (URLError, OSError, HTTPException) as error:
        raise MirrorError(_reason(error)) from error
    return _open(url, 0, "")


def _goes_on(response: HTTPResponse, offset: int, version: str) -> bool:
    """Whether a partial answer starts at this byte, of this version; an answer without the header that named the version is believed."""
    header = "ETag" if version.startswith('"') else "Last-Modified"
    return _content_range(response)[0] == offset and response.headers.get(header, version) == version


def _content_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """The first byte of a partial answer and the size of the whole file, from `bytes 100-199/200`; the size may be unknown, `*`."""
    found = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", response.headers.get("Content-Range", ""), re.IGNORECASE)
    return (int(found[1]), None if found[2] == "*" else int(found[2])) if found else (None, None)


def _version(response: HTTPResponse) -> str:
    """What If-Range may carry (RFC 9110, 13.1.5 and 8.8.2.2): a strong ETag; where there is none, strong or weak, a date of the last change that
    lies a minute or more before that of the answer, so that a second change at the same date is unlikely; otherwise nothing."""
    tag: str = response.headers.get("ETag", "")
    changed: str = response.headers.get("Last-Modified", "")
    if tag:
        return tag if tag.startswith('"') else ""
    try:
        age = parsedate_to_datetime(response.headers.get("Date", "")).timestamp() - parsedate_to_datetime(changed).timestamp()
    except (ValueError, OverflowError):
        return ""
    return changed if age >= 60 else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        return _reason(error.reason)
    if isinstance(error, TimeoutError):
        return f"no answer for {PATIENCE:.0f} seconds"
    return str(error) or type(error).__name__
