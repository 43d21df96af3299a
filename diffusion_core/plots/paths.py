"""Particles on their way: one line a walker. Up to eight walkers are the travellers, each with its own color and its own marker."""

from typing import Any

import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from .arrays import as_array, as_lines
from .style import MARKERS, MODEL, PAPER, SQUARE, TRAVELLERS


def _look(i: int, n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(line, end marker) of walker i of n: travellers are thick, outlined in paper and marked; a crowd is thin and unmarked."""
    if n > len(TRAVELLERS):
        return {"color": MODEL, "linewidth": 0.8, "alpha": max(0.12, min(0.6, 30 / n))}, {}
    halo = [effects.Stroke(linewidth=3.6, foreground=PAPER), effects.Normal()]
    line = {"color": TRAVELLERS[i], "linewidth": 1.9, "path_effects": halo, "zorder": 3}
    return line, {"color": TRAVELLERS[i], "marker": MARKERS[i], "markersize": 8, "markeredgecolor": PAPER, "markeredgewidth": 1.1, "zorder": 4}


def trajectories_1d(times: Any, states: Any, *, ax: Axes | None = None) -> Axes:
    """Draw x_t of each walker against time, which runs to the right in the order of `times`, and mark where it ends.

    times (K,), states (K, n) or (K, n, 1), or a list of K of them. Draw it over `density_over_time` to see p_t beneath. Returns the axes.

    >>> import torch
    >>> from diffusion_core import plots
    >>> ax = plots.trajectories_1d([1.0, 0.0], torch.tensor([[0.5, -0.5], [2.0, -2.0]]))
    >>> [line.get_ydata().tolist() for line in ax.lines]
    [[0.5, 2.0], [2.0], [-0.5, -2.0], [-2.0]]
    """
    t, x = as_array(times, "times"), as_lines(states, 1, "states")[..., 0]
    if t.shape != x.shape[:1]:
        raise ValueError(f"times has shape {t.shape} and states has {x.shape[0]} rows; expected one time for each row of states")
    ax = ax or plt.subplots()[1]
    for i in range(x.shape[1]):
        line, marker = _look(i, x.shape[1])
        ax.plot(t, x[:, i], **line)
        if marker:
            ax.plot(t[-1:], x[-1:, i], clip_on=False, **marker)
    ax.set(xlim=(t[0], t[-1]), xlabel="$t$", ylabel="$x_t$")
    return ax


def trajectories_2d(states: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the path of each walker in the plane, a small dot where it starts and its marker where it ends.

    states (K, n, 2), or a list of K states (n, 2). Draw it over `density_2d` to see where the mass is. Returns the axes.

    >>> import torch
    >>> from diffusion_core import plots
    >>> ax = plots.trajectories_2d([torch.zeros(1, 2), torch.ones(1, 2)])
    >>> ax.lines[0].get_xydata().tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    x = as_lines(states, 2, "states")
    if ax is None:
        ax = plt.subplots(figsize=SQUARE)[1]
        ax.set_aspect("equal")
    for i in range(x.shape[1]):
        line, marker = _look(i, x.shape[1])
        ax.plot(*x[:, i].T, **line)
        if marker:
            ax.plot(*x[0, i], marker="o", markersize=4, color=line["color"], markeredgecolor=PAPER, zorder=4)
            ax.plot(*x[-1, i], **marker)
    return ax


def points_2d(x: Any, *, color: str = MODEL, size: float = 5.0, ax: Axes | None = None) -> Axes:
    """Draw a cloud of points (n, 2); the more there are, the fainter each. Returns the axes.

    >>> import torch
    >>> from diffusion_core import plots
    >>> ax = plots.points_2d(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    >>> ax.collections[0].get_offsets().tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    points = as_array(x, "x")
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"x has shape {points.shape}; expected (n, 2)")
    if ax is None:
        ax = plt.subplots(figsize=SQUARE)[1]
        ax.set_aspect("equal")
    ax.scatter(points[:, 0], points[:, 1], s=size, color=color, alpha=float(np.clip(400 / len(points), 0.15, 0.8)), linewidths=0, zorder=2)
    return ax
