"""The sets that are fetched, from servers of the loopback address: what they hold, where they are kept, and what is said without a network."""

import hashlib
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import cifar_archive, grey_files
from loopback import mirrors, refused_address, surroundings  # noqa: F401

from diffusion_core import data, images
from diffusion_core.data import cache_folder, embedded, lock, online
from diffusion_core.data.download import File

serve = pytest.fixture(mirrors)

# As `url_checksums` of TensorFlow Datasets records them for MNIST, Fashion-MNIST and CIFAR-10: size and SHA-256.
PUBLISHED = {
    (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    (170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
}


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


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
    assert sorted(path.name for path in (cache_folder() / name).glob("*.gz")) == ["si.gz", "sl.gz", "ti.gz", "tl.gz"]


def test_cifar10_is_what_its_archive_says(monkeypatch, serve):
    archive, records = cifar_archive()
    offer(monkeypatch, "cifar10", {split: {"cifar.tar.gz": archive} for split in ("train", "test")}, serve({"cifar.tar.gz": archive}).url)
    train = np.concatenate([records[f"data_batch_{i}"] for i in range(1, 6)])
    for split, rows in (("train", train), ("test", records["test_batch"])):
        x, labels = images("cifar10", split)
        assert x.shape == (len(rows), 3, 32, 32) and x.dtype == torch.float32 and labels.tolist() == rows[:, 0].tolist()
        assert torch.equal(((x[::500] + 1) * 127.5).round().to(torch.uint8).flatten(1), torch.tensor(rows[::500, 1:]))
        assert torch.equal(x.amax(dim=(1, 2, 3)) > -1, torch.tensor(rows[:, 1:].any(axis=1)))


def test_class_names_of_the_full_sets():
    names = data.CLASS_NAMES
    assert names["mnist"] == names["digits"] and names["fashion_mnist"] == names["fashion"]
    assert names["cifar10"] == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert set(names) == set(online.SETS) | set(embedded.SHA256)


def test_the_sizes_and_hashes_are_the_published_ones():
    files = {file for online_set in online.SETS.values() for split in ("train", "test") for file in online_set.files[split]}
    assert {(file.size, file.sha256) for file in files} == PUBLISHED and len(files) == 9
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


def test_a_process_that_holds_the_set_for_too_long_is_named_as_such(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    folder = cache_folder() / "mnist"
    folder.mkdir(parents=True)
    with lock.exclusive(folder / ".lock", lambda: 0), pytest.raises(TimeoutError, match=r"another process has held .*mnist.\.lock"):
        images("mnist")


# Where they are kept


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
