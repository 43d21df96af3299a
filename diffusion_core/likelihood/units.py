"""How a likelihood is reported: in bits a dimension, with a standard error. Derived in chapter 07."""

import math

from torch import Tensor

from diffusion_core.doors import require_count
from diffusion_core.schedules import double


def bits_per_dim(nats: Tensor | float, dims: int, levels: int | None = None) -> Tensor:
    r"""$\frac{nats}{dims\,\log2}$: what one dimension costs in bits.

    levels: where `nats` belong to a density on [-1, 1] of data dequantized uniformly, adds $\log_2\frac{levels}2$, the bits of a bin of width 2 / levels.

    >>> import math
    >>> from diffusion_core import bits_per_dim
    >>> # every byte equally likely
    >>> round(bits_per_dim(784 * math.log(256), dims=784).item(), 3)
    8.0
    >>> # the same as a density: 1/2 on [-1, 1]
    >>> round(bits_per_dim(784 * math.log(2), dims=784, levels=256).item(), 3)
    8.0
    """
    dims = require_count(dims, "dims, the number of dimensions,")
    bin_bits = 0.0 if levels is None else math.log2(require_count(levels, "levels", least=2) / 2)
    return double(nats) / (dims * math.log(2)) + bin_bits


def mean_and_stderr(values: Tensor) -> tuple[float, float]:
    """The mean of (B,) values, and its standard error: their standard deviation over the root of B. Raises ValueError for fewer than two.

    >>> import torch
    >>> from diffusion_core import mean_and_stderr
    >>> mean, stderr = mean_and_stderr(torch.tensor([1.0, 3.0, 1.0, 3.0]))
    >>> round(mean, 3), round(stderr, 3)
    (2.0, 0.577)
    """
    values = double(values).detach()
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"a standard error needs at least two values in one dimension, got shape {tuple(values.shape)}")
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))
