r"""Gaussians measured against data and against each other: the log-probability of a value or of its bin, and the KL divergence. Nats, summed over a sample's dimensions.

Everything is computed in float64, on the CPU for devices that lack it. Derived in chapters 01 and 06.
"""

import math

import torch
from torch import Tensor

from diffusion_core.doors import require_count
from diffusion_core.schedules import double, per_sample


def discretized_log_prob(x0: Tensor, mean: Tensor, std: Tensor | float, levels: int | None = 256) -> Tensor:
    r"""$\sum_i\log\big(\Phi(\frac{b_i-\mu_i}{s})-\Phi(\frac{a_i-\mu_i}{s})\big)$, (B,) nats: a Gaussian gathered in the bins of the values $-1+\frac{2k}{levels-1}$. Ho et al. 2020, eq. 13.

    A bin reaches $\frac1{levels-1}$ to both sides of its value, the first to $-\infty$ and the last to $\infty$, so that the probabilities of all levels add up to 1.
    x0, mean: (B, *D). std: scalar, (B,) or like x0. levels=None: the log-density $\log\mathcal N(x_0;\mu,s^2)$ instead.
    In float64; a difference of two $\Phi$ above the mean is taken below it, where it keeps its digits. Raises ValueError for levels < 2, for
    std that is not positive, and for x0 that are not levels.

    >>> import torch
    >>> from diffusion_core import discretized_log_prob
    >>> values = torch.linspace(-1, 1, 256)[:, None]
    >>> log_prob = discretized_log_prob(values, torch.full_like(values, 0.2), 0.5)
    >>> round(log_prob.exp().sum().item(), 6)  # all levels together
    1.0
    """
    x0, mean = double(x0), double(mean)
    _require_one_shape(x0, mean)
    std = _like(std, x0)
    if not bool((std > 0).all()):
        raise ValueError("std must be positive: a Gaussian without width has no density")
    if levels is None:
        return per_sample_sum(-0.5 * (((x0 - mean) / std).square() + math.log(2 * math.pi)) - std.log(), x0)
    levels = require_count(levels, "levels, the number of values that a dimension can take,", least=2)
    k = (x0 + 1) / 2 * (levels - 1)
    if not bool(((k - k.round()).abs() < 1e-2).all()) or not bool(((k.round() >= 0) & (k.round() < levels)).all()):
        raise ValueError(f"x0 must hold values -1 + 2k / {levels - 1}, k = 0..{levels - 1}: bytes as u / 127.5 - 1 for 256 levels. For continuous data pass levels=None")
    half = 1 / (levels - 1)
    low = torch.where(k.round() == 0, -math.inf, (x0 - mean - half) / std)
    high = torch.where(k.round() == levels - 1, math.inf, (x0 - mean + half) / std)
    low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return per_sample_sum(log_high + torch.log(-torch.expm1(log_low - log_high)), x0)


def gaussian_kl(mean_p: Tensor, var_p: Tensor | float, mean_q: Tensor, var_q: Tensor | float) -> Tensor:
    r"""$\mathrm{KL}(p\|q)=\frac12\sum_i\big(r_i-1-\log r_i+\frac{(\mu_{p,i}-\mu_{q,i})^2}{v_{q,i}}\big)$, $r=v_p/v_q$: (B,) nats, summed over the dimensions.

    Means (B, *D); variances scalar, (B,) or like the means, positive. In float64. $r-1-\log r$ is taken from $r-1$, which keeps its digits near equal variances.

    >>> import torch
    >>> from diffusion_core import gaussian_kl
    >>> zero, one = torch.zeros(1, 2), torch.ones(1, 2)
    >>> gaussian_kl(one, 1.0, zero, 1.0).tolist()  # half the squared distance
    [1.0]
    >>> gaussian_kl(one, 1.0, one, 1.0).tolist()
    [0.0]
    """
    mean_p, mean_q = double(mean_p), double(mean_q)
    _require_one_shape(mean_p, mean_q)
    var_p, var_q = _like(var_p, mean_p), _like(var_q, mean_p)
    if not bool((var_p > 0).all() & (var_q > 0).all()):
        raise ValueError("variances must be positive: the divergence from or to a Gaussian without width is infinite or has no meaning")
    excess = (var_p - var_q) / var_q
    return per_sample_sum(0.5 * (excess - torch.log1p(excess) + (mean_p - mean_q).square() / var_q), mean_p)


def _require_one_shape(x: Tensor, mean: Tensor) -> None:
    if x.ndim < 1 or x.shape != mean.shape:
        raise ValueError(f"both must have one shape, (B, *D), got {tuple(x.shape)} and {tuple(mean.shape)}")


def _like(value: Tensor | float, x: Tensor) -> Tensor:
    """A scalar, (B,) or x-shaped value, ready to broadcast against x (float64)."""
    value = double(value).to(x.device)
    return value if value.shape == x.shape else per_sample(value, x)


def per_sample_sum(terms: Tensor, x: Tensor) -> Tensor:
    """(B,) sums of terms that broadcast against x (B, *D)."""
    return terms.expand(x.shape).reshape(len(x), math.prod(x.shape[1:])).sum(1)
