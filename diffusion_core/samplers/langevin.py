r"""Langevin dynamics: samples of p from its score alone. Derived in chapter 11.

The step is written one way in the whole package: $x\leftarrow x+\frac\epsilon2\nabla\log p(x)+\sqrt\epsilon\,z$, with drift $\epsilon/2$ and noise of variance
$\epsilon$. Where a text or a program writes $x+\delta s+\sqrt{2\delta}\,z$, our step is $\epsilon=2\delta$; drift from one and noise from the other sample $p^2$ or $\sqrt p$.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from diffusion_core.doors import drawn_on, require_callable, require_count
from diffusion_core.jacobians import Field, evaluated, score_of
from diffusion_core.schedules import double, normal_like, per_sample


def langevin(score: Field, x: Tensor, step: Tensor | float, n: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    r"""$x\leftarrow x+\frac\epsilon2s(x)+\sqrt\epsilon\,z$, n times, $\epsilon$ = step: the unadjusted algorithm (ULA). Yields n + 1 states, the start first.

    score: (B, *D) -> (B, *D). x: the starts, (B, *D). step: a number, or (B,), one for each chain. Biased by the step: for $\mathcal N(0,s^2)$ the variance
    settles at $s^2/(1-\frac\epsilon{4s^2})$, and grows without end from $\epsilon\ge4s^2$ on. Roberts and Tweedie 1996.

    Steps are differentiable, like those of the samplers on grids. Raises ValueError unless step > 0 and n >= 1, and for a score of another shape than x.

    >>> import torch
    >>> from diffusion_core import langevin, last
    >>> x, seeded = torch.zeros(10_000), torch.Generator().manual_seed(0)
    >>> x = last(langevin(lambda x: -x, x, step=2.0, n=20, generator=seeded))
    >>> round(x.var().item(), 1)  # of N(0, 1); the step's bias: 1 / (1 - 2 / 4)
    2.0
    """
    drift, scale = _checked_step(x, step)
    n = require_count(n, "n, the number of steps,")
    require_callable(score, "score", "x -> the score, (B, *D) -> (B, *D)")
    yield x
    for _ in range(n):
        x = x + drift * evaluated(score, x) + scale * normal_like(x, generator)
        yield x


class Chains(Iterator[Tensor]):
    """The states of Metropolis chains, one after another; `acceptance` (B,) is the share of each chain's proposals accepted so far (NaN before the first)."""

    def __init__(self, walk: Iterator[tuple[Tensor, Tensor | None]], x: Tensor):
        self._walk, self._accepted, self._proposed = walk, torch.zeros(len(x), device=x.device), 0

    def __next__(self) -> Tensor:
        x, accepted = next(self._walk)
        if accepted is not None:
            self._accepted, self._proposed = self._accepted + accepted, self._proposed + 1
        return x

    @property
    def acceptance(self) -> Tensor:
        return self._accepted / self._proposed if self._proposed else torch.full_like(self._accepted, math.nan)


@torch.no_grad()
def mala(
    log_prob: Callable[[Tensor], Tensor], x: Tensor, step: Tensor | float, n: int, generator: torch.Generator | None = None, score: Field | None = None,
) -> Chains:
    r"""Langevin proposals $y=x+\frac\epsilon2s(x)+\sqrt\epsilon z$, accepted with probability $\min\big(1,\frac{p(y)\,q(x|y)}{p(x)\,q(y|x)}\big)$, else x stays. Roberts and Tweedie 1996.

    $q(y|x)=\mathcal N(y;x+\frac\epsilon2s(x),\epsilon I)$, $\epsilon$ = step, a number or (B,). Exact for every step: p is stationary whatever s is.

    log_prob: (B, *D) -> (B,), up to a constant; $-\infty$ where the density is 0. score: its gradient, by autograd (`score_of`) where None is given.
    Returns an iterator over n + 1 states, the start first, that counts: `chains = mala(...)`, `last(chains)`, then `chains.acceptance` (B,).
    A proposal whose ratio is not a number is rejected. States carry no graph. Raises ValueError unless step > 0 and n >= 1, for a log-density that
    is not (B,), and for a start where it is not finite.

    >>> import torch
    >>> from diffusion_core import last, mala
    >>> x, seeded = torch.zeros(10_000), torch.Generator().manual_seed(0)
    >>> chains = mala(lambda x: -x**2 / 2, x, step=2.0, n=20, generator=seeded)
    >>> # of N(0, 1): no bias at the step at which `langevin` doubles it
    >>> round(last(chains).var().item(), 1)
    1.0
    >>> 0 < chains.acceptance.mean().item() < 1
    True
    """
    drift, scale = _checked_step(x, step)
    n = require_count(n, "n, the number of steps,")
    require_callable(log_prob, "log_prob", "x -> the log-density, (B, *D) -> (B,)")
    x = x.detach()
    score = score_of(log_prob) if score is None else score
    value = log_prob(x)
    if not isinstance(value, Tensor) or value.shape != x.shape[:1] or not bool(value.isfinite().all()):
        shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"log_prob must give one finite number for each start, shape ({len(x)},), got {shown}; start where the density is not 0")
    return Chains(_metropolis(log_prob, score, (x, value, evaluated(score, x)), drift, scale, n, generator), x)


def _metropolis(
    log_prob: Callable[[Tensor], Tensor], score: Field, start: tuple[Tensor, Tensor, Tensor], drift: Tensor, scale: Tensor, n: int, generator: torch.Generator | None,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Each state and which of its chains moved. start: x, log p(x) and s(x)."""
    x, value, slope = start
    yield x, None
    for _ in range(n):
        with torch.no_grad():
            z = normal_like(x, generator)
            y = x + drift * slope + scale * z
            value_y, slope_y = log_prob(y), evaluated(score, y)
            back = z + scale / 2 * (slope + slope_y)  # x = y + drift * slope_y - scale * back: the noise that leads back, without the digits that x - y loses
            ratio = double(value_y) - double(value) + 0.5 * (_square(z) - _square(back))
            u = 1 - torch.rand(len(x), generator=generator, dtype=torch.float32, device=drawn_on(generator, x.device))
            accepted = (double(u).log().to(ratio.device) <= ratio).to(x.device)
            keep = accepted.reshape(-1, *[1] * (x.ndim - 1))
            x, slope, value = torch.where(keep, y, x), torch.where(keep, slope_y, slope), torch.where(accepted, value_y, value)
        yield x, accepted


def _square(z: Tensor) -> Tensor:
    return double(z).square().reshape(len(z), -1).sum(1)


def _checked_step(x: Tensor, step: Tensor | float) -> tuple[Tensor, Tensor]:
    """step / 2 and its root, ready to multiply x."""
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 1):
        raise ValueError("x, the starts of the chains, must be a floating tensor of shape (B, *D)")
    step = double(step)
    if not bool(((step > 0) & step.isfinite()).all()):
        raise ValueError(f"step must be positive and finite, got {step.tolist()}")
    return per_sample(step / 2, x), per_sample(step.sqrt(), x)
