r"""The loss that trains a network's variance beside its mean. Derived in chapter 07."""

import math
from typing import Any

import torch
from torch import Tensor

from diffusion_core.denoiser import Denoiser
from diffusion_core.doors import require_count
from diffusion_core.importance import knots
from diffusion_core.likelihood import discretized_log_prob, gaussian_kl
from diffusion_core.losses.denoising import Loss, noised, weighted
from diffusion_core.losses.weights import Weight
from diffusion_core.schedules import per_sample
from diffusion_core.variance import range_variance


def hybrid_loss(steps: int, scale: float = 1e-3, levels: int | None = 256) -> Loss:
    r"""$L_{hybrid}=L_{simple}+\text{scale}\cdot L_{vlb}$, a loss for `fit(..., loss=...)` that trains the learned variance. Nichol and Dhariwal 2021, eq. 16.

    loss(denoiser, x0, t, weight=None, generator=None, **cond) -> (B,), with t = i/N, N = steps, from `discrete_times(steps)` or `LossSecondMoment(steps)`:
    `denoising_loss` plus scale times $N L_{i-1}/D$, whose mean over i is the bound's $L_0+\dots+L_{N-1}$ in nats a dimension ($L_N$ has nothing to learn).
    $L_{i-1}=\mathrm{KL}\big(q(x_s\mid x_t,x_0)\,\|\,\mathcal N(\mu,\tau^2)\big)$ with s = t - 1/N and $\tau^2$ = `range_variance`; at i = 1 it is the decoder's
    $-\log p(x_0\mid x_t)$, on bins of `levels` gray values in [-1, 1], or a density with levels=None (data that are no images). The image inside $\mu$ carries
    no gradient: the bound trains the variance, the plain loss the mean.

    Units: the authors' code counts bits a dimension and multiplies them by N / 1000, the same .001; a scale of .001 here is .00069 there.
    Raises ValueError for settings and times that cannot be meant and for a network without a variance.

    >>> import torch
    >>> from diffusion_core import (
    ...     DDPM, MLP, Denoiser, denoising_loss, hybrid_loss, linear_betas, targets
    ... )
    >>> net, schedule = MLP(2, width=16, learned_variance=True), DDPM(linear_betas(100))
    >>> denoiser, x0, t = Denoiser(net, schedule, targets.eps), torch.zeros(4, 2), 0.5
    >>> losses = [
    ...     loss(denoiser, x0, t, generator=torch.Generator().manual_seed(0))
    ...     for loss in (denoising_loss, hybrid_loss(100, scale=0.0, levels=None))
    ... ]
    >>> torch.equal(*losses)  # without the bound: L_simple
    True
    """
    steps = require_count(steps, "steps", least=2)
    levels = None if levels is None else require_count(levels, "levels, where there are some,", least=2)
    if not 0 <= scale < math.inf:
        raise ValueError(f"scale must not be negative or infinite, got {scale}; the usual value is 0.001")

    def loss(denoiser: Denoiser, x0: Tensor, t: Tensor | float, weight: Weight | None = None, generator: torch.Generator | None = None, **cond: Any) -> Tensor:
        i = knots(t, steps).expand(len(x0))
        x_t, y = noised(denoiser, x0, t, generator)
        y_hat, v = denoiser.predict_with_variance(x_t, t, **cond)
        image = denoiser.image(x_t, t, y_hat.detach())
        tau2, first = range_variance(denoiser.schedule, v, (i - 1) / steps, i / steps), (i == 1).to(x0.device)
        bound = x0.new_zeros(len(x0))
        bound[first] = -discretized_log_prob(x0[first], image[first], tau2[first].sqrt(), levels).to(bound)
        later = i[i > 1]
        coef_x0, _, tilde = denoiser.schedule.posterior((later - 1) / steps, later / steps)
        gap = per_sample(coef_x0, x0[~first]) * (x0 - image)[~first]
        bound[~first] = gaussian_kl(gap, tilde, torch.zeros_like(gap), tau2[~first]).to(bound)
        return weighted(denoiser, y_hat, y, t, weight) + scale * steps / max(1, x0[0].numel()) * bound

    return loss
