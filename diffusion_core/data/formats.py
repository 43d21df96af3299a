"""Two plain formats of image sets, read from bytes in memory: IDX (MNIST, Fashion-MNIST) and the binary version of CIFAR-10."""

import gzip
import io
import math
import tarfile
import zlib

import numpy as np

CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
CIFAR_RECORD = 1 + 3 * 32 * 32


def read_idx(raw: bytes) -> np.ndarray:
    """An array of bytes in the IDX format of MNIST: two zero bytes, type 8 (unsigned byte), the rank, the shape as big-endian int32, the bytes.

    Raises ValueError for another beginning or a length that does not agree with the shape.
    """
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"not an IDX file of unsigned bytes: it starts with {raw[:4].hex()}, expected 000008 and the rank")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise ValueError(f"the IDX file ends within its header: {len(raw)} bytes, rank {raw[3]}")
    shape = tuple(np.frombuffer(raw, ">i4", raw[3], 4).tolist())
    if min(shape, default=1) < 0 or len(raw) - start != math.prod(shape):
        raise ValueError(f"the IDX file says shape {shape} and holds {len(raw) - start} bytes after its header")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_idx_pair(pictures: bytes, labels: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 1, 28, 28) and labels (count,) from two gzipped IDX files. Raises ValueError when they hold anything else."""
    pixels, classes = (read_idx(_gunzipped(raw)) for raw in (pictures, labels))
    if pixels.shape != (count, 28, 28) or classes.shape != (count,):
        raise ValueError(f"the IDX files hold shapes {pixels.shape} and {classes.shape}, expected {(count, 28, 28)} and {(count,)}")
    _check_classes(classes)
    return pixels[:, None], classes


def read_cifar10(archive: bytes, split: str, per_file: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels (N,) of a split from the archive of CIFAR-10's binary version, in the order of its files.

    A file is `per_file` records, one byte of label and 1024 bytes each of red, green and blue, row by row
    (https://www.cs.toronto.edu/~kriz/cifar.html). Members are found by their exact names and nothing is written to disk. Raises ValueError for
    a damaged archive, for a file that is missing, and for records that cannot be meant.
    """
    wanted = {f"{CIFAR_FOLDER}/{name}": per_file * CIFAR_RECORD for name in CIFAR_FILES[split]}
    found: dict[str, np.ndarray] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r|gz") as tar:
            for member in tar:
                if member.name not in wanted:
                    continue
                if not member.isreg() or member.size != wanted[member.name]:
                    raise ValueError(f"{member.name} of the CIFAR-10 archive has {member.size} bytes, expected a file of {wanted[member.name]}")
                body = tar.extractfile(member)
                assert body is not None
                found[member.name] = np.frombuffer(body.read(), np.uint8).reshape(per_file, CIFAR_RECORD)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"the CIFAR-10 archive cannot be read: {error}") from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"the CIFAR-10 archive has no {', '.join(missing)}")
    records = np.concatenate([found[name] for name in wanted])
    _check_classes(records[:, 0])
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _gunzipped(raw: bytes) -> bytes:
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"not a whole gzip file: {error}") from error


def _check_classes(labels: np.ndarray) -> None:
    if labels.size and labels.max() > 9:
        raise ValueError(f"a label is {labels.max()}, expected classes 0 to 9")
