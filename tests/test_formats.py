"""IDX files and the archive of CIFAR-10, read and refused; nothing is ever unpickled."""

import ast
import gzip
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from archives import cifar_archive, idx

from diffusion_core import images
from diffusion_core.data import embedded, formats

ROOT = Path(__file__).parent.parent


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
        (pictures[:10] + b"\xff" + pictures[11:], labels, 3, "not a whole gzip file"),
        (pictures[:-8] + bytes(4) + pictures[-4:], labels, 3, "not a whole gzip file"),
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


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_file_is_refused(kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        entry = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        entry.type, entry.size, entry.linkname = kind, 3 * 3073, "" if kind == tarfile.DIRTYPE else "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(ValueError, match="expected a file"):
        formats.read_cifar10(out.getvalue(), "test", 3)


def test_a_pixel_of_cifar10_lies_where_its_format_says():
    """The first 1024 bytes are red, row by row: byte 32 * row + column."""
    rows = np.zeros((2, 3073), np.uint8)
    rows[1, 0], rows[1, 1 + 1024 * 2 + 32 * 4 + 9] = 8, 200
    archive, _ = cifar_archive(2, test_batch__bin=rows.tobytes())
    pixels, labels = formats.read_cifar10(archive, "test", 2)
    assert np.argwhere(pixels).tolist() == [[1, 2, 4, 9]] and pixels[1, 2, 4, 9] == 200 and labels.tolist() == [0, 8]


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
    monkeypatch.setitem(embedded.SHA256, "digits", hashlib.sha256(out.getvalue()).hexdigest())
    monkeypatch.setattr(pickle, "Unpickler", None)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        images("digits")
