r"""Data: the image sets that the package carries, the two-dimensional toys, and the book's eight fixed noises.

    x, labels = images("digits")                      8,000 training images as (N, 1, 28, 28) in [-1, 1], and their classes
    x = toy("moons", 1000, generator)                 points (N, 2) of unit scale
    noise = travellers(1, 28, 28)                     the same eight noises in every chapter

Nothing here needs the network. Where the files come from, and under which licenses, stands in `datasets/ATTRIBUTION.md`;
`scripts/build_datasets.py` builds them again. The captioned scenes live in `diffusion_core.shapes`.
"""

import io
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion_core import carried

__all__ = ["CLASS_NAMES", "emoji_metadata", "images", "toy", "travellers"]

DATASETS = Path(__file__).parent / "datasets"
SHA256 = {
    "digits": "5b1566843095323836b0540b9a1221e7942799f8dd69ea23e2d45e1781e53c7b",
    "fashion": "d948fb1cf9c2679d208b8cfcfea45b53079391fe6d44e38a4259bd217bcb290c",
    "emoji": "0e8361a20620eeba9a5b428903a08fe834eb6014ff85dcd9c5c262039e23037c",
}
CLASS_NAMES = {
    "digits": tuple("0123456789"),
    "fashion": ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    "emoji": (
        "Smileys & Emotion",
        "People & Body",
        "Animals & Nature",
        "Food & Drink",
        "Travel & Places",
        "Activities",
        "Objects",
    ),
}
SPLITS = "train", "test"


def images(name: str, split: str = "train") -> tuple[Tensor, Tensor]:
    """An embedded image set: `(x, labels)`, x float32 (N, C, H, W) in [-1, 1] (a byte u becomes u / 127.5 - 1), labels int64 (N,).

    | name    | train           | test            | labels |
    |---------|-----------------|-----------------|--------|
    | digits  | 8,000 x 1x28x28 | 2,000 x 1x28x28 | the digit; MNIST, from its training and its test file, classes balanced |
    | fashion | 8,000 x 1x28x28 | 2,000 x 1x28x28 | `CLASS_NAMES["fashion"]`; Fashion-MNIST, likewise |
    | emoji   | 2,502 x 3x32x32 | 270 x 3x32x32   | `CLASS_NAMES["emoji"]`, not balanced; Noto and Twemoji on white, `emoji_metadata` names each |

    Every block of ten consecutive digits or garments holds each class once, so any prefix of 10 k images is balanced. The two styles of an
    emoji are neighbors and lie in the same split.

    Raises ValueError for an unknown name or split and for a damaged file, FileNotFoundError for a missing one.
    """
    if name not in SHA256:
        hint = "; captioned scenes come from diffusion_core.shapes" if name == "shapes" else ""
        raise ValueError(f"unknown image set {name!r}: there are {', '.join(map(repr, SHA256))}{hint}")
    arrays = _arrays(name, split, ("images", "labels"))
    pixels, labels = arrays["images"], arrays["labels"]
    pixels = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, -1, 1)
    x = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 127.5 - 1
    return x, torch.from_numpy(labels.astype(np.int64))


def emoji_metadata(split: str = "train") -> dict[str, list[str]]:
    """What each picture of `images("emoji", split)` shows, in the same order: `name`, `category`, `subcategory` and `style`.

    style is "noto" or "twemoji"; name is the Unicode name in lower case, for example "person in tuxedo". Errors as in `images`.
    """
    arrays = _arrays("emoji", split, ("labels", "name", "subcategory", "style"))
    metadata = {field: arrays[field].tolist() for field in ("name", "subcategory", "style")}
    return metadata | {"category": [CLASS_NAMES["emoji"][label] for label in arrays["labels"]]}


def _arrays(name: str, split: str, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """These fields of one split of an embedded file, read after its SHA-256 was found right."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of {name}: there are {', '.join(map(repr, SPLITS))}")
    path = DATASETS / f"{name}.npz"
    cure = f"install diffusion_core again, or rebuild the file: python scripts/build_datasets.py {name}"
    raw = carried.read(path, SHA256[name], "data file", cure)
    with np.load(io.BytesIO(raw), allow_pickle=False) as file:
        return {field: file[f"{split}_{field}"] for field in fields}


def travellers(*shape: int) -> Tensor:
    """The eight noises that travel through the book: (8, *shape), float32, standard normal.

    Traveller i is drawn on the CPU from a generator of its own with the seed i, so it is the same in every chapter that asks for this
    shape, however many others are looked at, and on every device it is moved to.
    """
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(8)])


def toy(name: str, n: int, generator: torch.Generator | None = None) -> Tensor:
    r"""n points (n, 2), float32, of a two-dimensional toy: "moons", "spiral", "checkerboard" or "swiss_roll".

    Each is shifted and scaled by constants of its population, the same in both directions, to $E[x]=0$ and $E\|x\|^2=2$: its
    standard deviation, averaged over the coordinates, is 1 (`sigma_data=1`). Raises ValueError for another name or a negative n.
    """
    if name not in _TOYS:
        raise ValueError(f"unknown toy {name!r}: there are {', '.join(map(repr, _TOYS))}")
    if n < 0:
        raise ValueError(f"n must be the number of points, got {n}")
    return _TOYS[name](torch.rand(n, generator=generator), torch.rand(n, generator=generator), torch.randn(n, 2, generator=generator))


def _moons(u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    """Two half circles of radius 1, one upside down and moved by (1, 1/2), blurred by s = .07."""
    s = 0.07
    upper = (v < 0.5)[:, None]
    angle = torch.pi * u
    arc = torch.stack([angle.cos(), angle.sin()], dim=1)
    points = torch.where(upper, arc, torch.tensor([1.0, 0.5]) - arc) + s * noise
    variance = 0.75 + (0.5625 - 1 / math.pi) + 2 * s**2
    return (points - torch.tensor([0.5, 0.25])) / math.sqrt(variance / 2)


def _spiral(u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    """One arm r = angle of two turns; r = 4 pi sqrt(u) spreads the points evenly along it; blurred by s = .3."""
    s, end = 0.3, 4 * math.pi
    r = end * u.sqrt()
    points = torch.stack([r.cos(), r.sin()], dim=1) * r[:, None] + s * noise
    mean = torch.tensor([1 / math.pi, -2.0])
    variance = end**2 / 2 + 2 * s**2 - float(mean.square().sum())
    return (points - mean) / math.sqrt(variance / 2)


def _checkerboard(u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    """Uniform on the eight dark unit squares of a 4 x 4 board."""
    x, y = 4 * u, 2 * v
    y = y + y.floor() + x.floor() % 2
    return (torch.stack([x, y], dim=1) - 2) / math.sqrt(4 / 3)


def _swiss_roll(u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    """The cross-section of the Swiss roll: r = angle from 3 pi / 2 to 9 pi / 2, uniform in the angle, blurred by s = .4."""
    s = 0.4
    r = 1.5 * math.pi * (1 + 2 * u)
    points = torch.stack([r * r.cos(), r * r.sin()], dim=1) + s * noise
    mean = torch.tensor([2.0, 2 / (3 * math.pi)])
    variance = 9.75 * math.pi**2 - float(mean.square().sum()) + 2 * s**2
    return (points - mean) / math.sqrt(variance / 2)


_TOYS = {"moons": _moons, "spiral": _spiral, "checkerboard": _checkerboard, "swiss_roll": _swiss_roll}
