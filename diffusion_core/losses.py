r"""The denoising loss, its weights, and how times are drawn.

A weight is stated once, as $w(t)$ on $\|\hat x_0-x_0\|^2$; the loss is computed on the network's own target y, with the coefficient
$w\,c_y^2$, $c_y=-\sigma/(\alpha b-\sigma a)$. Every weight here is a function of two, the SNR $\alpha^2/\sigma^2$ and 1, so that both are turned into the
target's units with exact powers of $\alpha$ and $\sigma$: where a limit is finite, so is the coefficient. Derived in chapter 05.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_core import targets
from diffusion_core.denoiser import Denoiser
from diffusion_core.doors import drawn_on, require_callable, require_count
from diffusion_core.importance import knots
from diffusion_core.likelihood import discretized_log_prob, gaussian_kl
from diffusion_core.schedules import Schedule, double, normal_like, per_sample
from diffusion_core.targets import Target
from diffusion_core.variance import range_variance

__all__ = [
    "denoising_loss", "discrete_times", "edm_weight", "hybrid_loss", "lognormal_times", "min_snr", "snr", "truncated_snr", "uniform", "uniform_times",
    "v_weight", "vlb",
]

Weight = Callable[[Schedule, Tensor | float, Target], Tensor]
Times = Callable[[Schedule, int, torch.Generator | None], Tensor]
Loss = Callable[..., Tensor]


def denoising_loss(denoiser: Denoiser, x0: Tensor, t: Tensor | float, weight: Weight | None = None, generator: torch.Generator | None = None, **cond: Any) -> Tensor:
    r"""$w\,c_y^2\,\|\hat y(x_t,t)-y\|^2/D$ with $x_t=\alpha x_0+\sigma\epsilon$, $y=a\,x_0+b\,\epsilon$: (B,), unreduced, the mean over the D coordinates.

    x0: (B, *D). t: scalar or (B,). weight: `snr`, `uniform`, `min_snr(5.)` ...; None is the plain $\|\hat y-y\|^2/D$: for the noise target, DDPM's
    L_simple. cond: goes to the network, such as `label=y`.

    The noise comes from `generator`, on its device.

    >>> import torch
    >>> from diffusion_core import MLP, Denoiser, LinearVP, denoising_loss, targets
    >>> denoiser = Denoiser(MLP(2, width=16), LinearVP(), targets.eps)
    >>> seeded = torch.Generator().manual_seed(0)
    >>> loss = denoising_loss(denoiser, torch.zeros(10_000, 2), 0.5, generator=seeded)
    >>> # an untrained network predicts 0, and the noise has variance 1
    >>> loss.shape, round(loss.mean().item(), 1)
    (torch.Size([10000]), 1.0)
    """
    x_t, y = _noised(denoiser, x0, t, generator)
    return _error(denoiser, denoiser.predict(x_t, t, **cond), y, t, weight)


def _noised(denoiser: Denoiser, x0: Tensor, t: Tensor | float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """x_t, and the target y of the same noise. The door of the losses."""
    if not (hasattr(denoiser, "predict") and hasattr(denoiser, "schedule") and hasattr(denoiser, "target")):
        raise ValueError(f"denoiser must be a Denoiser, got {type(denoiser).__name__}; a network becomes one by Denoiser(net, schedule, target)")
    if not (isinstance(x0, Tensor) and x0.is_floating_point() and x0.ndim >= 1 and len(x0)):
        raise ValueError(f"x0 must be a floating tensor of shape (B, *D) with at least one sample, got {f'{x0.dtype} of shape {tuple(x0.shape)}' if isinstance(x0, Tensor) else type(x0).__name__}")
    alpha, sigma = denoiser.schedule(double(t))
    a, b = denoiser.target(denoiser.schedule, t)
    eps = normal_like(x0, generator)
    return per_sample(alpha, x0) * x0 + per_sample(sigma, x0) * eps, per_sample(a, x0) * x0 + per_sample(b, x0) * eps


def _error(denoiser: Denoiser, prediction: Tensor, y: Tensor, t: Tensor | float, weight: Weight | None) -> Tensor:
    loss = (prediction - y).square().reshape(len(y), -1).mean(1)
    if weight is None:
        return loss
    require_callable(weight, "weight", "(schedule, t, target) -> w, such as losses.snr or losses.min_snr(5.0), or None")
    uncalled: tuple[object, ...] = (min_snr, edm_weight)
    if weight in uncalled:
        raise ValueError("weight must be losses.min_snr(gamma) or losses.edm_weight(sigma_data), got the function that makes one: call it, such as losses.min_snr(5.0)")
    w = weight(denoiser.schedule, t, denoiser.target)
    if w.shape not in ((), loss.shape):
        raise ValueError(f"weight must give a scalar or one number a sample, shape ({len(loss)},), got {tuple(w.shape)}")
    return w.to(loss.device, loss.dtype) * loss


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
        x_t, y = _noised(denoiser, x0, t, generator)
        y_hat, v = denoiser.predict_with_variance(x_t, t, **cond)
        image = denoiser.image(x_t, t, y_hat.detach())
        tau2, first = range_variance(denoiser.schedule, v, (i - 1) / steps, i / steps), (i == 1).to(x0.device)
        bound = x0.new_zeros(len(x0))
        bound[first] = -discretized_log_prob(x0[first], image[first], tau2[first].sqrt(), levels).to(bound)
        later = i[i > 1]
        coef_x0, _, tilde = denoiser.schedule.posterior((later - 1) / steps, later / steps)
        gap = per_sample(coef_x0, x0[~first]) * (x0 - image)[~first]
        bound[~first] = gaussian_kl(gap, tilde, torch.zeros_like(gap), tau2[~first]).to(bound)
        return _error(denoiser, y_hat, y, t, weight) + scale * steps / max(1, x0[0].numel()) * bound

    return loss


def _snr_and_one(schedule: Schedule, t: Tensor | float, target: Target) -> tuple[Tensor, Tensor]:
    r"""$(\mathrm{SNR}\cdot c_y^2,\ 1\cdot c_y^2)$ in the units of the target, float64."""
    t = double(t)
    alpha, sigma = schedule(t)
    factor, m, n = targets.determinant(schedule, target, t)
    one = alpha ** (-2 * m) * sigma ** (2 - 2 * n) / factor**2
    snr = alpha ** (2 - 2 * m) * sigma ** (-2 * n) / factor**2
    return snr, one


def uniform(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
    r"""$w=1$: the plain error of the image.

    >>> from diffusion_core import LinearVP, losses, targets
    >>> # in units of the noise: 1 / SNR
    >>> schedule = LinearVP()
    >>> weight = losses.uniform(schedule, 0.3, targets.eps)
    >>> round((weight * losses.snr(schedule, 0.3)).item(), 6)
    1.0
    """
    return _snr_and_one(schedule, t, target)[1]


def snr(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
    r"""$w=\mathrm{SNR}$: the plain error of the noise, L_simple, for any target. Ho et al. 2020, eq. 14.

    >>> from diffusion_core import LinearVP, losses, targets
    >>> # for the noise: the plain loss, at both ends too
    >>> [losses.snr(LinearVP(), t, targets.eps).item() for t in (0.0, 0.5, 1.0)]
    [1.0, 1.0, 1.0]
    """
    return _snr_and_one(schedule, t, target)[0]


def v_weight(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
    r"""$w=\mathrm{SNR}+1$: on a VP path, the plain error of v. Salimans and Ho 2022.

    >>> from diffusion_core import CosineVP, losses, targets
    >>> # for v: the plain loss
    >>> [round(losses.v_weight(CosineVP(), t, targets.v).item(), 6) for t in (0.0, 1.0)]
    [1.0, 1.0]
    """
    per_snr, per_one = _snr_and_one(schedule, t, target)
    return per_snr + per_one


def truncated_snr(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
    r"""$w=\max(\mathrm{SNR},1)$. Salimans and Ho 2022.

    >>> import torch
    >>> from diffusion_core import CosineVP, losses
    >>> schedule = CosineVP()
    >>> t = schedule.time(torch.tensor([2.0, -2.0]))  # by their log-SNR
    >>> [round(w, 4) for w in losses.truncated_snr(schedule, t).log().tolist()]
    [2.0, 0.0]
    """
    return torch.maximum(*_snr_and_one(schedule, t, target))


def min_snr(gamma: float = 5.0) -> Weight:
    r"""$w=\min(\mathrm{SNR},\gamma)$, in the units of every target: for the noise $\min(1,\gamma/\mathrm{SNR})$. Hang et al. 2023, section 3.4.

    Raises ValueError unless gamma > 0.

    >>> import torch
    >>> from diffusion_core import CosineVP, losses
    >>> schedule, weight = CosineVP(), losses.min_snr(5.0)
    >>> round(weight(schedule, 0.1).item(), 6)  # where the SNR is higher
    5.0
    >>> torch.allclose(weight(schedule, 0.9), losses.snr(schedule, 0.9))
    True
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}; the usual value is 5")

    def weight(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
        per_snr, per_one = _snr_and_one(schedule, t, target)
        return torch.minimum(per_snr, gamma * per_one)

    return weight


def edm_weight(sigma_data: float = 0.5) -> Weight:
    r"""$w=\mathrm{SNR}+1/\sigma_d^2$: $1/c_{out}^2$ of Karras et al. 2022, the plain error of their F.

    Raises ValueError unless sigma_data > 0.

    >>> from diffusion_core import EDM, losses, targets
    >>> # for F: the plain loss
    >>> weight, target = losses.edm_weight(0.5), targets.edm(0.5)
    >>> [round(weight(EDM(), t, target).item(), 6) for t in (0.01, 0.5, 1.0)]
    [1.0, 1.0, 1.0]
    """
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"sigma_data, the standard deviation of the data, must be positive and finite, got {sigma_data}")

    def weight(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
        per_snr, per_one = _snr_and_one(schedule, t, target)
        return per_snr + per_one / sigma_data**2

    return weight


def vlb(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
    r"""$w=-\frac12\frac{d\,\mathrm{SNR}}{dt}=\frac{\alpha(\alpha\dot\sigma-\sigma\dot\alpha)}{\sigma^3}$: the rate of the continuous-time bound, in nats a unit of t. Kingma et al. 2021, eq. 15.

    On the sum over coordinates; `denoising_loss` takes the mean. Raises ValueError where a rate of the path is infinite (`Schedule.rates`).

    >>> import torch
    >>> from diffusion_core import LinearVP, losses
    >>> schedule, t = LinearVP(), torch.linspace(0.1, 1.0, 1001, dtype=torch.float64)
    >>> # of an error of 1 at every t
    >>> cost = torch.trapezoid(losses.vlb(schedule, t), t)
    >>> snr = schedule.log_snr(t).exp()
    >>> round((2 * cost / (snr[0] - snr[-1])).item(), 3)  # half of what the SNR loses
    1.0
    """
    t = double(t)
    (alpha, sigma), (d_alpha, d_sigma) = schedule(t), schedule.rates(t)
    factor, m, n = targets.determinant(schedule, target, t)
    return alpha ** (1 - 2 * m) * sigma ** (-1 - 2 * n) * (alpha * d_sigma - sigma * d_alpha) / factor**2


def uniform_times(schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor:
    r"""(n,) stratified uniform times in (0.001, 1): one in each of n equal cells, in random order of samples. Kingma et al. 2021, appendix I.

    >>> import torch
    >>> from diffusion_core import LinearVP, uniform_times
    >>> t = uniform_times(LinearVP(), 4, torch.Generator().manual_seed(0))
    >>> # one in each quarter
    >>> [int(4 * (u - 0.001) / 0.999) for u in t.sort().values.tolist()]
    [0, 1, 2, 3]
    """
    n = require_count(n, "n, the number of times,")
    device = drawn_on(generator)
    offset = double(torch.rand((), generator=generator, dtype=torch.float32, device=device))
    cells = torch.arange(n, dtype=torch.float64, device=offset.device)
    shuffled = torch.randperm(n, generator=generator, device=device).to(offset.device)
    return 0.001 + 0.999 * ((cells + offset) / n)[shuffled]


def discrete_times(steps: int) -> Times:
    r"""Times $i/N$ with i uniform in {1, .., N}: DDPM's, both ends included. Raises ValueError unless steps is a positive integer.

    >>> import torch
    >>> from diffusion_core import LinearVP, discrete_times
    >>> t = discrete_times(4)(LinearVP(), 1000, torch.Generator().manual_seed(0))
    >>> t.unique().tolist()  # never 0, where there is no noise to predict
    [0.25, 0.5, 0.75, 1.0]
    """
    steps = require_count(steps, "the number of steps")

    def times(schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor:
        i = torch.randint(1, steps + 1, (n,), generator=generator, device=drawn_on(generator))
        return double(i) / steps

    return times


def lognormal_times(mean: float = -1.2, std: float = 1.2) -> Times:
    r"""Times at which $\log(\sigma/\alpha)\sim\mathcal N(mean, std^2)$, cut to the path's range: Karras et al. 2022, table 1. Raises ValueError unless mean is finite and 0 < std < inf.

    >>> import torch
    >>> from diffusion_core import EDM, lognormal_times
    >>> schedule = EDM()
    >>> seeded = torch.Generator().manual_seed(0)
    >>> t = lognormal_times(-1.2, 1.2)(schedule, 10_000, seeded)
    >>> log_sigma = schedule(t)[1].log()
    >>> round(log_sigma.mean().item(), 1), round(log_sigma.std().item(), 1)
    (-1.2, 1.2)
    """
    if not (math.isfinite(mean) and 0 < std < math.inf):
        raise ValueError(f"std must be positive and finite, and mean finite, got {std} and {mean}; the usual values are 1.2 and -1.2")

    def times(schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor:
        z = double(torch.randn(n, generator=generator, dtype=torch.float32, device=drawn_on(generator)))
        low, high = schedule.log_snr_range()
        return schedule.time((-2 * (mean + std * z)).clamp(low, high))

    return times
