"""Networks to scale: what `models.stages` found in a forward pass, as a diagram.

Nothing here knows a particular network. A stage that the first input reaches is drawn as a slab; the others condition, and get a rail.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from diffusion_core.models.anatomy import Stage

from .style import DATA, INK, MODEL, SEQUENTIAL, WIDTH

SIDES, COLUMN = (1.98, WIDTH - 1.98), 2.35
PITCH, WIDEST, TALLEST, THINNEST = 0.54, 1.0, 0.4, 0.05
QUIET, RAIL = "#4a515b", "#a34c00"


class Slab(NamedTuple):
    """Where a stage is drawn, in inches: the middle, the size, and on which side its label stands ("left", "right" or "below")."""

    x: float
    y: float
    width: float
    height: float
    label: str


def _extent(shape: tuple[int, ...]) -> tuple[int, float]:
    """(channels, side): an image (C, H, W) has the side (HW)^(1/2), N tokens (N, C) have N^(1/2), a vector (C,) has 1."""
    if len(shape) == 3:
        return shape[0], (shape[1] * shape[2]) ** 0.5
    if len(shape) == 2:
        return shape[1], shape[0] ** 0.5
    return (shape[0] if shape else 1), 1.0


def _main_path(stages: Sequence[Stage]) -> list[Stage]:
    """The stages that the first input reaches, in order."""
    reached = {stages[0].name}
    for stage in stages[1:]:
        if reached & set(stage.sources):
            reached.add(stage.name)
    return [stage for stage in stages if stage.name in reached]


def _shortcuts(path: Sequence[Stage]) -> list[tuple[int, int]]:
    """(i, j) for every stage j of the path that reads stage i, though it is not the one before."""
    place = {stage.name: i for i, stage in enumerate(path)}
    return [(place[source], j) for j, stage in enumerate(path) for source in stage.sources if place.get(source, j - 1) != j - 1]


def _spread(first: float, last: float, n: int) -> list[float]:
    """n heights strictly between the two, evenly."""
    return [first + (last - first) * (k + 1) / (n + 1) for k in range(n)]


def _is_u(path: Sequence[Stage], skips: Sequence[tuple[int, int]]) -> bool:
    """Whether the path goes down to a lower resolution and comes back, with every skip inside the one before."""
    sides = [_extent(stage.shape)[1] for stage in path]
    nested = all(a < c < d < b for (a, b), (c, d) in zip(sorted(skips), sorted(skips)[1:]))
    return bool(skips) and nested and min(sides[1:-1]) < min(sides[1], sides[-2])


def _places(path: Sequence[Stage], skips: Sequence[tuple[int, int]]) -> tuple[list[tuple[float, float, str]], float]:
    """(x, y, side of the label) of every stage, y downward from 0, and the lowest y. A U has its skips level and its middle at the bottom."""
    if not _is_u(path, skips):
        return [(COLUMN, k * PITCH, "left") for k in range(len(path))], (len(path) - 1) * PITCH
    heights: dict[int, float] = {0: 0.0, len(path) - 1: 0.0}
    above, up, down = 0.0, 0, len(path) - 1
    for source, target in sorted(skips):
        y = above + PITCH * max(source - up, down - target)
        for inside in (range(up + 1, source), range(down - 1, target, -1)):
            heights.update(zip(inside, _spread(above, y, len(inside))))
        heights.update({source: y, target: y})
        above, up, down = y, source, target
    bottom = above + 1.35 * PITCH
    middle = range(up + 1, down)
    places = []
    for k in range(len(path)):
        if k in middle:
            share = (k - up - 1) / (len(middle) - 1) if len(middle) > 1 else 0.5
            places.append((SIDES[0] + share * (SIDES[1] - SIDES[0]), bottom, "below"))
        else:
            places.append((SIDES[k >= down], heights[k], "right" if k >= down else "left"))
    return places, bottom + 0.5 * PITCH


def _slabs(path: Sequence[Stage], skips: Sequence[tuple[int, int]]) -> tuple[list[Slab], float]:
    extents = [_extent(stage.shape) for stage in path]
    wide, tall = WIDEST / max(c for c, _ in extents), TALLEST / max(max(s for _, s in extents), 2.0)
    places, lowest = _places(path, skips)
    return [Slab(x, y, max(THINNEST, wide * c), max(THINNEST, tall * s), label) for (x, y, label), (c, s) in zip(places, extents)], lowest


def _line(ax: Axes, points: Sequence[tuple[float, float]], color: str, width: float, curved: bool = False, arrow: bool = False) -> None:
    codes = [Path.MOVETO] + ([Path.CURVE4] * 3 if curved else [Path.LINETO] * (len(points) - 1))
    ax.add_patch(PathPatch(Path(points, codes), fill=False, edgecolor=color, linewidth=width, capstyle="round", joinstyle="round", zorder=1))
    if arrow:
        (x0, y0), (x1, y1) = points[-2:]
        ax.annotate("", (x1, y1), (x1 - 0.01 * (x1 - x0), y1 - 0.01 * (y1 - y0)), arrowprops={"arrowstyle": "-|>", "color": color, "lw": width, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9})


def _words(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) if shape else "one number"


def _flow(ax: Axes, a: Slab, b: Slab) -> None:
    """From one slab to the next: straight where they stand above each other, else around the corner."""
    if a.x == b.x:
        down = 1 if b.y > a.y else -1
        _line(ax, [(a.x, a.y + down * a.height / 2), (b.x, b.y - down * (b.height / 2 + 0.02))], QUIET, 1.2, arrow=True)
    else:
        right = 1 if b.x > a.x else -1
        _line(ax, [(a.x + right * a.width / 2, a.y), (b.x - right * (b.width / 2 + 0.02), b.y)], QUIET, 1.2, arrow=True)


def network(stages: Sequence[Stage]) -> Figure:
    """Draw a network from its `models.stages`: each stage on the way of the first input is a slab, as wide as it has channels and as tall as its side.

    The side is (HW)^(1/2) for an image, N^(1/2) for N tokens, 1 for a vector; within a figure both scales are common to all slabs, with a least size
    for what would be a hair. The darker a slab, the larger its share of the multiply-adds. Blue arcs skip stages; the orange rail carries what
    the conditioning stages make to the stages that read it. Names and shapes are those of the forward pass. A network with nested skips and a
    lower resolution in its middle is drawn as a U, any other from top to bottom. Returns the figure. Raises ValueError for fewer than three stages.

    >>> import torch
    >>> from diffusion_core import MLP, plots
    >>> from diffusion_core.models import stages
    >>> figure = plots.network(stages(MLP(2), torch.zeros(1, 2), torch.zeros(1)))
    >>> written = [text.get_text() for text in figure.axes[0].texts]
    >>> [text for text in written if "hidden" in text]
    ['hidden.0', 'hidden.1']
    """
    if len(stages) < 3:
        raise ValueError(f"{len(stages)} stages; expected an input, at least one stage and an output, as models.stages(net, x, c) returns them")
    path = _main_path(stages)
    skips = _shortcuts(path)
    slabs, lowest = _slabs(path, skips)
    conditions = [stage for stage in stages if stage not in path]
    head = 0.45 if conditions else 0.3
    figure = plt.figure(figsize=(WIDTH, lowest + head + 0.4), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(lowest + 0.4, -head), aspect="equal")
    ax.set_axis_off()

    most = max(stage.multiply_adds for stage in path) or 1
    for stage, slab in zip(path, slabs):
        box = FancyBboxPatch(
            (slab.x - slab.width / 2, slab.y - slab.height / 2), slab.width, slab.height, boxstyle="round,pad=0,rounding_size=0.02",
            facecolor=SEQUENTIAL(0.12 + 0.75 * stage.multiply_adds / most) if stage.kind not in ("input", "output") else "#ffffff", edgecolor=INK, linewidth=1.0, zorder=2,
        )  # fmt: skip
        ax.add_patch(box)
        _label(ax, stage, slab)
    for k in range(1, len(path)):
        if path[k - 1].name in path[k].sources:
            _flow(ax, slabs[k - 1], slabs[k])
    for i, j in skips:
        _arc(ax, slabs[i], slabs[j])
    _rail(ax, conditions, path, slabs, WIDTH / 2 if _is_u(path, skips) else COLUMN + 2.05)
    return figure


def _label(ax: Axes, stage: Stage, slab: Slab) -> None:
    if slab.label == "below":
        ax.text(slab.x, slab.y + slab.height / 2 + 0.05, stage.name, ha="center", va="top", fontsize=12.5, color=INK)
        ax.text(slab.x, slab.y + slab.height / 2 + 0.25, _words(stage.shape), ha="center", va="top", fontsize=11.5, color=QUIET)
        return
    x = slab.x + (WIDEST / 2 + 0.12) * (1 if slab.label == "right" else -1)
    align = "left" if slab.label == "right" else "right"
    ax.text(x, slab.y - 0.01, stage.name, ha=align, va="bottom", fontsize=12.5, color=INK)
    ax.text(x, slab.y + 0.01, _words(stage.shape), ha=align, va="top", fontsize=11.5, color=QUIET)


def _arc(ax: Axes, a: Slab, b: Slab) -> None:
    if a.y == b.y:
        start, end, bend = (a.x + a.width / 2, a.y), (b.x - b.width / 2 - 0.02, b.y), 0.3
        _line(ax, [start, (start[0] + 0.4, a.y - bend), (end[0] - 0.4, b.y - bend), end], DATA, 2.0, curved=True, arrow=True)
    else:
        out = max(a.width, b.width) / 2 + 0.22 + 0.24 * abs(b.y - a.y)
        start, end = (a.x + a.width / 2, a.y + 0.04), (b.x + b.width / 2 + 0.02, b.y - 0.04)
        _line(ax, [start, (a.x + out, a.y + 0.1), (b.x + out, b.y - 0.1), end], DATA, 2.0, curved=True, arrow=True)


def _rail(ax: Axes, conditions: Sequence[Stage], path: Sequence[Stage], slabs: Sequence[Slab], x: float) -> None:
    """The conditioning stages' names at the top of a vertical line, and from it a branch with a dot to each stage that reads one of them.

    Where the readers do not all read the same, each branch says what it brings.
    """
    names = [stage.name for stage in conditions]
    readers = [(slab, [name for name in names if name in stage.sources]) for stage, slab in zip(path, slabs)]
    readers = [(slab, read) for slab, read in readers if read]
    if not readers:
        return
    words = [f"{' + '.join(stage.sources)} → {stage.name}" if stage.sources else stage.name for stage in conditions if stage.kind != "input"]
    words += [stage.name for stage in conditions if stage.kind == "input" and any(stage.name in read for _, read in readers)]
    ax.text(x, -0.28, "\n".join(words), ha="center", va="top", fontsize=12, color=RAIL, linespacing=1.25)
    bottom = top = -0.22 + 0.215 * len(words)
    for slab, read in readers:
        side = (x < slab.x) - (x > slab.x)
        if slab.label == "below":
            y, edge = slab.y - slab.height / 2 - 0.2, slab.x - side * 0.2
            ends = [(x, y), (edge, y), (edge, slab.y - slab.height / 2)]
        else:
            y = slab.y + min(0.08, slab.height / 4)
            ends = [(x, y), (slab.x - side * slab.width / 2, y)]
        if any(other != read for _, other in readers):
            ax.text(x - 0.08, y - 0.03, " + ".join(read), ha="right", va="bottom", fontsize=11.5, color=RAIL)
        _line(ax, ends, MODEL, 1.3)
        ax.plot(*ends[-1], "o", color=MODEL, markersize=4.5, zorder=3)
        bottom = max(bottom, y)
    _line(ax, [(x, top), (x, bottom)], MODEL, 2.2)
