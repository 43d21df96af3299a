"""A mirror on the loopback address with real ranges (RFC 9110), and with the faults that mirrors have, one by one."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

from diffusion_core.data import download

TAKEN: list[socket.socket] = []


class Asked(NamedTuple):
    """One request and the status of its answer."""

    name: str
    range: str | None
    if_range: str | None
    status: int


@dataclass
class Mirror:
    """What a server holds, how it misbehaves, and what it was asked.

    partial: the most bytes of a partial answer. sends: for the first answers, how many bytes of the body are sent before the connection is
    closed (None: all). holds: it is then kept open until `release` is set. drip: seconds between single bytes. status: an answer without the
    file. moved: where it redirects to.
    """

    files: dict[str, bytes]
    tag: str | None = '"v1"'
    modified: str | None = None
    ranges: bool = True
    checks_if_range: bool = True
    declares_length: bool = True
    content_range: str | None = None
    partial: int | None = None
    sends: list[int | None] = field(default_factory=list)
    holds: bool = False
    drip: float = 0.0
    status: int | None = None
    moved: str | None = None
    asked: list[Asked] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def ranges_asked(self) -> list[str | None]:
        return [request.range for request in self.asked]


@contextmanager
def serving(mirror: Mirror) -> Iterator[Mirror]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            answer(self, mirror)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    mirror.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield mirror
    finally:
        mirror.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def answer(request: BaseHTTPRequestHandler, mirror: Mirror) -> None:
    name = request.path.lstrip("/")
    wish, condition = request.headers.get("Range"), request.headers.get("If-Range")
    body = mirror.files.get(name)
    start = 0
    status = mirror.status or (302 if mirror.moved else 404 if body is None else 200)
    if status == 200 and wish and mirror.ranges and (not mirror.checks_if_range or condition is None or condition in (mirror.tag, mirror.modified)):
        start = int(wish.removeprefix("bytes=").removesuffix("-"))
        status = 206 if start < len(body) else 416
    mirror.asked.append(Asked(name, wish, condition, status))
    request.send_response(status)
    if mirror.moved:
        request.send_header("Location", mirror.moved + name)
    sent = body[start:] if status in (200, 206) else b""
    if status == 206:
        sent = sent[: mirror.partial]
        request.send_header("Content-Range", mirror.content_range or f"bytes {start}-{start + len(sent) - 1}/{len(body)}")
    for header, value in (("ETag", mirror.tag), ("Last-Modified", mirror.modified)):
        if value is not None and sent:
            request.send_header(header, value)
    if mirror.declares_length:
        request.send_header("Content-Length", str(len(sent)))
    request.end_headers()
    limit = mirror.sends.pop(0) if mirror.sends else None
    try:
        if mirror.drip:
            for byte in sent:
                request.wfile.write(bytes([byte]))
                if mirror.release.wait(mirror.drip):
                    return
        request.wfile.write(sent[:limit])
        if mirror.holds and limit is not None:
            mirror.release.wait(300)
    except OSError:
        pass  # the client went away, as it should


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """For modules that import it: a cache of its own, no proxy, and no long pauses."""
    monkeypatch.setenv("DIFFUSION_CORE_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "PATIENCE", 5.0)


def mirrors() -> Iterator[Callable[..., Mirror]]:
    """For a fixture `serve`: servers that stop with the test; `serve({"name": body}, fault=...)` is a `Mirror`."""
    with ExitStack() as stack:
        yield lambda *args, **faults: stack.enter_context(serving(Mirror(*args, **faults)))


def refused_address() -> str:
    """An address where nothing listens, taken for as long as the tests run, so that no other server comes to stand there."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    TAKEN.append(taken)
    return f"http://127.0.0.1:{taken.getsockname()[1]}/"
