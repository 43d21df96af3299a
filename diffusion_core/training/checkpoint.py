"""Checkpoints: one safetensors file a run, whole or absent, that only its own run continues.

The file holds the tensors of a `State` and, in its metadata, a JSON record of the run and the SHA-256 of everything. It is written beside its
place, flushed to the disk and renamed, so that a kill at any moment leaves the last complete one. Nothing is pickled.
"""

import errno
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_core.denoiser import Denoiser
from diffusion_core.extras import needing
from diffusion_core.training.identity import differences, model_record
from diffusion_core.training.state import put

NAME = "checkpoint.safetensors"
FORMAT = 1
KEY = "diffusion_core"
BLANK = "0" * 64
LONGEST_HEADER = 100_000_000  # bytes, as safetensors has it


def load(path: str | Path, denoiser: Denoiser, average: bool = True) -> Denoiser:
    """The denoiser with the weights of a checkpoint of `fit`, in evaluation mode: the averaged ones, frozen, as `fit` returns them, or the raw ones.

    path: the folder that `fit` was given, or the file in it. denoiser: one of the same network, schedule and target, whose weights are overwritten.
    Raises FileNotFoundError where there is no checkpoint, ValueError for a damaged or foreign file and for a denoiser that the weights do not fit.

    >>> import tempfile, torch
    >>> from diffusion_core import MLP, Denoiser, Straight, fit, targets
    >>> from diffusion_core.training import load
    >>> build = lambda: Denoiser(MLP(2, width=8), Straight(), targets.velocity)
    >>> x0 = torch.zeros(10, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     average, losses = fit(build(), x0, steps=3, batch_size=4, checkpoint=folder)
    ...     loaded = load(folder, build())
    >>> pairs = zip(loaded.parameters(), average.parameters())
    >>> all(torch.equal(a, b) for a, b in pairs)
    True
    """
    file = Path(path) / NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {file}; name the folder that fit(..., checkpoint=folder) was given")
    record, tensors = parse(file, file.read_bytes())
    here = model_record(denoiser)
    unlike = differences({name: record["run"].get(name) for name in here}, here)
    if unlike:
        raise ValueError(f"{file} holds another denoiser: {'; '.join(unlike)}. Build the one that was trained")
    try:
        put("average" if average else "weights", tensors, denoiser)
    except ValueError as error:
        raise ValueError(f"{file} holds another denoiser: {error}. Build the one that was trained") from error
    return denoiser.requires_grad_(False).eval() if average else denoiser.eval()


def make_folder(folder: Path) -> None:
    """Make the folder of a checkpoint."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"fit: checkpoint={str(folder)!r} is a file; name a folder, which gets the file {NAME}")
    folder.mkdir(parents=True, exist_ok=True)


def write(file: Path, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Replace the checkpoint. Raises OSError, which names the file, when the disk refuses; the one before then still stands."""
    try:
        put_in_place(file, _sealed(record, tensors))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; the checkpoint could not be written, the one before, if any, still stands", str(file)) from error


def put_in_place(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, so that it lasts through a power cut, and remove what a killed process left half written beside it."""
    half = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with open(half, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(half, file)
        _flush_folder(file.parent)
    finally:
        for left in file.parent.glob(f"{file.name}.*.tmp"):
            with suppress(OSError):
                left.unlink()


def header(file: Path) -> bytes:
    """The beginning of a checkpoint, which states its step and the SHA-256 of everything: what tells one from another without reading the tensors. Empty without a file."""
    if not file.exists():
        return b""
    with file.open("rb") as inside:
        size = inside.read(8)
        return size + inside.read(min(int.from_bytes(size, "little"), LONGEST_HEADER))


def parse(file: Path, raw: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(record, tensors) of a checkpoint's bytes. Raises ValueError, which names the file, for a damaged or foreign one and for another format."""
    with needing("a checkpoint", extra="train"):
        from safetensors.torch import load as load_tensors

    way_out = "Restore it from a copy, or move it away to begin the run anew"
    try:
        size = int.from_bytes(raw[:8], "little")
        metadata = json.loads(raw[8 : 8 + size])["__metadata__"]
        seal, record = metadata["sha256"], json.loads(metadata[KEY])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is no checkpoint of diffusion_core, or its beginning is damaged ({len(raw)} bytes). {way_out}") from error
    if seal != hashlib.sha256(raw.replace(_seal(seal), _seal(BLANK), 1)).hexdigest():
        raise ValueError(f"{file} is damaged: its {len(raw)} bytes do not have the SHA-256 that they state; it was cut short or changed. {way_out}")
    if record["format"] != FORMAT:
        raise ValueError(f"{file} has format {record['format']} and this version of diffusion_core reads format {FORMAT}. Continue the run with the version that began it")
    return record, load_tensors(raw)


def _sealed(record: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """The file's bytes. The digest is of all of them, with zeros where it stands itself, so that no bit can change unnoticed."""
    with needing("a checkpoint", extra="train"):
        from safetensors.torch import save

    blank = save(tensors, {KEY: json.dumps({"format": FORMAT, **record}, default=float), "sha256": BLANK})
    return blank.replace(_seal(BLANK), _seal(hashlib.sha256(blank).hexdigest()), 1)


def _seal(digest: str) -> bytes:
    return f'"sha256":"{digest}"'.encode()


def _flush_folder(folder: Path) -> None:
    """Make the new name itself last through a power cut; Windows and some network disks cannot."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
