r"""The variational bound of a diffusion model, term by term, in nats and in bits per dimension.

For a grid $1\ge t_N>\dots>t_1>t_0=0$ and the sampler `ancestral`, with $x_i$ the state at $t_i$,

$$\begin{aligned}-\log p(x_0)\le\ &\underbrace{\mathrm{KL}(q(x_N\mid x_0)\,\|\,p(x_N))}_{prior}+\underbrace{\mathbb E[-\log p(x_0\mid x_1)]}_{decoder}\\
&+\sum_{i=2}^N\underbrace{\mathbb E\,\mathrm{KL}(q(x_{i-1}\mid x_i,x_0)\,\|\,p(x_{i-1}\mid x_i))}_{steps}\end{aligned}$$

(Ho et al. 2020, eq. 5). `vlb` estimates it for any denoiser and path, `continuous_vlb` its limit of small steps (Kingma et al. 2021, VDM).
$p(x_N)$ is the law the samplers start from, $\mathcal N(0,\sigma_N^2I)$ (`Schedule.noise`). Each expectation is over one draw of $x_i$ a sample and a
term, or the mean of `samples` draws. Sums are taken in float64, on the CPU for devices that lack it. Derived in chapters 04 and 07.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_core.denoiser import Denoise, require_schedule
from diffusion_core.doors import drawn_on, require_callable, require_count
from diffusion_core.likelihood.gaussians import discretized_log_prob, gaussian_kl, per_sample_sum
from diffusion_core.likelihood.units import bits_per_dim
from diffusion_core.schedules import Schedule, double, normal_like, per_sample
from diffusion_core.variance import Variance, posterior_variance


class VLB(NamedTuple):
    """The bound on -log p(x0) in nats, and its parts: prior (B,), steps (B, N - 1) in the order of the grid, noise first, decoder (B,).

    >>> import torch
    >>> from diffusion_core import LinearVP, ring, uniform, vlb
    >>> denoise, x0 = ring().denoiser(LinearVP()), ring().sample(8)
    >>> bound = vlb(denoise, LinearVP(), x0, uniform(10), levels=None)
    >>> bound.prior.shape, bound.steps.shape, bound.decoder.shape
    (torch.Size([8]), torch.Size([8, 9]), torch.Size([8]))
    >>> torch.equal(bound.total, bound.prior + bound.steps.sum(1) + bound.decoder)
    True
    """

    prior: Tensor
    steps: Tensor
    decoder: Tensor
    dims: int

    @property
    def total(self) -> Tensor:
        """(B,) nats."""
        return self.prior + self.steps.sum(1) + self.decoder

    @property
    def bits_per_dim(self) -> Tensor:
        """(B,) bits a dimension: of the discrete values where `levels` was given, else of the density."""
        return bits_per_dim(self.total, self.dims)


class ContinuousVLB(NamedTuple):
    """The bound on -log p(x0) in nats, and its parts, (B,) each.

    >>> import torch
    >>> from diffusion_core import LinearVP, continuous_vlb, ring
    >>> denoise, x0 = ring().denoiser(LinearVP()), ring().sample(8)
    >>> bound = continuous_vlb(denoise, LinearVP(), x0, t_min=0.01, levels=None)
    >>> torch.equal(bound.total, bound.prior + bound.diffusion + bound.decoder)
    True
    """

    prior: Tensor
    diffusion: Tensor
    decoder: Tensor
    dims: int

    @property
    def total(self) -> Tensor:
        """(B,) nats."""
        return self.prior + self.diffusion + self.decoder

    @property
    def bits_per_dim(self) -> Tensor:
        """(B,) bits a dimension: of the discrete values where `levels` was given, else of the density."""
        return bits_per_dim(self.total, self.dims)


@torch.no_grad()
def vlb(
    denoise: Denoise, schedule: Schedule, x0: Tensor, times: Tensor, variance: Variance | None = None, levels: int | None = 256,
    samples: int = 1, generator: torch.Generator | None = None, **cond: Any,
) -> VLB:
    r"""The bound of the chain that `ancestral` runs on the grid `times`, which must end at 0.

    A step costs $\mathrm{KL}\big(\mathcal N(\tilde\mu(x_t,x_0),\tilde\beta I)\,\|\,\mathcal N(\tilde\mu(x_t,\hat x_0),\tau^2)\big)$. The decoder is
    Gaussian about $\hat x_0$ at the last time before 0, in `levels` bins (`discretized_log_prob`) or, with None, as a density; its variance is what
    `variance` gives for the step to 0 and, where that is 0, $\sigma^2/\alpha^2$. A path with a floor, sigma(0) > 0, pays for the step to t = 0 too, and
    decodes from there.

    x0: (B, *D). variance: of a step, as in `ancestral`; the default is `posterior_variance`. samples: draws of each term, averaged.
    cond: goes to the denoiser at every call, such as `label=y`. Raises ValueError for a grid that does not end at 0, for a step
    with $\tau^2=0$ (its KL is infinite), and for samples < 1.

    >>> import torch
    >>> from diffusion_core import LinearVP, ring, uniform, vlb
    >>> denoise, seeded = ring().denoiser(LinearVP()), torch.Generator().manual_seed(0)
    >>> x0 = ring().sample(500, seeded)
    >>> bound = vlb(denoise, LinearVP(), x0, uniform(50), levels=None, generator=seeded)
    >>> # a bound on -log p, above it even for the best denoiser
    >>> bool(bound.total.mean() > -ring().log_prob(x0).mean())
    True
    """
    variance = posterior_variance if variance is None else variance
    require_callable(variance, "variance", "(schedule, x, s, t) -> tau^2, such as transition_variance")
    samples = require_count(samples, "samples, the number of draws a term,")
    times = _checked(denoise, schedule, x0, times)
    floored = bool(schedule(times[-1])[1] > 0)
    noisy = times if floored else times[:-1]
    steps = torch.zeros(len(x0), len(noisy) - 1, dtype=torch.float64)
    decoder = torch.zeros(len(x0), dtype=torch.float64)
    for _ in range(samples):
        for i, (t, s) in enumerate(zip(noisy[:-1], noisy[1:])):
            x_t = _noised(schedule, x0, t, generator)
            c_image, _, exact = schedule.posterior(s, t)
            image = denoise(x_t, t, **cond)  # before the variance: a `LearnedVariance` keeps its output of this call
            tau2 = _positive(variance(schedule, x_t, s, t), s, t)
            steps[:, i] += gaussian_kl(c_image.item() * double(x0), exact, c_image.item() * double(image), tau2).cpu()
        t = noisy[-1]
        x_t = _noised(schedule, x0, t, generator)
        image = denoise(x_t, t, **cond)
        tau2 = double(0.0) if floored else double(variance(schedule, x_t, times[-1], t))
        tau2 = torch.where(tau2 > 0, tau2, _spread(schedule, t).to(tau2.device))
        decoder -= discretized_log_prob(x0, image, tau2.sqrt(), levels).cpu()
    return VLB(_prior(schedule, x0, noisy[0]), steps / samples, decoder / samples, x0[0].numel())


@torch.no_grad()
def continuous_vlb(
    denoise: Denoise, schedule: Schedule, x0: Tensor, t_min: float, levels: int | None = 256, samples: int = 1,
    generator: torch.Generator | None = None, **cond: Any,
) -> ContinuousVLB:
    r"""The bound in the limit of infinitely many steps between t = 1 and t_min, and the decoder of `vlb` at t_min.

    diffusion: $\frac12\int\|\hat x_0-x_0\|^2\,d\,\mathrm{SNR}=\frac12\int\|\hat x_0-x_0\|^2(1+\mathrm{SNR})\,ds$, $s=\log(1+\mathrm{SNR})$ from t = 1 to t_min (Kingma et al. 2021,
    eq. 17 and 18). One stratified time a sample, uniform in s: in the log-SNR where it is high, and finite where SNR(1) = 0.

    The limit is finite for t_min > 0 only, since $\lambda\to\infty$ where sigma = 0; a path with a floor may go down to 0.

    x0: (B, *D). cond: goes to the denoiser at every call, such as `label=y`. Raises ValueError for a t_min outside [0, 1) or with sigma = 0, and for
    samples < 1.

    >>> import torch
    >>> from diffusion_core import LinearVP, continuous_vlb, ring
    >>> denoise, seeded = ring().denoiser(LinearVP()), torch.Generator().manual_seed(0)
    >>> x0 = ring().sample(2000, seeded)
    >>> bound = continuous_vlb(denoise, LinearVP(), x0, 1e-3, None, generator=seeded)
    >>> # no gap for the best denoiser, in the limit of small steps
    >>> gap = bound.total + ring().log_prob(x0)
    >>> abs(gap.mean().item()) < 0.1
    True
    """
    samples = require_count(samples, "samples, the number of draws a term,")
    _checked(denoise, schedule, x0, torch.tensor([1.0, 0.0]))
    t_min = float(t_min)
    if not 0 <= t_min < 1 or float(schedule(t_min)[1]) == 0:
        raise ValueError(f"t_min = {t_min} must lie in [0, 1) where sigma > 0: at sigma = 0 the signal-to-noise ratio and with it the bound are infinite. Take the time at which noise is as small as a level, such as schedule.time(12.0)")
    low, high = (math.log1p(float((alpha / sigma) ** 2)) for alpha, sigma in (schedule(1.0), schedule(t_min)))
    diffusion, decoder = (torch.zeros(len(x0), dtype=torch.float64) for _ in range(2))
    for _ in range(samples):
        snr = torch.expm1(low + (high - low) * _stratified(len(x0), generator))
        t = schedule.time(snr.log())
        error = (double(denoise(_noised(schedule, x0, t, generator), t, **cond)) - double(x0)).square().reshape(len(x0), -1).sum(1)
        diffusion += 0.5 * (high - low) * (1 + snr) * error.cpu()
        std = _spread(schedule, t_min).sqrt()
        decoder -= discretized_log_prob(x0, denoise(_noised(schedule, x0, t_min, generator), t_min, **cond), std, levels).cpu()
    return ContinuousVLB(_prior(schedule, x0, 1.0), diffusion / samples, decoder / samples, x0[0].numel())


def _checked(denoise: Denoise, schedule: Schedule, x0: Tensor, times: Tensor) -> Tensor:
    require_schedule(denoise, schedule)
    times = double(times).detach().cpu()
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() < 0).all()) or times[-1] != 0:
        raise ValueError("times must be a grid of at least two strictly decreasing times that ends at 0, such as uniform(50): the bound is one of the clean data")
    if not (isinstance(x0, Tensor) and x0.is_floating_point() and x0.ndim >= 1 and len(x0)):
        raise ValueError(f"need at least one sample in x0, floating, of shape (B, *D), got {f'{x0.dtype} of shape {tuple(x0.shape)}' if isinstance(x0, Tensor) else type(x0).__name__}")
    return times


def _prior(schedule: Schedule, x0: Tensor, t: Tensor | float) -> Tensor:
    r"""$\mathrm{KL}(\mathcal N(\alpha x_0,\sigma^2I)\|\mathcal N(0,\sigma^2I))$, (B,)."""
    alpha, sigma = schedule(double(t))
    return (0.5 * (alpha / sigma) ** 2).cpu() * per_sample_sum(double(x0).square(), x0).cpu()


def _noised(schedule: Schedule, x0: Tensor, t: Tensor | float, generator: torch.Generator | None) -> Tensor:
    alpha, sigma = schedule(double(t))
    return per_sample(alpha, x0) * x0 + per_sample(sigma, x0) * normal_like(x0, generator)


def _spread(schedule: Schedule, t: Tensor | float) -> Tensor:
    r"""$\sigma^2/\alpha^2$: the variance of x_0 given x_t alone, before anything is known of the data."""
    alpha, sigma = schedule(double(t))
    return (sigma / alpha) ** 2


def _positive(tau2: Tensor, s: Tensor, t: Tensor) -> Tensor:
    if not bool((double(tau2) > 0).all()):
        raise ValueError(f"the variance of the step from t = {float(t):.4g} to {float(s):.4g} is not positive, so its KL is infinite: a deterministic sampler has no such bound. Use posterior_variance, transition_variance or a learned one")
    return double(tau2)


def _stratified(n: int, generator: torch.Generator | None) -> Tensor:
    """(n,) one uniform number in each of n equal cells of (0, 1), in random order."""
    where = torch.device(drawn_on(generator) or "cpu")
    u = torch.rand(n, generator=generator, dtype=torch.float32 if where.type == "mps" else torch.float64, device=where)
    return ((torch.arange(n, dtype=torch.float64) + double(u).cpu()) / n)[torch.randperm(n, generator=generator, device=where).cpu()]
