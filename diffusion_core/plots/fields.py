"""Densities and scores as pictures.

A callable takes a float64 tensor of points, (m,) on the line and (m, 2) in the plane; everything drawn is that callable's own value.
"""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from .arrays import as_array, as_range, evaluate, square_grid
from .style import DATA, EXACT, INK, SEQUENTIAL, SQUARE

Function = Callable[..., torch.Tensor]


def _square_axes(ax: Axes | None, low: float, high: float) -> Axes:
    ax = ax or plt.subplots(figsize=SQUARE)[1]
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.grid(False)
    return ax


def _from_zero(ax: Axes, low: float, high: float) -> Axes:
    """Let x run over the range, and y from zero to above all that is drawn so far."""
    ax.set(xlim=(low, high), ylim=(0.0, 1.08 * ax.dataLim.ymax))
    return ax


def density_1d(
    log_prob: Function, low: float = -3.0, high: float = 3.0, *, color: str = EXACT, label: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the curve p(x) = exp(log_prob(x)) on [low, high].

    log_prob: (m,) -> (m,), in nats. Returns the axes. ValueError for low >= high or another output shape.

    >>> from diffusion_core import plots, two_peaks
    >>> x, p = plots.density_1d(two_peaks().log_prob, -4, 4).lines[0].get_data()
    >>> round(float(p.sum() * (x[1] - x[0])), 3)
    1.0
    """
    as_range(low, high)
    ax = ax or plt.subplots()[1]
    x = np.linspace(low, high, 601)
    ax.plot(x, np.exp(evaluate(log_prob, x, shape=x.shape, name="log_prob")), color=color, label=label, zorder=3)
    return _from_zero(ax, low, high)


def histogram(
    samples: Any, low: float = -3.0, high: float = 3.0, *, bins: int = 60, color: str = DATA, label: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the histogram of samples (n,) or (n, 1) as a density on [low, high].

    A bar is count / (n · width) with n all samples, so that mass outside the range is missing from the picture and not spread over it,
    and the bars may be compared with `density_1d`. Returns the axes.

    >>> import torch
    >>> from diffusion_core import plots
    >>> ax = plots.histogram(torch.tensor([-0.5, 0.5, 0.5, 9.0]), -1, 1, bins=2)
    >>> ax.patches[0].get_data().values.tolist()
    [0.25, 0.5]
    """
    as_range(low, high)
    values = as_array(samples, "samples")
    if values.ndim > 2 or (values.ndim == 2 and values.shape[1] != 1):
        raise ValueError(f"samples has shape {values.shape}; expected (n,) or (n, 1)")
    ax = ax or plt.subplots()[1]
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    heights = counts / (values.size * np.diff(edges))
    ax.stairs(heights, edges, fill=True, color=color, alpha=0.35, linewidth=0, label=label)
    ax.stairs(heights, edges, color=color, linewidth=1.2)
    return _from_zero(ax, low, high)


def density_2d(
    log_prob: Function, low: float = -2.5, high: float = 2.5, *, points: int = 220, strength: float = 1.0, ax: Axes | None = None
) -> Axes:
    """Draw a heat map of (p(x) / max p)^(1/2) on [low, high]²; the square root lets the tails be seen.

    log_prob: (m, 2) -> (m,), in nats. strength in (0, 1] fades the map, for something to be drawn on top. Returns the axes.

    >>> from diffusion_core import plots, ring
    >>> heat = plots.density_2d(ring().log_prob, points=50).images[0].get_array()
    >>> heat.shape, float(heat.max())
    ((50, 50), 1.0)
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength = {strength}; expected a number in (0, 1]")
    axis, grid = square_grid(low, high, points)
    ax = _square_axes(ax, low, high)
    values = evaluate(log_prob, grid, shape=(len(grid),), name="log_prob").reshape(points, points)
    heat = np.exp((values - values.max()) / 2)
    ax.imshow(strength * heat, extent=(low, high, low, high), origin="lower", cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="bilinear")
    return ax


def density_over_time(
    log_prob: Function, times: Any, low: float = -3.0, high: float = 3.0, *, points: int = 300, strength: float = 0.55, ax: Axes | None = None
) -> Axes:
    """Draw p_t(x) as a heat map, time to the right in the order of `times`; color is (p_t(x) / max over the map)^(1/2).

    log_prob: ((m,), t a float) -> (m,), in nats. times (K,), K >= 2 and monotone: a forward process runs 0 to 1, a sampler 1 to 0. Returns the axes.

    >>> from diffusion_core import plots
    >>> ax = plots.density_over_time(lambda x, t: -(x**2), [1.0, 0.5, 0.0])
    >>> [float(end) for end in ax.get_xlim()]
    [1.0, 0.0]
    """
    as_range(low, high)
    t = _monotone(times)
    ax = ax or plt.subplots()[1]
    x = np.linspace(low, high, points)
    logs = np.stack([evaluate(log_prob, x, float(s), shape=x.shape, name="log_prob") for s in t], axis=1)
    heat = np.exp((logs - logs.max()) / 2)
    ax.pcolormesh(t, x, strength * heat, cmap=SEQUENTIAL, vmin=0, vmax=1, shading="gouraud", rasterized=True)
    ax.set(xlim=(t[0], t[-1]), ylim=(low, high), xlabel="$t$", ylabel="$x_t$")
    ax.grid(False)
    return ax


def _monotone(times: Any) -> np.ndarray:
    t = as_array(times, "times")
    if t.ndim != 1 or t.size < 2 or not (np.all(np.diff(t) > 0) or np.all(np.diff(t) < 0)):
        raise ValueError(f"times has shape {t.shape}; expected at least two times, strictly rising or strictly falling")
    return t


def score_field(
    score: Function, low: float = -2.5, high: float = 2.5, *, arrows: int = 15, color: str = INK, ax: Axes | None = None
) -> Axes:
    """Draw the vector field s(x) on [low, high]² as arrows of length |s| / (|s| + m), m the median |s| on the grid.

    The map is monotone and bounded: directions are exact, a longer arrow is a larger score, and none covers its neighbor.
    score: (m, 2) -> (m, 2). Returns the axes.

    >>> from diffusion_core import plots
    >>> arrows = plots.score_field(lambda x: -x, arrows=9).collections[0]
    >>> bool(arrows.U[0] > 0), bool(arrows.U[-1] < 0)
    (True, True)
    """
    axis, grid = square_grid(low, high, arrows + 2)
    inside = (np.abs(grid - (low + high) / 2) < (high - low) / 2 * (1 - 1e-9)).all(axis=1)
    grid = grid[inside]
    ax = _square_axes(ax, low, high)
    field = evaluate(score, grid, shape=grid.shape, name="score")
    norm = np.linalg.norm(field, axis=1, keepdims=True)
    arrow = field / (norm + np.median(norm) + np.finfo(float).tiny) * (axis[1] - axis[0]) * 1.5
    head: dict[str, Any] = {"width": 0.006, "headwidth": 3.4, "headlength": 3.8, "headaxislength": 3.4}
    ax.quiver(*grid.T, *arrow.T, color=color, angles="xy", scale_units="xy", scale=1, pivot="mid", **head)
    return ax
