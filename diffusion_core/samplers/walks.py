r"""The DDIM family, ancestral sampling, and DDIM inversion. Derived in chapters 06 (ancestral) and 08 (DDIM)."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from diffusion_core.denoiser import Denoise
from diffusion_core.doors import require_callable
from diffusion_core.samplers.grids import checked_grid
from diffusion_core.schedules import Schedule, normal_like, per_sample
from diffusion_core.variance import Variance, posterior_variance, transition_variance


def ddim(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, eta: float = 0.0, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    r"""$x_s=\alpha_s\hat x_0+\sqrt{\sigma_s^2-\tau^2}\,\hat\epsilon+\tau z$ with $\hat\epsilon=(x_t-\alpha_t\hat x_0)/\sigma_t$ and $\tau^2=\eta^2\frac{\sigma_s^2}{\sigma_t^2}\sigma_{t|s}^2$.

    Song et al. 2021 (DDIM), eq. 12 and 16, on any path and any stride. eta = 0 is deterministic, an Euler step in $(x/\alpha,\sigma/\alpha)$; eta = 1 is
    ancestral sampling of the strided chain. Raises ValueError for eta outside [0, 1] and for a bad grid.

    $\sqrt{\sigma_s^2-\tau^2}$ is computed as $\sigma_s\sqrt{1-\eta^2+\eta^2e^{\lambda_t-\lambda_s}}$, which neither cancels nor turns negative.

    >>> import torch
    >>> from diffusion_core import Gaussian, LinearVP, ddim, last, uniform
    >>> schedule, data = LinearVP(), Gaussian([2.0], 0.25)
    >>> start = schedule.noise((4000, 1), torch.Generator().manual_seed(0))
    >>> x = last(ddim(data.denoiser(schedule), schedule, start, uniform(50)))
    >>> round(x.mean().item(), 1), round(x.std().item(), 1)
    (2.0, 0.5)
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1] (0 deterministic, 1 ancestral), got {eta}")
    denoise, times, alpha, sigma = checked_grid(denoise, schedule, x, times)
    with torch.no_grad():
        tau = eta * schedule.posterior(times[1:], times[:-1]).variance.sqrt() if eta > 0 else torch.zeros_like(alpha[1:])
    closer = (alpha[:-1] * sigma[1:]) / (alpha[1:] * sigma[:-1])
    keep = sigma[1:] / sigma[:-1] * torch.sqrt(1 - eta**2 + (eta * closer) ** 2)
    steps = zip(times, (alpha[1:] - alpha[:-1] * keep).tolist(), keep.tolist(), tau.tolist())
    yield x
    for t, c_0, c_x, tau in steps:
        x = c_0 * denoise(x, t) + c_x * x
        if tau > 0:
            x = x + tau * normal_like(x, generator)
        yield x
    yield from floor_step(denoise, schedule, x, times)


