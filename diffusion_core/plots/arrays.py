"""What the drawing functions share: from tensors to checked numpy arrays, and a callable evaluated on a grid."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from diffusion_core.doors import require_count


def as_array(value: Any, name: str) -> np.ndarray:
    """`value` (tensor or array) as a float64 array; raises ValueError when it is empty or holds a NaN or an inf."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value, dtype=np.float64)
    if array.size == 0:
        raise ValueError(f"{name} is empty, shape {array.shape}; pass at least one value")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or inf, which cannot be drawn; find where they arise (a time of zero or infinite SNR?)")
    return array


def as_lines(value: Any, dim: int, name: str) -> np.ndarray:
    """States of walkers as (K, n, dim), K times and n walkers; (K, n) is taken as dim = 1. A list of K states is stacked."""
    if isinstance(value, (list, tuple)):
        value = np.stack([as_array(v, name) for v in value])
    array = as_array(value, name)
    if dim == 1 and array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] != dim or array.shape[0] < 2:
        raise ValueError(f"{name} has shape {array.shape}; expected (K, n, {dim}), K >= 2 times and n walkers")
    return array


def as_range(low: float, high: float) -> None:
    """Raises ValueError unless low < high."""
    if not low < high:
        raise ValueError(f"low = {low} and high = {high}; expected low < high")


def evaluate(function: Callable[..., torch.Tensor], points: np.ndarray, *args: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """`function(points, *args)` on float64 points (m,) or (m, d) as an array of the stated shape, without gradients."""
    with torch.no_grad():
        value = function(torch.from_numpy(np.ascontiguousarray(points, dtype=np.float64)), *args)
    array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} returned shape {array.shape} for points of shape {points.shape}; expected {shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name} returned NaN on the grid; is it defined at this time?")
    return array


def square_grid(low: float, high: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """(axis (points,), grid (points², 2)) over [low, high]², the first coordinate running fastest."""
    as_range(low, high)
    points = require_count(points, "points, the number along an axis,", least=2)
    axis = np.linspace(low, high, points)
    x, y = np.meshgrid(axis, axis)
    return axis, np.stack([x.ravel(), y.ravel()], axis=-1)
