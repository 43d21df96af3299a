r"""Samplers that add noise on the way: the SDEs by Euler-Maruyama, predictor-corrector, and EDM's churn. Derived in chapters 13, 15 and 17.

All of them work with the score $s=\frac{\alpha\hat x_0-x}{\sigma^2}$ or in $x/\alpha$, which live where $0<\mathrm{SNR}<\infty$: where alpha = 0 they refuse (but for the ancestral predictor). The
step to $\sigma=0$ returns the denoised image and draws nothing. Each state belongs to one time of the grid.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_core.denoiser import Denoise
from diffusion_core.doors import require_count
from diffusion_core.samplers.grids import checked_grid, require_signal
from diffusion_core.samplers.walks import floor_step
from diffusion_core.schedules import Schedule, double, normal_like
from diffusion_core.schedules.base import require_path


def forward_euler_maruyama(schedule: Schedule, x: Tensor, times: Tensor, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    r"""$x_t=x_s+f(s)x_s\,(t-s)+g(s)\sqrt{t-s}\,z$: the forward SDE $dx=f\,x\,dt+g\,dw$ on an increasing grid. x: (B, *D), the state at times[0].

    Weak order 1, and strong order 1 since g does not depend on x. Yields the state at each time. Raises ValueError unless the grid increases, and where the SNR is
    0 or infinite before its end: from $\sigma=0$ take the first state from $q(x_t\mid x_0)$, which is known.

    >>> import torch
    >>> from diffusion_core import LinearVP, forward_euler_maruyama, last
    >>> x0, times = torch.full((10_000, 1), 3.0), torch.linspace(0.001, 1, 200)
    >>> seeded = torch.Generator().manual_seed(0)
    >>> x = last(forward_euler_maruyama(LinearVP(), x0, times, seeded))
    >>> abs(x.mean().item()) < 0.1, round(x.std().item(), 1)
    (True, 1.0)
    """
    require_path(schedule)
    times = double(times).detach().cpu()
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise ValueError("the forward SDE runs on a grid of at least two strictly increasing times, such as torch.linspace(0.01, 1, 100)")
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 1):
        raise ValueError("x, the state at times[0], must be a floating tensor of shape (B, *D)")
    with torch.no_grad():
        h = times.diff()
        keep, scale = 1 + h * schedule.drift(times[:-1]), (h * schedule.diffusion2(times[:-1])).sqrt()
    schedule(times[-1])
    yield x
    for c_x, c_z in zip(keep.tolist(), scale.tolist()):
        x = c_x * x + c_z * normal_like(x, generator)
        yield x


def euler_maruyama(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: float = 1.0, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    r"""$x_s=x_t-\big(f\,x_t-\frac{1+\nu^2}2g^2s(x_t)\big)h+\nu g\sqrt h\,z$, h = t - s, f and g at t: the reverse SDE by Euler-Maruyama; $\nu$ = noise.

    $dx=\big(f\,x-\frac{1+\nu^2}2g^2s\big)dt+\nu g\,d\bar w$ has the marginals of the path for every $\nu$: 0 is the probability flow (by Euler in t, not `ddim`), 1 the reverse SDE of
    Anderson 1982 (Song et al. 2021 (SDE), eq. 13 and 6); the family between is in Zhang and Chen 2023, who write lambda. Weak order 1 on any path. Raises ValueError unless $\nu\ge0$ is finite, for a bad grid,
    and where alpha = 0. At a knot of a `DDPM` path f and g are those of the interval above it.

    >>> import torch
    >>> from diffusion_core import Gaussian, LinearVP, euler_maruyama, last, uniform
    >>> schedule, seeded = LinearVP(), torch.Generator().manual_seed(0)
    >>> denoise = Gaussian([2.0], 0.25).denoiser(schedule)
    >>> walk = denoise, schedule, schedule.noise((4000, 1), seeded), uniform(100)
    >>> x = last(euler_maruyama(*walk, generator=seeded))
    >>> round(x.mean().item(), 1), round(x.std().item(), 1)
    (2.0, 0.5)
    """
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise, the factor nu of g, must be a finite number of at least 0 (0 the probability flow, 1 the reverse SDE), got {noise}")
    denoise, times, alpha, sigma = checked_grid(denoise, schedule, x, times)
    require_signal(times, alpha)
    with torch.no_grad():
        h, g2 = -times.diff(), schedule.diffusion2(times[:-1])
        pull = h * (1 + noise**2) / 2 * g2 / sigma[:-1] ** 2
        keep = 1 - h * schedule.drift(times[:-1]) - pull
        scale = noise * (h * g2).sqrt()
        gain, clean = pull * alpha[:-1], sigma[1:] == 0
        gain, keep, scale = gain.masked_fill(clean, 1.0), keep.masked_fill(clean, 0.0), scale.masked_fill(clean, 0.0)
    yield x
    for t, c_0, c_x, c_z in zip(times, gain.tolist(), keep.tolist(), scale.tolist()):
        x = c_0 * denoise(x, t) + c_x * x
        if c_z > 0:
            x = x + c_z * normal_like(x, generator)
        yield x
    yield from floor_step(denoise, schedule, x, times)


def predictor_corrector(
    denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, predictor: str = "reverse_diffusion", corrections: int = 1, snr: float = 0.16,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    r"""A predictor from t to s, then `corrections` Langevin steps at s: $x\leftarrow x+\frac\epsilon2s(x)+\sqrt\epsilon\,z$ with $\epsilon=(2\,\mathtt{snr}\,\|z\|/\|s(x)\|)^2$. Song et al. 2021 (SDE), algorithms 1 to 5.

    predictor: "reverse_diffusion", $x_s=(2-\alpha_{t|s})x_t+\sigma^2_{t|s}s(x_t)+\sigma_{t|s}z$, the transition's own step turned round (their appendix E), or "ancestral", the mean and
    variance of $q(x_s\mid x_t,x_0)$ at the denoised image, which is `ancestral` and may start from alpha = 0. On VE and VP paths the first is theirs to the letter; so is the
    second on VE paths, and on VP paths it has the posterior's variance in place of $\beta$.

    The norms are means over the batch, as in their code, so the samples of a batch share a step. Their $\epsilon$ is half of ours, since they move by
    $\epsilon s+\sqrt{2\epsilon}z$; their factor $1-\beta$ on VP paths, which is near 1, is left out. snr: their r, 0.16 for VE on images, 0.01 for VP. The calls are
    1 + corrections a step; the step to sigma = 0 is not corrected. Raises ValueError for an unknown predictor, unless corrections >= 0 and snr > 0, for
    a bad grid, and where alpha = 0 for reverse diffusion.

    >>> import torch
    >>> from diffusion_core import GeometricVE, last, predictor_corrector, ring, uniform
    >>> schedule, seeded = GeometricVE(0.01, 10.0), torch.Generator().manual_seed(0)
    >>> start = schedule.noise((500, 2), seeded)
    >>> walk = ring().denoiser(schedule), schedule, start, uniform(50)
    >>> x = last(predictor_corrector(*walk, generator=seeded))
    >>> round(x.norm(dim=1).median().item(), 1)  # the ring's radius
    1.4
    """
    if predictor not in ("reverse_diffusion", "ancestral"):
        raise ValueError(f"predictor must be 'reverse_diffusion' or 'ancestral', got {predictor!r}")
    corrections = require_count(corrections, "corrections", least=0)
    if not 0 < snr < math.inf:
        raise ValueError(f"snr, which sets the length of a correction, must be positive and finite, got {snr}")
    denoise, times, alpha, sigma = checked_grid(denoise, schedule, x, times)
    with torch.no_grad():
        if predictor == "ancestral":
            gain, keep, variance = schedule.posterior(times[1:], times[:-1])
        else:
            require_signal(times, alpha)
            ratio, variance = schedule.transition(times[1:], times[:-1])
            pull = variance / sigma[:-1] ** 2
            clean = sigma[1:] == 0
            gain, keep, variance = (pull * alpha[:-1]).masked_fill(clean, 1.0), (2 - ratio - pull).masked_fill(clean, 0.0), variance.masked_fill(clean, 0.0)
    steps = zip(times[:-1], times[1:], gain.tolist(), keep.tolist(), variance.sqrt().tolist(), alpha[1:].tolist(), sigma[1:].tolist())
    yield x
    for t, s, c_0, c_x, c_z, alpha_s, sigma_s in steps:
        x = c_0 * denoise(x, t) + c_x * x
        if sigma_s > 0:
            x = x + c_z * normal_like(x, generator)
            for _ in range(corrections):
                pull, z = alpha_s * denoise(x, s) - x, normal_like(x, generator)  # sigma^2 times the score
                smallest = torch.finfo(x.dtype).eps * _mean_norm(x)  # what rounding leaves of a pull of 0
                step = (2 * snr * sigma_s**2 * _mean_norm(z) / torch.maximum(_mean_norm(pull), smallest)) ** 2
                x = x + step / (2 * sigma_s**2) * pull + step.sqrt() * z
        yield x
    yield from floor_step(denoise, schedule, x, times)


def _mean_norm(x: Tensor) -> Tensor:
    """The mean length of the samples of a batch, a scalar."""
    return x.flatten(1).norm(dim=1).mean() if x.ndim > 1 else x.abs().mean()


def churned_heun(
    denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, s_churn: float = 40.0, s_tmin: float = 0.05, s_tmax: float = 50.0, s_noise: float = 1.003,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    r"""`heun` that first raises the noise from $\varsigma=\sigma/\alpha$ to $\hat\varsigma=(1+\gamma)\varsigma$ by $\sqrt{\hat\varsigma^2-\varsigma^2}\,S_{noise}\,z$, then steps down. Karras et al. 2022, algorithm 2.

    $\gamma=\min(S_{churn}/n,\sqrt2-1)$ for n steps, where $S_{tmin}\le\varsigma\le S_{tmax}$, else 0: with s_churn = 0 it is `heun`. The defaults are those of the paper for
    ImageNet-64. On any path: the raised state stands at the time of its own log-SNR. 2n - 1 calls. Raises ValueError unless s_churn >= 0,
    0 <= s_tmin <= s_tmax and s_noise >= 0, for a bad grid, where alpha = 0, and where the path never reaches the raised noise.

    >>> import torch
    >>> from diffusion_core import EDM, churned_heun, heun, karras_grid, last, ring
    >>> schedule, denoise, times = EDM(), ring().denoiser(EDM()), karras_grid(EDM(), 10)
    >>> walk = denoise, schedule, schedule.noise((100, 2)), times
    >>> torch.equal(last(churned_heun(*walk, s_churn=0.0)), last(heun(*walk)))
    True
    """
    if not (0 <= s_churn < math.inf and 0 <= s_tmin <= s_tmax and 0 <= s_noise < math.inf):
        raise ValueError(f"need s_churn >= 0, 0 <= s_tmin <= s_tmax and s_noise >= 0, got {s_churn}, {s_tmin}, {s_tmax} and {s_noise}")
    denoise, times, alpha, sigma = checked_grid(denoise, schedule, x, times)
    require_signal(times, alpha)
    level = sigma / alpha
    before, after = level[:-1], level[1:]
    gamma = min(s_churn / len(before), math.sqrt(2) - 1) * ((before >= s_tmin) & (before <= s_tmax)).double()
    raised = (1 + gamma) * before
    lowest = schedule.log_snr_range()[0]
    if bool((-2 * raised.log() < lowest - 1e-6)[gamma > 0].any()):
        raise ValueError(f"churn raises sigma / alpha to {float(raised.max()):.4g}, which {type(schedule).__name__} never reaches; start the grid later, or take s_tmax below {math.exp(-lowest / 2) / (1 + float(gamma.max())):.4g}")
    with torch.no_grad():
        where = torch.where(gamma > 0, schedule.time((-2 * raised.log()).clamp(min=lowest)), times[:-1])
        alpha_raised, sigma_raised = schedule(where)
    grow, add = alpha_raised / alpha[:-1], s_noise * alpha_raised * before * (gamma * (2 + gamma)).sqrt()
    ratio = after / raised
    euler = alpha[1:] * (1 - ratio)
    correction = torch.where(ratio > 0, euler / (2 * ratio), 0.0)
    steps = zip(where, times[1:], grow.tolist(), add.tolist(), (sigma[1:] / sigma_raised).tolist(), euler.tolist(), correction.tolist())
    yield x
    for t, s, c_grow, c_z, c_x, c_0, c_change in steps:
        if c_z > 0:
            x = c_grow * x + c_z * normal_like(x, generator)
        image = denoise(x, t)
        x = c_x * x + c_0 * image
        if c_x > 0:
            x = x + c_change * (denoise(x, s) - image)
        yield x
    yield from floor_step(denoise, schedule, x, times)
