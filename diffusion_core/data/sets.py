"""Image sets by name: those that the package carries and those that it fetches, in the same form."""

import numpy as np
import torch
from torch import Tensor

from diffusion_core.data import embedded, online

GARMENTS = "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
CLASS_NAMES = {
    "digits": tuple("0123456789"),
    "fashion": GARMENTS,
    "emoji": (
        "Smileys & Emotion",
        "People & Body",
        "Animals & Nature",
        "Food & Drink",
        "Travel & Places",
        "Activities",
        "Objects",
    ),
    "mnist": tuple("0123456789"),
    "fashion_mnist": GARMENTS,
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
SPLITS = "train", "test"


def images(name: str, split: str = "train") -> tuple[Tensor, Tensor]:
    """An image set: `(x, labels)`, x float32 (N, C, H, W) in [-1, 1] (a byte u becomes u / 127.5 - 1), labels int64 (N,).

    | name          | train            | test             | labels |
    |---------------|------------------|------------------|--------|
    | digits        | 8,000 x 1x28x28  | 2,000 x 1x28x28  | the digit; MNIST, from its training and its test file, classes balanced |
    | fashion       | 8,000 x 1x28x28  | 2,000 x 1x28x28  | the garment; Fashion-MNIST, likewise |
    | emoji         | 2,502 x 3x32x32  | 270 x 3x32x32    | seven groups, not balanced; Noto and Twemoji on white, `emoji_metadata` names each |
    | mnist         | 60,000 x 1x28x28 | 10,000 x 1x28x28 | the digit; all of MNIST, 12 MB to fetch |
    | fashion_mnist | 60,000 x 1x28x28 | 10,000 x 1x28x28 | the garment; all of Fashion-MNIST, 31 MB to fetch |
    | cifar10       | 50,000 x 3x32x32 | 10,000 x 3x32x32 | what is seen; CIFAR-10, 170 MB to fetch |

    `CLASS_NAMES[name][label]` is the class in words. The package carries the first three. Every block of ten consecutive digits or garments of
    `digits` and `fashion` holds each class once, so any prefix of 10 k images is balanced. The two styles of an emoji are neighbors and lie in
    the same split. The last three are fetched from the network at the first call, their SHA-256 is checked at every call, and they are
    kept in `cache_folder()`; of several processes that ask at once, one fetches and the others wait.

    Raises ValueError for an unknown name or split and for a damaged file, FileNotFoundError for a missing one, ConnectionError when no
    mirror gives a file (it names the files, where to put them by hand, and the set that the package carries), OSError when the cache
    cannot be written.

    >>> from diffusion_core import images
    >>> x, labels = images("digits", "test")
    >>> x.shape, (x.min().item(), x.max().item())
    (torch.Size([2000, 1, 28, 28]), (-1.0, 1.0))
    >>> sorted(labels[:10].tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

    The classes of a set that is fetched are known without a network:

    >>> from diffusion_core.data import CLASS_NAMES
    >>> CLASS_NAMES["cifar10"][8]
    'ship'
    """
    if name not in CLASS_NAMES:
        hint = "; captioned scenes come from diffusion_core.shapes" if name == "shapes" else ""
        carried, fetched = (", ".join(map(repr, names)) for names in (embedded.SHA256, online.SETS))
        raise ValueError(f"unknown image set {name!r}: the package carries {carried} and fetches {fetched}{hint}")
    _check_split(name, split)
    pixels, labels = (online if name in online.SETS else embedded).pictures(name, split)
    x = torch.from_numpy(pixels.astype(np.float32, order="C")).div_(127.5).sub_(1)
    return x, torch.from_numpy(labels.astype(np.int64))


def emoji_metadata(split: str = "train") -> dict[str, list[str]]:
    """What each picture of `images("emoji", split)` shows, in the same order: `name`, `category`, `subcategory` and `style`.

    style is "noto" or "twemoji"; name is the Unicode name in lower case, for example "person in tuxedo". Errors as in `images`.

    >>> from diffusion_core.data import emoji_metadata
    >>> metadata = emoji_metadata("test")
    >>> metadata["style"][:2], metadata["name"][0] == metadata["name"][1]
    (['noto', 'twemoji'], True)
    """
    _check_split("emoji", split)
    arrays = embedded.fields("emoji", split, ("labels", "name", "subcategory", "style"))
    metadata = {field: arrays[field].tolist() for field in ("name", "subcategory", "style")}
    return metadata | {"category": [CLASS_NAMES["emoji"][label] for label in arrays["labels"]]}


def _check_split(name: str, split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of {name}: there are {', '.join(map(repr, SPLITS))}")
