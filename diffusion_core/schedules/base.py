r"""The Gaussian path $x_t = \alpha_t x_0 + \sigma_t\epsilon$, $\epsilon\sim\mathcal N(0, I)$, $t=0$ data, $t=1$ noise.

A family, yours too, is a subclass of `Schedule` that says in `_alpha` and `_sigma2` what the two are, in `_time` how to invert the
log-SNR; everything else (rates, drift, diffusion, transitions, posteriors) is derived here, in float64, and cast to the dtype of `t` last.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_core.doors import drawn_on, named

Time = Tensor | float


class Posterior(NamedTuple):
    r"""$q(x_s\mid x_t,x_0)=\mathcal N(c_0x_0+c_tx_t,\ \tilde\beta I)$ as (coef_x0, coef_xt, variance): what `Schedule.posterior` returns.

    >>> from diffusion_core import CosineVP
    >>> # a step to clean data: the image, and no noise
    >>> coef_x0, coef_xt, variance = CosineVP().posterior(0.0, 0.5)
    >>> coef_x0.item(), coef_xt.item(), variance.item()
    (1.0, 0.0, 0.0)
    """

    coef_x0: Tensor
    coef_xt: Tensor
    variance: Tensor


def per_sample(coefficient: Time, x: Tensor) -> Tensor:
    """A coefficient, scalar or (B,), as something that multiplies `x` (B, *D): shape () or (B, 1, ..., 1), dtype and device of x.

    >>> import torch
    >>> from diffusion_core import per_sample
    >>> per_sample(torch.tensor([0.5, 2.0]), torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 1, 1, 1])
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a floating tensor of shape (B, *D), got {type(x).__name__}")
    coefficient = (coefficient if isinstance(coefficient, Tensor) else double(coefficient)).to(x.device, x.dtype)
    if coefficient.ndim == 0:
        return coefficient
    if coefficient.shape != x.shape[:1]:
        raise ValueError(f"one coefficient a sample is needed: got shape {tuple(coefficient.shape)} for x of shape {tuple(x.shape)}; pass a scalar t or one of shape ({x.shape[0] if x.ndim else 1},)")
    return coefficient.reshape(-1, *[1] * (x.ndim - 1))


def double(value: Time | Sequence[float]) -> Tensor:
    """A number or tensor in float64, on its device (on the CPU for devices that lack float64).

    >>> import torch
    >>> from diffusion_core.schedules import double
    >>> double(0.5), double(torch.ones(2)).dtype
    (tensor(0.5000, dtype=torch.float64), torch.float64)
    """
    if isinstance(value, Tensor) and value.device.type == "mps":
        value = value.cpu()
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"expected a number or a tensor of numbers, got {type(value).__name__} {value!r:.40}") from error


def require_path(schedule: object) -> None:
    """Raises ValueError unless it is a schedule."""
    if not isinstance(schedule, Schedule):
        raise ValueError(f"schedule must be a Schedule such as LinearVP(), got {named(schedule)}")


