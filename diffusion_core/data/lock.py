"""One process at a time: a lock on a file that the operating system gives back when its holder ends, however it ends."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PATIENCE = 600.0  # seconds that a holder may show no progress before the others stop waiting


@contextmanager
def exclusive(path: Path, progress: Callable[[], object]) -> Iterator[None]:
    """Hold the lock `path` (an empty file, which stays) or wait for it; threads exclude each other as processes do.

    progress: anything that changes while the holder works. Raises TimeoutError when it has been the same for `PATIENCE` seconds, and
    OSError when the file cannot be made or its file system has no locks.
    """
    with open(path, "ab") as file:
        seen, since = progress(), time.monotonic()
        while not _taken(file):
            now = progress()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                raise TimeoutError(f"another process has held {path} for {PATIENCE:.0f} seconds without progress; end it and try again")
            time.sleep(0.1)
        yield


if sys.platform == "win32":
    import msvcrt

    def _taken(file: IO[bytes]) -> bool:
        """Lock the file's first byte if nobody holds it."""
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _taken(file: IO[bytes]) -> bool:
        """Lock the file if nobody holds it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
