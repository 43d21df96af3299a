r"""DDPM's $\beta_1..\beta_N$ as a path: the VP path at the knots $t=i/N$, with a rate that is constant between knots. Chapter 03."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_core.doors import require_count
from diffusion_core.schedules.base import Schedule, double
from diffusion_core.schedules.preserving import CosineVP


class DDPM(Schedule):
    r"""$\alpha_{i/N}^2=\bar\alpha_i=\prod_{j\le i}(1-\beta_j)$, $\sigma^2=1-\alpha^2$, $\log\alpha^2$ linear in t between knots. Ho et al. 2020, eq. 2 and 4.

    betas: N variances inside (0, 1), noise growing with the index; array index i - 1 holds $\beta_i$.

    With the posterior variance the last step of sampling is noiseless by itself, since $\sigma(0)=0$. At a knot, the rates are those of the interval
    that begins there.

    >>> from diffusion_core import DDPM
    >>> schedule = DDPM([0.1, 0.2, 0.3])
    >>> # 0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7
    >>> [round(a.item(), 6) for a in schedule.alphas_bar]
    [0.9, 0.72, 0.504]
    >>> alpha, sigma = schedule(2 / 3)  # the second of three steps
    >>> round((alpha**2).item(), 6), round((sigma**2).item(), 6)
    (0.72, 0.28)
    """

    def __init__(self, betas: Tensor | Sequence[float]):
        betas = double(betas).detach().cpu().clone()
        if betas.ndim != 1 or betas.numel() == 0:
            raise ValueError(f"betas must be a sequence of N variances, such as linear_betas(1000), got shape {tuple(betas.shape)}")
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(f"every beta must lie inside (0, 1), got {float(betas.min()):.4g} to {float(betas.max()):.4g}. Betas are variances of one step, not products or percentages")
        if len(betas) > 2 and float(betas[0]) > 0.9 and bool((betas.diff() < 0).all()):
            raise ValueError(f"betas fall from {float(betas[0]):.4g} to {float(betas[-1]):.4g}: these look like the products alphas_cumprod. The betas are 1 - alphas_cumprod[i] / alphas_cumprod[i - 1], with 1 before the first")
        self.betas = betas
        self._steps = -torch.log1p(-betas)
        self._cumulative = F.pad(self._steps.cumsum(0), (1, 0))

    @property
    def alphas_bar(self) -> Tensor:
        r"""$\bar\alpha_1..\bar\alpha_N$, (N,), float64: what tutorials call `alphas_cumprod`."""
        return torch.exp(-self._cumulative[1:])

    def integral(self, t: Tensor) -> Tensor:
        r"""$-\log\alpha_t^2$."""
        steps, cumulative = self._steps.to(t.device), self._cumulative.to(t.device)
        position = t * len(steps)
        knot = (position.detach() + 1e-9).floor().long().clamp(0, len(steps) - 1)
        return cumulative[knot] + (position - knot) * steps[knot]

    def remaining(self, t: Tensor) -> Tensor:
        r"""$\log\alpha_t^2-\log\alpha_1^2$, which keeps its digits near t = 1."""
        steps = self._steps.to(t.device)
        after = F.pad(steps.flip(0).cumsum(0).flip(0), (0, 1))
        left = (1 - t) * len(steps)
        knot = (t.detach() * len(steps) + 1e-9).floor().long().clamp(0, len(steps) - 1)
        return after[knot + 1] + (left - (len(steps) - 1 - knot)) * steps[knot]

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.integral(t))

    def _sigma2(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.integral(t))

    def _time(self, log_snr: Tensor) -> Tensor:
        integral = torch.logaddexp(torch.zeros_like(log_snr), -log_snr)
        steps, cumulative = self._steps.to(integral.device), self._cumulative.to(integral.device)
        knot = (torch.searchsorted(cumulative, integral, right=True) - 1).clamp(0, len(steps) - 1)
        return (knot + (integral - cumulative[knot]) / steps[knot]) / len(steps)


def linear_betas(steps: int = 1000, first: float | None = None, last: float | None = None) -> Tensor:
    r"""(N,) evenly spaced variances from `first` to `last`.

    The defaults are $\frac{1000}N10^{-4}$ and $\frac{1000}N\,0.02$: Ho et al. 2020 at N = 1000, and the same $\sum_i\beta_i=10.05$ at any N, so that
    little of the signal's power is left at the end of every grid (with unscaled betas 200 steps leave $\bar\alpha_N=0.13$ of it).

    >>> from diffusion_core import DDPM, linear_betas
    >>> # what is left of the signal's power, alpha_bar_N
    >>> [round(DDPM(linear_betas(n)).alphas_bar[-1].item(), 5) for n in (100, 1000)]
    [2e-05, 4e-05]
    """
    steps = require_count(steps, "the number of steps")
    first = 0.1 / steps if first is None else first
    last = 20.0 / steps if last is None else last
    if not 0 < first < 1 or not 0 < last < 1:
        raise ValueError(f"betas from {first:.4g} to {last:.4g} leave (0, 1); with the default ends use more than 20 steps, or give the ends yourself")
    return torch.linspace(first, last, steps, dtype=torch.float64)


def scaled_linear_betas(steps: int = 1000, first: float = 0.00085, last: float = 0.012) -> Tensor:
    r"""(N,) squares of evenly spaced standard deviations: $\beta_i=\mathrm{linspace}(\sqrt{\beta_1},\sqrt{\beta_N})_i^2$.

    Latent Diffusion's schedule, whose code calls it "linear" (Rombach et al. 2022).

    >>> from diffusion_core import scaled_linear_betas
    >>> betas = scaled_linear_betas(1000)
    >>> round(betas[0].item(), 5), round(betas[-1].item(), 5)
    (0.00085, 0.012)
    """
    steps = require_count(steps, "the number of steps")
    if not (0 < first < 1 and 0 < last < 1):
        raise ValueError(f"betas must lie inside (0, 1), got ends {first} and {last}")
    return torch.linspace(math.sqrt(first), math.sqrt(last), steps, dtype=torch.float64) ** 2


def cosine_betas(steps: int = 1000, s: float = 0.008, largest: float = 0.999) -> Tensor:
    r"""(N,) $\beta_i=\min(1-\bar\alpha_i/\bar\alpha_{i-1},\ 0.999)$ of the cosine schedule, Nichol and Dhariwal 2021, section 3.2.

    >>> import torch
    >>> from diffusion_core import DDPM, CosineVP, cosine_betas
    >>> schedule, t = DDPM(cosine_betas(100)), torch.arange(1, 100) / 100
    >>> # at its knots the cosine path, but for the last, where beta is cut
    >>> torch.allclose(schedule(t)[0], CosineVP()(t)[0])
    True
    """
    steps = require_count(steps, "the number of steps")
    if not 0 < largest < 1:
        raise ValueError(f"the largest beta must lie inside (0, 1), got {largest}")
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return CosineVP(s).transition(t[:-1], t[1:])[1].clamp(max=largest)
