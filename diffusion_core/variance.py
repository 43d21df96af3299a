r"""Reverse variances $\tau^2$: what `ancestral` and the variational bound ask for, as functions `(schedule, x, s, t) -> tau^2`.

Two need no data, $\tilde\beta$ (`posterior_variance`) and $\beta$ (`transition_variance`); one is measured on data once (`analytic_variance`), one is
predicted by the network, pixel by pixel (`LearnedVariance`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_core.denoiser import Denoise, Denoiser, answering, knowing, require_schedule
from diffusion_core.schedules import Schedule, double, normal_like, per_sample

__all__ = ["LearnedVariance", "analytic_variance", "posterior_variance", "range_variance", "transition_variance"]

Variance = Callable[[Schedule, Tensor, Tensor, Tensor], Tensor]


def posterior_variance(schedule: Schedule, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    r"""$\tilde\beta$: $\sigma_{t|s}^2\sigma_s^2/\sigma_t^2$, the variance of $q(x_s\mid x_t,x_0)$; right for data at one point.

    >>> import torch
    >>> from diffusion_core import LinearVP, posterior_variance, transition_variance
    >>> schedule, s, t = LinearVP(), torch.tensor(0.4), torch.tensor(0.5)
    >>> step = schedule, torch.zeros(1), s, t
    >>> ratio = posterior_variance(*step) / transition_variance(*step)
    >>> torch.allclose(ratio, (schedule(s)[1] / schedule(t)[1]) ** 2)
    True
    """
    return schedule.posterior(s, t).variance


def transition_variance(schedule: Schedule, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    r"""$\beta$: $\sigma_{t|s}^2$, the variance of $q(x_t\mid x_s)$; right for data from $\mathcal N(0,I)$ on a VP path.

    >>> import torch
    >>> from diffusion_core import LinearVP, transition_variance
    >>> schedule, s, t = LinearVP(), torch.tensor(0.0), torch.tensor(0.5)
    >>> beta = transition_variance(schedule, torch.zeros(1), s, t)
    >>> torch.allclose(beta, schedule(t)[1] ** 2)  # from clean data to t
    True
    """
    return schedule.transition(s, t)[1]


def range_variance(schedule: Schedule, v: Tensor, s: Tensor, t: Tensor) -> Tensor:
    r"""$\tau^2=\exp\big(w\log\beta+(1-w)\log\tilde\beta\big)$ with $w=(v+1)/2$. Nichol and Dhariwal 2021, eq. 15.

    v: (B, *D), the network's raw output: -1 is $\tilde\beta$, 1 is $\beta$, and nothing keeps it between them. s, t: scalars or (B,). Returns (B, *D) in
    v's dtype. At a step to $\sigma_s=0$, where $\tilde\beta=0$ has no logarithm, its place is taken by the $\tilde\beta$ of the step before on a grid of equal
    strides, from 2t - s (at most 1) to t: on DDPM's grid $\tilde\beta_2$, as in the paper's code. Raises ValueError when there is no such step: a grid of one.

    >>> import torch
    >>> from diffusion_core import LinearVP, posterior_variance, transition_variance
    >>> from diffusion_core.variance import range_variance
    >>> v = torch.tensor([[-1.0, 1.0]])
    >>> step = LinearVP(), v, torch.tensor(0.4), torch.tensor(0.5)
    >>> ends = torch.stack([posterior_variance(*step), transition_variance(*step)])
    >>> torch.allclose(range_variance(*step), ends)
    True
    """
    t = double(t)
    s = double(s).to(t.device)
    s, t = torch.broadcast_tensors(s, t)
    noiseless = schedule(s)[1] == 0
    if bool((noiseless & (t >= 1)).any()):
        raise ValueError("the learned variance of a step to sigma = 0 borrows the lower end of its range from the step before, and a grid of one step has none; take at least two steps")
    lower = schedule.posterior(torch.where(noiseless, t, s), torch.where(noiseless, (2 * t - s).clamp(max=1), t)).variance.log()
    upper = schedule.transition(s, t)[1].log()
    w = (v + 1) / 2
    return torch.exp(per_sample(lower, v) + w * per_sample(upper - lower, v))


class LearnedVariance:
    r"""The variance that a network with `learned_variance=True` predicts, `range_variance` of its second output.

    `variance(schedule, x, s, t)` is (B, *D). cond: goes to the network, such as `label=y`.

    The mean and the variance of a step come from one call of the network. `variance.denoise` is the denoiser, and keeps the second output until
    the variance at the same state and time is asked for, so that `ancestral(variance.denoise, schedule, x, times, variance)` calls the network once a
    step; with the plain denoiser in its place it is called twice, with the same result.
    Raises ValueError for a network without that output, and on another schedule than the denoiser's.

    >>> import torch
    >>> from diffusion_core import MLP, Denoiser, LearnedVariance, LinearVP, targets
    >>> from diffusion_core import posterior_variance, transition_variance
    >>> denoiser = Denoiser(MLP(2, learned_variance=True), LinearVP(), targets.eps)
    >>> variance = LearnedVariance(denoiser)
    >>> step = LinearVP(), torch.zeros(1, 2), torch.tensor(0.4), torch.tensor(0.5)
    >>> middle = (posterior_variance(*step) * transition_variance(*step)).sqrt()
    >>> # an untrained network says 0: the geometric mean
    >>> torch.allclose(variance(*step), middle)
    True
    """

    def __init__(self, denoiser: Denoiser, **cond: Any):
        if not isinstance(denoiser, Denoiser):
            raise ValueError(f"a learned variance is an output of a Denoiser's network, got {type(denoiser).__name__}; use posterior_variance, transition_variance or analytic_variance")
        denoiser.require_variance()
        self.denoiser, self.cond = denoiser, cond
        self._kept: tuple[Tensor, int, Tensor, Tensor] | None = None  # x, its version, t and the second output

        def denoise(x: Tensor, t: Tensor | float, **more: Any) -> Tensor:
            y, v = denoiser.predict_with_variance(x, t, **{**cond, **more})
            self._kept = x, x._version if not x.is_inference() else 0, double(t), v
            return denoiser.image(x, t, y)

        self.denoise = knowing(denoise, denoiser.schedule)

    def __call__(self, schedule: Schedule, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        require_schedule(self.denoiser, schedule)
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] is x and (x.is_inference() or kept[1] == x._version) and torch.equal(kept[2], double(t)):
            v = kept[3]
        else:
            v = self.denoiser.predict_with_variance(x, t, **self.cond)[1]
        return range_variance(schedule, v, s, t)


@torch.no_grad()
def analytic_variance(denoise: Denoise, schedule: Schedule, x0: Tensor, times: Tensor, generator: torch.Generator | None = None, **cond: Any) -> Variance:
    r"""$\tau^2=\tilde\beta+c_0^2\,V_t$, $V_t=\frac1D\mathbb E\,\mathrm{tr\,Cov}[x_0\mid x_t]$: the best variance that is one number a step. Bao et al. 2022, theorem 1.

    $c_0$ is the coefficient of $x_0$ in the mean of $q(x_s\mid x_t,x_0)$. $V_t=\frac{\sigma^2}{\alpha^2}\big(1-\frac1D\mathbb E\|\hat\epsilon\|^2\big)$, from the mean square of the noise prediction; for
    an exact denoiser that is also $\frac1D\mathbb E(\|x_0\|^2-\|\hat x_0\|^2)$, which exists at $\alpha=0$ too. Where the SNR is above 1 the first is
    estimated, elsewhere the second: that way the Monte Carlo error is multiplied by no more than 1. A negative estimate becomes 0.

    x0: (n, *D) data; each time of the grid gets one noise for each of them, in one call of the denoiser. times: the sampler's decreasing grid.
    cond: goes to the denoiser at every call, such as `label=y`.
    Returns a variance for the steps of that grid, and at a last one to $\sigma=0$ that is $V_t$, which serves a decoder; asked about another step it raises ValueError.

    >>> import torch
    >>> from diffusion_core import Gaussian, LinearVP, uniform
    >>> from diffusion_core import analytic_variance, transition_variance
    >>> schedule, times, data = LinearVP(), uniform(10), Gaussian([0.0], 1.0)
    >>> denoise, seeded = data.denoiser(schedule), torch.Generator().manual_seed(0)
    >>> x0 = data.sample(20_000, seeded)
    >>> variance = analytic_variance(denoise, schedule, x0, times, seeded)
    >>> step = schedule, torch.zeros(1, 1), times[5], times[4]
    >>> # for N(0, I), beta is the best
    >>> round((variance(*step) / transition_variance(*step)).item(), 1)
    1.0
    """
    require_schedule(denoise, schedule)
    if not (isinstance(x0, Tensor) and x0.is_floating_point() and x0.ndim >= 1 and len(x0) > 0):
        raise ValueError("x0 must be a floating tensor of data, (n, *D) with n at least 1")
    times = double(times).detach().cpu()
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() < 0).all()):
        raise ValueError("times must be a grid of at least two strictly decreasing times, noise first, such as uniform(50)")
    spread = []
    for t, alpha, sigma in zip(times[:-1], *(level.tolist() for level in schedule(times[:-1]))):
        x_t = alpha * x0 + sigma * normal_like(x0, generator)
        image = answering(denoise)(x_t, t, **cond)
        if alpha > sigma:
            spread.append((sigma / alpha) ** 2 * (1 - double((x_t - alpha * image) / sigma).square().mean()))
        else:
            spread.append(double(x0).square().mean() - double(image).square().mean())
    coef_x0, _, tilde = schedule.posterior(times[1:], times[:-1])
    tau2 = tilde + coef_x0**2 * torch.stack(spread).cpu().clamp(min=0)

    def variance(schedule_: Schedule, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        s, t = torch.broadcast_tensors(double(s).cpu(), double(t).cpu())
        step = (t.unsqueeze(-1) - times[:-1]).abs().argmin(-1)
        if not schedule.same(schedule_) or not bool((((t - times[step]).abs() < 1e-6) & ((s - times[step + 1]).abs() < 1e-6)).all()):
            raise ValueError("this variance was measured on the steps of one grid and one path; call analytic_variance again for the times that you sample on")
        return tau2[step]

    return variance
