"""Grids of images: crisp pixels, paper between the tiles, titles for rows and columns."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from diffusion_core.doors import require_count

from .arrays import as_array
from .style import DPI, INK, WIDTH

PIXELS = round(WIDTH * DPI)


def _tiles(images: Any) -> np.ndarray:
    x = as_array(images, "images")
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"images has shape {x.shape}; expected (B, 1, H, W) or (B, 3, H, W) in [-1, 1], or (B, H, W)")
    levels = np.rint((np.clip(x, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    return np.broadcast_to(levels, (len(x), 3, *x.shape[2:])).transpose(0, 2, 3, 1)


def tile(images: Any, columns: int | None = None, *, width: int = PIXELS, gap: int | None = None) -> np.ndarray:
    """One picture of many: images (B, C, H, W) in [-1, 1] side by side, row by row, as uint8 (rows·, columns·, 3).

    A value v becomes round(127.5 (v + 1)), clipped to [0, 255]. Each pixel is repeated the largest whole number of times for which the picture
    is at most `width` wide (at least once); `gap` pixels of white, by default one pixel of an image, separate the tiles. columns: by default as
    square as B allows. C is 1 (gray) or 3 (RGB); (B, H, W) is gray. ValueError for other shapes, NaN, or columns < 1.

    >>> import torch
    >>> from diffusion_core import plots
    >>> picture = plots.tile(torch.full((4, 1, 8, 8), -1.0), width=17)
    >>> picture.shape, int(picture[0, 0, 0]), int(picture[8, 8, 0])
    ((17, 17, 3), 0, 255)
    """
    tiles = _tiles(images)
    count, height, breadth, _ = tiles.shape
    columns = min(math.ceil(math.sqrt(count)) if columns is None else require_count(columns, "columns"), count)
    if gap is not None and gap < 0:
        raise ValueError(f"gap = {gap}; expected a number of pixels of at least 0, or None for one pixel of an image")
    if gap is None:
        scale = max(1, width // (columns * (breadth + 1) - 1))
        gap = scale
    else:
        scale = max(1, (width - gap * (columns - 1)) // (columns * breadth))
    rows = math.ceil(count / columns)
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    high, wide = height * scale, breadth * scale
    picture = np.full((rows * (high + gap) - gap, columns * (wide + gap) - gap, 3), 255, dtype=np.uint8)
    for i, one in enumerate(tiles):
        top, left = (i // columns) * (high + gap), (i % columns) * (wide + gap)
        picture[top : top + high, left : left + wide] = one
    return picture


def image_grid(
    images: Any,
    columns: int | None = None,
    *,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """A figure of `tile(images, columns)`, at one dot a pixel, with titles at the left of rows and above columns.

    Titles must be as many as there are rows or columns (ValueError otherwise). Returns the figure.

    >>> import torch
    >>> from diffusion_core import plots
    >>> images, titles = torch.zeros(6, 1, 8, 8), ["before", "after"]
    >>> figure = plots.image_grid(images, columns=3, row_titles=titles)
    >>> [text.get_text() for text in figure.texts]
    ['before', 'after']
    """
    count = len(_tiles(images))
    columns = min(math.ceil(math.sqrt(count)) if columns is None else require_count(columns, "columns"), count)
    rows = math.ceil(count / columns)
    for name, titles, expected in (("row_titles", row_titles, rows), ("column_titles", column_titles, columns)):
        if titles is not None and len(titles) != expected:
            raise ValueError(f"{len(titles)} {name} for a grid of {rows} rows and {columns} columns; expected {expected}")
    figure = plt.figure(figsize=(WIDTH, 1.0), dpi=DPI, layout="none")
    size = plt.rcParams["font.size"]
    left = round(_widest(figure, row_titles, size) + 0.1 * DPI) if row_titles else 0
    top = round(size / 72 * DPI * (1.6 * bool(column_titles) + 1.9 * bool(title)))
    picture = tile(images, columns, width=PIXELS - left)
    high, wide = picture.shape[:2]
    step = wide / columns
    narrow = min(size, size * 0.92 * step / _widest(figure, column_titles, size)) if column_titles else size
    total_w, total_h = left + wide, top + high
    figure.set_size_inches(total_w / DPI, total_h / DPI)
    axes = figure.add_axes((left / total_w, 0, wide / total_w, high / total_h))
    axes.imshow(picture, interpolation="none", aspect="auto")
    axes.set_axis_off()
    for i, text in enumerate(column_titles or ()):
        x, y = (left + (i + 0.5) * step) / total_w, (high + 0.35 * size / 72 * DPI) / total_h
        figure.text(x, y, text, ha="center", va="bottom", color=INK, fontsize=narrow)
    for i, text in enumerate(row_titles or ()):
        y = 1 - (top + (i + 0.5) * high / rows) / total_h
        figure.text((left - 0.07 * DPI) / total_w, y, text, ha="right", va="center", color=INK)
    if title:
        figure.text((left + wide / 2) / total_w, 1 - 0.25 * size / 72 * DPI / total_h, title, ha="center", va="top", color=INK, fontsize=size + 1)
    return figure


def _widest(figure: Figure, texts: Sequence[str], size: float) -> float:
    """Width of the widest of the texts, in pixels."""
    drawn = [figure.text(0, 0, text, fontsize=size) for text in texts]
    widest = max(text.get_window_extent().width for text in drawn)
    for text in drawn:
        text.remove()
    return widest