def normal_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of x, drawn on the generator's device.

    Several processes that share a batch hand over a `training.processes.Share` in place of a generator: this process's rows of the whole batch's noise.

    >>> import torch
    >>> from diffusion_core.schedules import normal_like
    >>> x = torch.zeros(1000, 2, dtype=torch.float64)
    >>> noise = normal_like(x, torch.Generator().manual_seed(0))
    >>> noise.shape == x.shape, noise.dtype == x.dtype, round(noise.std().item(), 1)
    (True, True, 1.0)
    """
    share = getattr(generator, "normal_like", None)
    if share is not None:
        return share(x)
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=drawn_on(generator, x.device)).to(x.device)


class Schedule(ABC):
    """`schedule(t) -> (alpha, sigma)` for t in [0, 1], a scalar or (B,); both come in the shape and floating dtype of t (float64 for numbers).

    >>> import torch
    >>> from diffusion_core import Schedule
    >>> class Quadratic(Schedule):  # a path of your own: alpha = 1 - t^2, sigma = t
    ...     def _alpha(self, t): return 1 - t**2
    ...     def _sigma2(self, t): return t**2
    ...     def _time(self, log_snr):
    ...         snr = torch.exp(log_snr)
    ...         return 2 / (torch.sqrt(snr) + torch.sqrt(snr + 4))
    >>> path = Quadratic()
    >>> round(path.time(path.log_snr(0.3)).item(), 6), path.rates(0.5)[0].item()
    (0.3, -1.0)
    """

    @abstractmethod
    def _alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _sigma2(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _time(self, log_snr: Tensor) -> Tensor: ...

    def _sigma(self, t: Tensor) -> Tensor:
        return self._sigma2(t).sqrt()

    def _log_snr(self, t: Tensor) -> Tensor:
        """The log-SNR in float64, +-inf where sigma or alpha is 0."""
        return 2 * (self._alpha(t).log() - self._sigma(t).log())

    def __call__(self, t: Time) -> tuple[Tensor, Tensor]:
        r"""$(\alpha_t,\sigma_t)$. Raises ValueError for t outside [0, 1]."""
        u = _checked(t)
        return _like(self._alpha(u), t), _like(self._sigma(u), t)

    def log_snr(self, t: Time) -> Tensor:
        r"""$\lambda_t=\log(\alpha_t^2/\sigma_t^2)$. Raises ValueError where it is infinite."""
        return _like(self._log_snr(self._interior(t, "the log-SNR")), t)

    def log_snr_range(self) -> tuple[float, float]:
        """The lowest (t = 1) and highest (t = 0) log-SNR of the path, infinite where alpha or sigma is 0."""
        with torch.no_grad():
            low, high = self._log_snr(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
        return low, high

    def time(self, log_snr: Time) -> Tensor:
        r"""The t at which $\lambda_t$ equals `log_snr`: the inverse of `log_snr`. An infinite value is the end that reaches it.

        Raises ValueError for a value that the path never takes.
        """
        lam = double(log_snr)
        low, high = self.log_snr_range()
        slack, rounding = 1e-6, 1e-14
        if not bool(((lam <= high + slack) & (lam >= low - slack)).all()):
            raise ValueError(f"{type(self).__name__} takes log-SNRs from {low:.4g} to {high:.4g}; asked for {float(lam.min()):.4g} to {float(lam.max()):.4g}. Choose values inside, or a schedule with a wider range")
        t = self._time(lam.clamp(low, high)).clamp(0, 1)
        at_data, at_noise = lam >= high - rounding * abs(high), lam <= low + rounding * abs(low)
        return _like(torch.where(at_data, 0.0, torch.where(at_noise, 1.0, t)), log_snr)

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        r"""$(\dot\alpha_t,\dot\sigma_t)$ by forward-mode differentiation. Raises ValueError where one is infinite ($\dot\sigma$ at t = 0 of VP paths with $\sigma(0)=0$, $\dot\alpha$ of `SigmoidVP` at t = 1)."""
        u = _checked(t)
        rates = self._rates(u, self._alpha, self._sigma)
        if not all(bool(rate.isfinite().all()) for rate in rates):
            raise ValueError(f"the rates of {type(self).__name__} are infinite at one of the times asked for, {_shown(u)}: a square root begins at t = 0 on variance-preserving paths and ends at t = 1 on SigmoidVP. Keep t away from that end")
        return _like(rates[0], t), _like(rates[1], t)

    @staticmethod
    def _rates(t: Tensor, *functions: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        return torch.func.jvp(lambda u: tuple(f(u) for f in functions), (t,), (torch.ones_like(t),))[1]

    def drift(self, t: Time) -> Tensor:
        r"""$f(t)=\dot\alpha_t/\alpha_t$ of the SDE $dx=f(t)x\,dt+g(t)\,dw$ with this path's marginals. Raises ValueError where the SNR is 0 or infinite."""
        u = self._interior(t, "the drift")
        return _like(self._drift(u), t)

    def _drift(self, u: Tensor) -> Tensor:
        return self._rates(u, self._alpha)[0] / self._alpha(u)

    def diffusion2(self, t: Time) -> Tensor:
        r"""$g^2(t)=\frac{d\sigma_t^2}{dt}-2f(t)\sigma_t^2$. Raises ValueError where the SNR is 0 or infinite."""
        u = self._interior(t, "g^2")
        return _like(self._rates(u, self._sigma2)[0] - 2 * self._drift(u) * self._sigma2(u), t)

    def transition(self, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        r"""$(\alpha_{t|s},\sigma^2_{t|s})$ of $q(x_t\mid x_s)$ for s < t: $\alpha_t/\alpha_s$ and $\sigma_t^2-\alpha_{t|s}^2\sigma_s^2$.

        The variance is computed as $-\sigma_t^2\,\mathrm{expm1}(\lambda_t-\lambda_s)$: one form for every path, exact where $\sigma_s$ or $\alpha_t$ is 0. For s
        near t it loses digits as the difference does: it is off by some roundings of $\sigma_t^2$.
        """
        u, v, ratio = self._pair(s, t)
        return _like(self._alpha(v) / self._alpha(u), t), _like(self._sigma2(v) * ratio, t)

    def posterior(self, s: Time, t: Time) -> Posterior:
        r"""$q(x_s\mid x_t,x_0)$ for s < t: mean $\alpha_s\frac{\sigma^2_{t|s}}{\sigma_t^2}x_0+\alpha_{t|s}\frac{\sigma_s^2}{\sigma_t^2}x_t$, variance $\sigma^2_{t|s}\frac{\sigma_s^2}{\sigma_t^2}$ (Ho et al. 2020, eq. 6-7, on any path)."""
        u, v, ratio = self._pair(s, t)
        kept = (self._sigma(u) / self._sigma(v)) ** 2
        coef_xt = self._alpha(v) / self._alpha(u) * kept
        return Posterior(_like(self._alpha(u) * ratio, t), _like(coef_xt, t), _like(self._sigma2(u) * ratio, t))

    def _pair(self, s: Time, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        r"""Checked s < t in float64 and $\sigma^2_{t|s}/\sigma_t^2=1-e^{\lambda_t-\lambda_s}$."""
        u, v = _checked(s), _checked(t)
        u = u.to(v.device)
        if u.ndim and v.ndim and u.shape != v.shape:
            raise ValueError(f"s and t must be scalars or have one shape (B,), got {tuple(u.shape)} and {tuple(v.shape)}")
        if not bool((u < v).all()):
            raise ValueError("a transition runs from s to a later t: every s must be smaller than its t (t = 1 is noise)")
        return u, v, -torch.expm1(self._log_snr(v) - self._log_snr(u))

    def noise(self, shape: Sequence[int], generator: torch.Generator | None = None, dtype: torch.dtype | None = None, device: torch.device | str | None = None, t: float | Tensor = 1.0) -> Tensor:
        r"""$\sigma_t\epsilon$ at one time: what sampling starts from, with t = `times[0]` where a grid starts below 1. Drawn on the generator's device, then moved to `device`."""
        sizes = torch.Size((shape,) if isinstance(shape, int) else shape)
        if min(sizes, default=0) < 0 or (dtype is not None and not dtype.is_floating_point):
            raise ValueError(f"noise needs sizes of at least 0 and a floating dtype, got {tuple(sizes)} and {dtype}")
        eps = torch.randn(sizes, generator=generator, dtype=dtype, device=drawn_on(generator, device))
        return (per_sample(self._sigma(_checked(t)).detach(), eps) * eps).to(device if device is not None else eps.device)

    def same(self, other: "Schedule") -> bool:
        """Whether the other is the same path: the same family, with equal alpha and sigma at 257 times."""
        if self is other:
            return True
        t = torch.linspace(0, 1, 257, dtype=torch.float64)
        return type(self) is type(other) and all(torch.equal(a, b) for a, b in zip(self(t), other(t)))

    def _interior(self, t: Time, what: str) -> Tensor:
        u = _checked(t)
        if not bool(self._log_snr(u).isfinite().all()):
            raise ValueError(f"{what} of {type(self).__name__} lives where the signal-to-noise ratio is neither 0 nor infinite; it was asked for at t = {_shown(u)}. Keep t inside (0, 1), or use the denoised image, which exists at both ends")
        return u


def _checked(t: Time) -> Tensor:
    """t in float64, inside [0, 1]."""
    t = double(t)
    if t.ndim > 1:
        raise ValueError(f"t is a scalar or of shape (B,), got shape {tuple(t.shape)}")
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"t must lie in [0, 1] (0 is data, 1 is noise), got {_shown(t)}. A DDPM index i of N steps is t = i / N")
    return t


def _shown(t: Tensor) -> str:
    return f"{float(t):.4g}" if t.ndim == 0 else f"{float(t.min()):.4g} to {float(t.max()):.4g}"


def _like(value: Tensor, t: Time) -> Tensor:
    """Cast last: to the dtype and device of t when it is a floating tensor; float64 otherwise."""
    if isinstance(t, Tensor):
        return value.to(t.device, t.dtype if t.is_floating_point() else torch.float64)
    return value
