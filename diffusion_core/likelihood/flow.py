r"""The exact likelihood of the probability flow, and its codes: one adaptive ODE solve. Derived in chapter 16.

In $\bar x=x/\alpha$ and $u=\log\varsigma$, $\varsigma=\sigma/\alpha$, the flow of every Gaussian path reads the same, with the denoiser $\hat x_0(x,t)$ and $D$ coordinates:

$$\frac{d\bar x}{du}=\bar x-\hat x_0(\alpha\bar x,t),$$

$$\log p_{t_{min}}(\bar x)=\log p_{t_{max}}(\bar x_{t_{max}})+\int_{u_{min}}^{u_{max}}\Big(D-\mathrm{tr}\frac{\partial\hat x_0(\alpha\bar x,t)}{\partial\bar x}\Big)\,du$$

(Chen et al. 2018; Grathwohl et al. 2019; Song et al. 2021 (SDE), eq. 39; here on $\bar x$). The solver is torchdiffeq's dopri5. Its step is common to the batch, and so small that each
sample's estimated error, root mean square over its coordinates, is within atol + rtol |state|: no sample hides behind the others.

Precision: the state and the integral are float64, on the CPU for devices that lack it, because they add up hundreds of steps, $\bar x$ grows to $\varsigma$ (150 on
`LinearVP`), and an error estimate of 1e-5 is then below the rounding of float32. The denoiser gets x in the dtype and on the device of x0; its own rounding limits the tolerance that can
be reached: with float32 not much below 1e-5. Nothing here carries a graph: for a loss that trains through the flow, see `jacobians`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_core import jacobians
from diffusion_core.denoiser import Denoise, require_schedule
from diffusion_core.extras import needing
from diffusion_core.likelihood.gaussians import per_sample_sum
from diffusion_core.likelihood.units import bits_per_dim
from diffusion_core.schedules import Schedule, double

MOST_CALLS = 20_000  # of the denoiser, then a solve gives up; a smooth one takes a few hundred
Trace = Callable[[jacobians.Field, Tensor], tuple[Tensor, Tensor]]


class ODELikelihood(NamedTuple):
    r"""The log-density of $x_t/\alpha_t$ at t_min in nats, its parts, and what it may be off by: (B,) each, except the code (B, *D).

    log_prob: prior + divergence. prior: $\log\mathcal N(\bar x;0,\varsigma^2I)$ at the code. divergence: the integral. code: $x$ at t_max, on the path's own scale.

    Errors have a sign, reported minus true, so that subtracting them corrects; they are estimates, exact in the limits that are named, for an exact denoiser.
    prior_error: $\log\mathcal N(\bar x;0,\varsigma^2I)-\log p_{t_{max}}(\bar x)$ at the code, up to $O(\varsigma_{max}^{-3})$. Its size is $\|\mathbb E x_0\|/\varsigma_{max}$, its mean over the data $-\mathrm{KL}(p_{t_{max}}\|\mathcal N)$.
    prior_bound: $\|x_0\|^2/(2\varsigma_{max}^2)$, whose mean over the data bounds that KL from above, whatever the denoiser. It does not bound the error of one sample.
    end_error: $\log p_{t_{min}}(x_0)-\log p_0(x_0)$, up to $O(\varsigma_{min}^4)$; where it is not small, x0 has no density without noise that is smooth on the scale $\varsigma_{min}$.
    evaluations: calls of the denoiser on the batch, three of them for the errors. With trace="exact" each is followed by `dims` backward passes, else by one.

    >>> import torch
    >>> from diffusion_core import Gaussian, LinearVP, ode_log_likelihood
    >>> data = Gaussian([2.0, 0.0], 0.25)
    >>> denoise, x0 = data.denoiser(LinearVP()), data.sample(4)
    >>> found = ode_log_likelihood(denoise, LinearVP(), x0, t_min=0.01)
    >>> torch.equal(found.log_prob, found.prior + found.divergence), found.code.shape
    (True, torch.Size([4, 2]))
    """

    log_prob: Tensor
    prior: Tensor
    divergence: Tensor
    code: Tensor
    prior_error: Tensor
    prior_bound: Tensor
    end_error: Tensor
    evaluations: int
    dims: int

    def bits_per_dim(self, levels: int | None = None) -> Tensor:
        """(B,) bits a dimension. levels: for data on [-1, 1], dequantized uniformly from that many values (`bits_per_dim`)."""
        return bits_per_dim(-self.log_prob, self.dims, levels)


@torch.no_grad()
def ode_log_likelihood(
    denoise: Denoise, schedule: Schedule, x0: Tensor, t_min: float, t_max: float = 1.0, trace: str = "exact", atol: float = 1e-5, rtol: float = 1e-5,
    generator: torch.Generator | None = None, **cond: Any,
) -> ODELikelihood:
    r"""The log-density that the probability flow from $\mathcal N(0,\sigma^2I)$ at t_max gives to $x_t/\alpha_t=x_0$ at t = t_min, in nats.

    trace: "exact", D backward passes a call; "rademacher" or "gaussian", Hutchinson's estimate with one probe a sample, drawn once and kept for the whole solve, as the
    adaptive solver needs a smooth field: unbiased for the log-density (its exponential is not unbiased for the density). Average several runs for less noise.

    x0: (B, *D), continuous data; add uniform noise to discrete values first. cond: goes to the denoiser at every call, such as `label=y`.
    Raises ValueError for t_min with sigma = 0, for t_max with alpha = 0, for a denoiser of another path or one that returns another shape or numbers that are not finite;
    RuntimeError for one too rough for the solver; ImportError without torchdiffeq.

    Estimates of the errors, with $J=\partial\hat x_0/\partial\bar x$ (all by the chosen trace):
    - at t_min, from the heat equation $\partial p/\partial\varsigma^2=\frac12\Delta p$: $\frac{\varsigma^2}2\big(\mathrm{tr}\nabla^2\log p+\|\nabla\log p\|^2\big)=\frac12\big(\mathrm{tr}J-D+\|\hat x_0-\bar x\|^2/\varsigma^2\big)$;
    - at t_max, from $\nabla\log(p/\mathcal N)=\hat x_0/\varsigma^2$ and its value at 0, $\log\mathbb E\,e^{-\|x_0\|^2/2\varsigma^2}$: $-\big(\bar x^\top\hat x_0-\frac12\bar x^\top J\bar x-\frac12\|\hat x_0\|^2\big)/\varsigma^2+\frac12\mathrm{tr}J$.

    >>> import math
    >>> import torch
    >>> from diffusion_core import Gaussian, LinearVP, ode_log_likelihood
    >>> denoise = Gaussian([0.0, 0.0], 1.0).denoiser(LinearVP())
    >>> found = ode_log_likelihood(denoise, LinearVP(), torch.zeros(1, 2), t_min=1e-3)
    >>> round(found.log_prob.item(), 2), round(-math.log(2 * math.pi), 2)
    (-1.84, -1.84)
    """
    flow = _Flow(denoise, schedule, x0, t_min, t_max, cond)
    flow.trace = _trace(trace, x0, generator)
    x, dims, (low, high) = double(x0.detach()), x0[0].numel(), flow.ends
    total = lambda values: per_sample_sum(values, x)

    image, change = flow.image(low, x)
    end_error = 0.5 * (change - dims + total((image - x).square()) * math.exp(-2 * low))

    noisy, divergence = flow.solve((x, x.new_zeros(len(x))), low, high, atol, rtol)
    prior = -0.5 * total(noisy.square()) * math.exp(-2 * high) - dims * (high + 0.5 * math.log(2 * math.pi))

    image, change = flow.image(high, noisy)
    flow.trace = partial(jacobians.hutchinson, probes=noisy[None].to(x0.device, x0.dtype))
    curvature = flow.image(high, noisy)[1]
    prior_error = 0.5 * change - (total(noisy * image - 0.5 * image.square()) - 0.5 * curvature) * math.exp(-2 * high)
    prior_bound = 0.5 * total(x.square()) * math.exp(-2 * high)
    return ODELikelihood(prior + divergence, prior, divergence, flow.to_path(noisy, t_max), prior_error, prior_bound, end_error, flow.evaluations, dims)


@torch.no_grad()
def ode_encode(
    denoise: Denoise, schedule: Schedule, x0: Tensor, t_min: float, t_max: float = 1.0, atol: float = 1e-5, rtol: float = 1e-5, **cond: Any,
) -> Tensor:
    r"""The code of x0: follow the flow from $\bar x=x_0$ at t_min to t_max, where $x=\alpha\bar x$, (B, *D), is nearly $\mathcal N(0,\sigma^2I)$ for data of the denoiser's law.

    The code of `ode_log_likelihood`, without its divergence; raises as it does. cond: goes to the denoiser at every call, such as `label=y`.

    >>> import torch
    >>> from diffusion_core import Gaussian, LinearVP, ode_encode
    >>> x0 = torch.tensor([[1.0], [2.0], [4.0]])
    >>> denoise = Gaussian([2.0], 0.25).denoiser(LinearVP())
    >>> code = ode_encode(denoise, LinearVP(), x0, t_min=1e-3)
    >>> # the flow of a Gaussian standardizes
    >>> torch.allclose(code, (x0 - 2) / 0.5, atol=0.05)
    True
    """
    flow = _Flow(denoise, schedule, x0, t_min, t_max, cond)
    return flow.to_path(flow.solve((double(x0.detach()),), *flow.ends, atol, rtol)[0], t_max)


@torch.no_grad()
def ode_decode(
    denoise: Denoise, schedule: Schedule, code: Tensor, t_min: float, t_max: float = 1.0, atol: float = 1e-5, rtol: float = 1e-5, **cond: Any,
) -> Tensor:
    r"""$\bar x=x/\alpha$ at t_min, (B, *D), of the flow that ends in the code x at t_max: the inverse of `ode_encode`, and a sampler from `schedule.noise(shape, t=t_max)`.

    cond: goes to the denoiser at every call, such as `label=y`. Raises as `ode_log_likelihood` does.

    >>> import torch
    >>> from diffusion_core import Gaussian, LinearVP, ode_decode, ode_encode
    >>> schedule, denoise = LinearVP(), Gaussian([2.0], 0.25).denoiser(LinearVP())
    >>> x0 = torch.tensor([[1.0], [2.0], [4.0]])
    >>> code = ode_encode(denoise, schedule, x0, t_min=0.01)
    >>> torch.allclose(ode_decode(denoise, schedule, code, t_min=0.01), x0, atol=1e-3)
    True
    """
    flow = _Flow(denoise, schedule, code, t_min, t_max, cond)
    start = double(code.detach()) / float(schedule(float(t_max))[0])
    return flow.solve((start,), *flow.ends[::-1], atol, rtol)[0].to(code.device, code.dtype)


class _Flow:
    """The field of the flow for torchdiffeq, on the state (x / alpha,) or, with the integral of the trace, (x / alpha, integral). Counts its calls of the denoiser."""

    def __init__(self, denoise: Denoise, schedule: Schedule, x: Tensor, t_min: float, t_max: float, cond: dict[str, Any]):
        require_schedule(denoise, schedule)
        if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 1 and len(x)):
            raise ValueError(f"the states must be a floating tensor of shape (B, *D) with at least one sample, got {f'{x.dtype} of shape {tuple(x.shape)}' if isinstance(x, Tensor) else type(x).__name__}")
        t_min, t_max = float(t_min), float(t_max)
        if not 0 <= t_min < t_max <= 1:
            raise ValueError(f"need 0 <= t_min < t_max <= 1 (t = 0 is data), got t_min = {t_min} and t_max = {t_max}")
        if float(schedule(t_min)[1]) == 0:
            raise ValueError(f"there is no noise at t_min = {t_min} (sigma = 0), where log(sigma / alpha) is infinite and data may have no density. Take the time at which noise is small, such as float(schedule.time(8.0)), and see end_error")
        if float(schedule(t_max)[0]) == 0:
            raise ValueError(f"there is no signal at t_max = {t_max} (alpha = 0), so there is no scale x / alpha to work in. Take t_max lower, such as float(schedule.time(-10.0)), and see prior_error")
        self.denoise, self.schedule, self.cond, self.times, self.like, self.evaluations = denoise, schedule, cond, (t_min, t_max), x, 0
        self.ends = -0.5 * float(schedule.log_snr(t_min)), -0.5 * float(schedule.log_snr(t_max))
        self.trace: Trace = _no_trace

    def image(self, u: float, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\hat x_0(\alpha\bar x,t)$ at $\log\varsigma=u$, and $\mathrm{tr}\,\partial\hat x_0/\partial\bar x=\alpha\,\mathrm{tr}\,\partial\hat x_0/\partial x$, (B,), by the trace in use."""
        t = double(self.times[self.ends.index(u)]) if u in self.ends else self.schedule.time(-2 * u)
        field = lambda state: self.denoise(state, t, **self.cond)
        noised = self.to_path(x, t)
        image, change = self.trace(field, noised)
        self.evaluations += 1
        image, change = double(image), self.schedule(float(t))[0].item() * double(change)
        if not bool(image.isfinite().all() and change.isfinite().all()):
            raise ValueError(f"the denoiser returned numbers that are not finite, or has a derivative that is not, at t = {float(t):.4g}")
        return image, change

    def to_path(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""$x=\alpha\bar x$ in the dtype and on the device that the denoiser is used to."""
        return (self.schedule(float(t))[0].item() * x).to(self.like.device, self.like.dtype)

    def __call__(self, u: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        low, high = self.ends
        image, change = self.image(min(max(float(u), low), high), state[0])  # the solver's first guess of a step may look beyond the end
        velocity = state[0] - image
        return (velocity, image[0].numel() - change)[: len(state)]

    def callback_step(self, u: Tensor, state: tuple[Tensor, ...], step: Tensor) -> None:
        if not u + step > u or self.evaluations > MOST_CALLS:
            raise RuntimeError(f"the solver gave up at log(sigma / alpha) = {float(u):.4g}, after {self.evaluations} calls of the denoiser, with a step of {float(step):.2g}: the denoiser is rougher there than atol and rtol allow. Put a network into evaluation mode (no dropout), loosen the tolerances (float32 does not reach much below 1e-5), or take t_min later")

    def solve(self, state: tuple[Tensor, ...], start: float, end: float, atol: float, rtol: float) -> tuple[Tensor, ...]:
        """The state at u = end."""
        if not (atol > 0 and rtol >= 0):
            raise ValueError(f"need atol > 0 and rtol >= 0, got {atol} and {rtol}")
        with needing("the adaptive solver", extra="evaluate"):
            from torchdiffeq import odeint
        u = torch.tensor([start, end], dtype=torch.float64, device=state[0].device)
        options = {"norm": _worst_sample, "step_t": u[1:]}  # step_t: the last step ends there, not beyond it
        return tuple(part[-1] for part in odeint(self, state, u, atol=atol, rtol=rtol, method="dopri5", options=options))


def _worst_sample(state: tuple[Tensor, ...]) -> Tensor:
    """The largest, over samples and parts of the state, root mean square over a sample's coordinates."""
    return torch.stack([part.reshape(len(part), -1).square().mean(1).sqrt().max() for part in state]).max()


def _no_trace(field: jacobians.Field, x: Tensor) -> tuple[Tensor, Tensor]:
    """The image alone, for a walk that needs no density."""
    return jacobians.evaluated(field, x), x.new_zeros(len(x))


def _trace(kind: str, x: Tensor, generator: torch.Generator | None) -> Trace:
    if kind == "exact":
        return jacobians.divergence
    if kind not in ("rademacher", "gaussian"):
        raise ValueError(f'trace must be "exact", "rademacher" or "gaussian", got {kind!r}')
    return partial(jacobians.hutchinson, probes=jacobians.draw_probes(x, 1, kind, generator))
