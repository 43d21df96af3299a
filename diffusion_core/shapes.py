"""Captioned scenes: one or two colored shapes on white, 32 x 32, for models that draw what a sentence says.

    x, captions = shapes(1000)  # x: (1000, 3, 32, 32), float32, in [-1, 1]
    captions[0]                 # such as "a large red star above a small blue heart"

Whether an image obeys its caption can be measured, because scenes keep to rules: shapes of one size have one radius, nothing touches
anything else or leaves the picture, and "above" and "left of" are never close to each other. Eight of the 48 pairs of a color and a shape
never occur in the training split: with them one can ask whether a model has understood the words or learned the pairs by heart.
"""

import math
import random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_core.extras import needing

__all__ = ["Scene", "Thing", "draw", "scene", "shapes"]

COLORS = {
    "red": (226, 45, 45),
    "orange": (247, 140, 22),
    "yellow": (250, 210, 40),
    "green": (44, 160, 68),
    "blue": (38, 98, 224),
    "purple": (138, 60, 200),
    "pink": (246, 132, 190),
    "black": (30, 32, 38),
}
SHAPES = "circle", "square", "triangle", "star", "heart", "cross"
SIZES = {"small": 4.0, "large": 6.5}
RELATIONS = "above", "left of"
NOVEL_PAIRS = tuple((color, SHAPES[i % 6]) for i, color in enumerate(COLORS))
SPLITS = "train", "test", "novel"
SIDE, SUPERSAMPLING, MARGIN = 32, 8, 1.0


class Thing(NamedTuple):
    """One shape: its words, and its center in pixels from the top left corner.

    >>> from diffusion_core.shapes import Thing
    >>> Thing("small", "green", "heart", x=16.0, y=9.5).words
    'a small green heart'
    """

    size: str
    color: str
    shape: str
    x: float
    y: float

    @property
    def words(self) -> str:
        return f"a {self.size} {self.color} {self.shape}"


class Scene(NamedTuple):
    """One thing, or two of which the first is `relation` the second.

    >>> from diffusion_core.shapes import Scene, Thing
    >>> star = Thing("large", "red", "star", 16.0, 8.0)
    >>> circle = Thing("small", "blue", "circle", 15.0, 25.0)
    >>> Scene((star, circle), "above").caption
    'a large red star above a small blue circle'
    """

    things: tuple[Thing, ...]
    relation: str | None

    @property
    def caption(self) -> str:
        """What a model reads, for example "a small green heart left of a large black cross"."""
        return f" {self.relation} ".join(thing.words for thing in self.things)


