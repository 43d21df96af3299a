"""Small files in the formats of MNIST and CIFAR-10, and what they hold."""

import gzip
import io
import tarfile

import numpy as np


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