def ancestral(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, variance: Variance | None = None, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    r"""$x_s=\tilde\mu(x_t,\hat x_0)+\tau z$: the mean of $q(x_s\mid x_t,x_0)$ with the denoised image in place of $x_0$. Ho et al. 2020, algorithm 2.

    variance: `(schedule, x, s, t) -> tau^2`, a scalar, (B,) or like x: `posterior_variance` (the default), `transition_variance` or another of
    `diffusion_core.variance`. The step to sigma = 0 is noiseless.

    >>> import torch
    >>> from diffusion_core import LinearVP, ancestral, ddim, last, ring, uniform
    >>> schedule, seeded = LinearVP(), torch.Generator()
    >>> denoise = ring().denoiser(schedule)
    >>> walk = denoise, schedule, schedule.noise((100, 2)), uniform(20)
    >>> x = last(ancestral(*walk, generator=seeded.manual_seed(0)))
    >>> y = last(ddim(*walk, eta=1.0, generator=seeded.manual_seed(0)))
    >>> torch.allclose(x, y, atol=1e-4)
    True
    """
    variance = posterior_variance if variance is None else variance
    require_callable(variance, "variance", "(schedule, x, s, t) -> tau^2, such as posterior_variance")
    denoise, times, _, sigma = checked_grid(denoise, schedule, x, times)
    with torch.no_grad():
        c_0, c_x, _ = schedule.posterior(times[1:], times[:-1])
        known = variance in (posterior_variance, transition_variance)  # the same for every state: the whole grid at once
        taus = variance(schedule, x, times[1:], times[:-1]).sqrt() if known else torch.empty(0)
    yield x
    for i, (c_image, c_state) in enumerate(zip(c_0.tolist(), c_x.tolist())):
        s, t = times[i + 1], times[i]
        mean = c_image * denoise(x, t) + c_state * x
        if sigma[i + 1] > 0:
            tau = taus[i] if known else torch.sqrt(variance(schedule, x, s, t))
            x = mean + (per_sample(tau, x) if tau.ndim < 2 else tau.to(x.device, x.dtype)) * normal_like(x, generator)
        else:
            x = mean
        yield x
    yield from floor_step(denoise, schedule, x, times)


def ddim_inversion(denoise: Denoise, schedule: Schedule, x0: Tensor, times: Tensor) -> Iterator[Tensor]:
    r"""From data to noise: $x_t=\alpha_t\hat x_0(x_s,s)+\sigma_t\hat\epsilon(x_s,s)$ along the reversed grid, the walk of `ddim` with eta = 0 backward. Song et al. 2021 (DDIM), section 4.3.

    x0: (B, *D), where `ddim` on the same decreasing grid `times` ends. Yields x0 and the state at each time, the noise at times[0] last. Each step is
    an Euler step in $(x/\alpha,\sigma/\alpha)$ with the noise predicted at its start, while `ddim` predicts it at the other end: the round trip is off by the order of a step.

    Data carry no noise to predict ($\sigma=0$ and the denoiser is not called there): the first noisy time t predicts it, from $\alpha_tx_0$. On a path with a floor
    and a grid that ends at t = 0, that time is 0 itself, and the states are one more, as in `ddim`. Raises ValueError for a bad grid.

    >>> import torch
    >>> from diffusion_core import LinearVP, ddim, ddim_inversion, last, ring, uniform
    >>> schedule, denoise = LinearVP(), ring().denoiser(LinearVP())
    >>> x0 = ring().sample(20, torch.Generator().manual_seed(0))
    >>> code = last(ddim_inversion(denoise, schedule, x0, uniform(200)))
    >>> back = last(ddim(denoise, schedule, code, uniform(200)))
    >>> (back - x0).abs().mean().item() < 0.02
    True
    """
    denoise, times, alpha, sigma = checked_grid(denoise, schedule, x0, times)
    path = list(zip(times, alpha.tolist(), sigma.tolist()))[::-1]
    yield x0
    x = x0
    (s, a_s, s_s), later = path[0], path[1:]
    if s == 0:
        if s_s == 0:
            s, a_s, s_s = later.pop(0)
        x = a_s * x0
        x = a_s * x0 + (x - a_s * denoise(x, s))
        yield x
    for t, a_t, s_t in later:
        image = denoise(x, s)
        x = a_t * image + (s_t / s_s) * (x - a_s * image)
        yield x
        s, a_s, s_s = t, a_t, s_t


def last(states: Iterable[Tensor]) -> Tensor:
    """The sample: the last state of a sampler. Raises ValueError when there is none.

    >>> from diffusion_core import LinearVP, ddim, last, ring, uniform
    >>> schedule, denoise = LinearVP(), ring().denoiser(LinearVP())
    >>> states = list(ddim(denoise, schedule, schedule.noise((5, 2)), uniform(10)))
    >>> len(states), last(states) is states[-1]
    (11, True)
    """
    if isinstance(states, Tensor):
        raise ValueError(f"last takes the states that a sampler yields, got one tensor of shape {tuple(states.shape)}: last(ddim(...))")
    state = None
    for state in states:
        pass
    if state is None:
        raise ValueError("the sampler yielded no state, so there is no last one; was it walked to its end before?")
    return state


def floor_step(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor) -> Iterator[Tensor]:
    """The denoising step that ends a grid at t = 0 on a path with a floor."""
    if times[-1] == 0 and schedule(times[-1])[1] > 0:
        yield denoise(x, times[-1])