def shapes(n: int, split: str = "train", seed: int = 0) -> tuple[Tensor, list[str]]:
    """The first n scenes of a split as images (n, 3, 32, 32), float32 in [-1, 1], and their captions.

    Splits: "train" and "test" hold the 40 ordinary pairs of color and shape, in different scenes; "novel" only the eight `NOVEL_PAIRS`.
    Scene i depends on (seed, split, i) alone. Drawing takes pillow (the extra `plot`) and about 0.4 ms an image. Raises ValueError for an
    unknown split.

    >>> from diffusion_core.shapes import shapes
    >>> x, captions = shapes(3)
    >>> x.shape, captions[1]
    (torch.Size([3, 3, 32, 32]), 'a small green square')
    """
    drawn = [scene(i, split, seed) for i in range(n)]
    pixels = np.stack([draw(s) for s in drawn]) if drawn else np.empty((0, SIDE, SIDE, 3), np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1, [s.caption for s in drawn]


def scene(index: int, split: str = "train", seed: int = 0) -> Scene:
    """Scene number `index` of a split: half of them hold one thing, half two; all words are drawn uniformly. See `shapes`.

    >>> from diffusion_core.shapes import scene
    >>> scene(0).caption
    'a small red square left of a large green cross'
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of the scenes: there are {', '.join(map(repr, SPLITS))}")
    rng = random.Random(f"{seed} {split} {index}")
    words = [_words(rng, split)]
    if rng.random() < 0.5:
        x, y = (_between(rng, r := MARGIN + SIZES[words[0][0]], SIDE - r) for _ in "xy")
        return Scene((Thing(*words[0], x, y),), None)
    while len(words) < 2 or words[1] == words[0]:
        words[1:] = [_words(rng, split)]
    relation = RELATIONS[int(2 * rng.random())]
    along, across = _two_places(rng, SIZES[words[0][0]], SIZES[words[1][0]])
    places = zip(along, across) if relation == "left of" else zip(across, along)
    return Scene(tuple(Thing(*w, x, y) for w, (x, y) in zip(words, places)), relation)


def _words(rng: random.Random, split: str) -> tuple[str, str, str]:
    """A size, a color and a shape; color and shape from the pairs that belong to the split."""
    while True:
        size, color, shape = (tuple(choices)[int(len(choices) * rng.random())] for choices in (SIZES, COLORS, SHAPES))
        if ((color, shape) in NOVEL_PAIRS) == (split == "novel"):
            return size, color, shape


def _two_places(rng: random.Random, first: float, second: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Centers of two things of these radii, (along, across) the relation: a gap of at least 2 pixels along, and at most half as far across."""
    gap = first + second + 2
    start = _between(rng, MARGIN + first, SIDE - MARGIN - second - gap)
    end = _between(rng, start + gap, SIDE - MARGIN - second)
    center = _between(rng, MARGIN + first, SIDE - MARGIN - first)
    reach = (end - start) / 2
    low, high = max(MARGIN + second, center - reach), min(SIDE - MARGIN - second, center + reach)
    return (start, end), (center, _between(rng, low, high))


def _between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def draw(plan: Scene) -> np.ndarray:
    """A scene as bytes (32, 32, 3): drawn eight times as large, then averaged over blocks of 8 x 8, so that edges are smooth.

    >>> from diffusion_core.shapes import Scene, Thing, draw
    >>> pixels = draw(Scene((Thing("large", "red", "square", 16.0, 16.0),), None))
    >>> pixels[16, 16].tolist(), pixels[0, 0].tolist()
    ([226, 45, 45], [255, 255, 255])
    """
    with needing("drawing a scene", extra="plot"):
        from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (SIDE * SUPERSAMPLING,) * 2, "white")
    pen = ImageDraw.Draw(canvas)
    for thing in plan.things:
        outline = np.array([thing.x, thing.y]) + SIZES[thing.size] * OUTLINES[thing.shape]
        pen.polygon([tuple(point) for point in (SUPERSAMPLING * outline - 0.5).tolist()], fill=COLORS[thing.color])
    return np.asarray(canvas.reduce(SUPERSAMPLING))


def _outlines() -> dict[str, np.ndarray]:
    """Each shape as a polygon (points, 2) inside [-1, 1]², y downward."""
    turn = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    tips = np.arange(10) * math.pi / 5
    radius = np.where(np.arange(10) % 2, 0.45, 1.0)
    heart_x, heart_y = np.sin(turn) ** 3, (13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) / 16
    arm = 0.36
    return {
        "circle": np.stack([np.cos(turn), np.sin(turn)], axis=1),
        "square": 0.9 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]),
        "triangle": np.array([[0, -0.95], [1, 0.85], [-1, 0.85]]),
        "star": np.stack([radius * np.sin(tips), 0.08 - 1.08 * radius * np.cos(tips)], axis=1),
        "heart": np.stack([heart_x, -heart_y - 0.1], axis=1),
        "cross": np.array(
            [[-arm, -1], [arm, -1], [arm, -arm], [1, -arm], [1, arm], [arm, arm], [arm, 1], [-arm, 1], [-arm, arm], [-1, arm], [-1, -arm], [-arm, -arm]]
        ),
    }


OUTLINES = _outlines()
