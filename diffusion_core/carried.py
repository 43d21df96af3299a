"""Files that the package carries are read whole and only when their SHA-256 is right, so that a damaged one is named and never used."""

import hashlib
from pathlib import Path


def read(path: Path, sha256: str, what: str, cure: str) -> bytes:
    """The bytes of `path`. Raises FileNotFoundError or ValueError with `what` the file is and the `cure` when it is missing or damaged."""
    if not path.exists():
        raise FileNotFoundError(f"the {what} {path} is missing; {cure}")
    raw = path.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise ValueError(f"the {what} {path} is damaged: {len(raw)} bytes, SHA-256 {found}, expected {sha256}; {cure}")
    return raw
