r"""Variance-preserving paths, $\alpha^2+\sigma^2=1$, and sub-VP, which has the same $\alpha$ and less noise. Derived in chapters 03, 07 and 14."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_core.schedules.base import Schedule


class LinearVP(Schedule):
    r"""The continuous DDPM: $\beta(t)=\beta_{min}+(\beta_{max}-\beta_{min})t$, $\alpha^2=e^{-B(t)}$, $\sigma^2=1-e^{-B(t)}$ with $B(t)=\int_0^t\beta$.

    Song et al. 2021 (SDE), eq. 32-33. Raises ValueError unless 0 < beta_min <= beta_max.

    >>> from diffusion_core import LinearVP
    >>> schedule = LinearVP()
    >>> alpha, sigma = schedule(0.5)
    >>> round((alpha**2 + sigma**2).item(), 12)
    1.0
    >>> round(schedule.diffusion2(0.5).item(), 6)  # g^2 is beta(t)
    10.05
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        if not 0 < beta_min <= beta_max < math.inf:
            raise ValueError(f"need 0 < beta_min <= beta_max, got {beta_min} and {beta_max}; the usual values are 0.1 and 20 (N times DDPM's 1e-4 and 0.02 at N = 1000)")
        self.beta_min, self.beta_max = float(beta_min), float(beta_max)

    def integral(self, t: Tensor) -> Tensor:
        r"""$B(t)=\beta_{min}t+\frac12(\beta_{max}-\beta_{min})t^2$."""
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def remaining(self, t: Tensor) -> Tensor:
        r"""$B(1)-B(t)$, which keeps its digits near t = 1."""
        return (1 - t) * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * (1 + t))

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.integral(t))

    def _sigma2(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.integral(t))

    def _time(self, log_snr: Tensor) -> Tensor:
        return self._time_of_integral(torch.logaddexp(torch.zeros_like(log_snr), -log_snr))

    def _time_of_integral(self, integral: Tensor) -> Tensor:
        """The root of the quadratic B(t) = integral, in the form that does not cancel for small t."""
        return 2 * integral / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral))


class SubVP(LinearVP):
    r"""$\alpha=e^{-B/2}$ as in `LinearVP`, $\sigma=1-e^{-B}$: the standard deviation, not the variance. Song et al. 2021 (SDE), eq. 29.

    >>> import torch
    >>> from diffusion_core import LinearVP, SubVP
    >>> (alpha, sigma), (same, vp_sigma) = SubVP()(0.3), LinearVP()(0.3)
    >>> # the noise of the VP path, squared
    >>> torch.equal(alpha, same), torch.allclose(sigma, vp_sigma**2)
    (True, True)
    """

    def _sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.integral(t))

    def _sigma2(self, t: Tensor) -> Tensor:
        return self._sigma(t) ** 2

    def _time(self, log_snr: Tensor) -> Tensor:
        return self._time_of_integral(2 * torch.asinh(0.5 * torch.exp(-0.5 * log_snr)))


class CosineVP(Schedule):
    r"""$\alpha=\cos(\frac{t+s}{1+s}\frac\pi2)\big/\cos(\frac{s}{1+s}\frac\pi2)$, Nichol and Dhariwal 2021, eq. 17.

    Written with sines of the complementary angle $a(t)=\frac\pi2\frac{1-t}{1+s}$, so that $\alpha(1)=0$ exactly, and
    $\sigma^2=\sin(a_0-a)\sin(a_0+a)/\sin^2a_0$, which keeps its digits near t = 0. Raises ValueError unless s > 0.

    >>> from diffusion_core import CosineVP
    >>> schedule = CosineVP()
    >>> alpha, sigma = schedule(1.0)
    >>> alpha.item(), sigma.item()  # no signal at t = 1, to the last digit
    (0.0, 1.0)
    >>> round(schedule.time(0.0).item(), 3)  # where signal and noise are equal
    0.496
    """

    def __init__(self, s: float = 0.008):
        if not 0 < s < math.inf:
            raise ValueError(f"the offset s must be positive, got {s}; the usual value is 0.008")
        self.s = float(s)
        self._quarter = 0.5 * math.pi / (1 + self.s)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.sin(self._quarter * (1 - t)) / math.sin(self._quarter)

    def _sigma2(self, t: Tensor) -> Tensor:
        return torch.sin(self._quarter * t) * torch.sin(self._quarter * (2 - t)) / math.sin(self._quarter) ** 2

    def _time(self, log_snr: Tensor) -> Tensor:
        """From $\\sin a=\\alpha\\sin a_0$ the tangent of $a_0-a$, as a quotient of sums of positive numbers: exact to rounding at both ends."""
        sin, cos = math.sin(self._quarter), math.cos(self._quarter)
        alpha, sigma2 = torch.exp(0.5 * F.logsigmoid(log_snr)), torch.sigmoid(-log_snr)
        cos_a = torch.sqrt(cos**2 + sigma2 * sin**2)
        return torch.atan2(sin * sigma2 / (cos_a + alpha * cos), cos * cos_a + alpha * sin**2) / self._quarter


class SigmoidVP(Schedule):
    r"""$\alpha^2=\frac{S(e)-S(u)}{S(e)-S(b)}$ with $u=b+(e-b)t$ and $S(u)=\mathrm{sigmoid}(u/\tau)$, $b$ = start, $e$ = end. Chen 2023, algorithm 1.

    $\alpha(1)=0$ exactly. Raises ValueError unless start < end and tau > 0.

    >>> from diffusion_core import SigmoidVP
    >>> alpha, sigma = SigmoidVP(-3.0, 3.0)(0.5)
    >>> # symmetric ends: half and half in the middle
    >>> round((alpha**2).item(), 6), round((sigma**2).item(), 6)
    (0.5, 0.5)
    """

    def __init__(self, start: float = -3.0, end: float = 3.0, tau: float = 1.0):
        if not (math.isfinite(start) and math.isfinite(end) and start < end and 0 < tau < math.inf):
            raise ValueError(f"need start < end and tau > 0, got start {start}, end {end}, tau {tau}; the usual values are -3, 3 and 1")
        self.start, self.end = start / tau, end / tau

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.sqrt(self._share(t, -self.end, -self.start, 1 - t))

    def _sigma2(self, t: Tensor) -> Tensor:
        return self._share(t, self.start, self.end, t)

    def _time(self, log_snr: Tensor) -> Tensor:
        from_data = self._elapsed(torch.sigmoid(-log_snr), self.start, self.end)
        from_noise = self._elapsed(torch.sigmoid(log_snr), -self.end, -self.start)
        return torch.where(log_snr > 0, from_data, 1 - from_noise)

    @staticmethod
    def _share(t: Tensor, low: float, high: float, elapsed: Tensor) -> Tensor:
        r"""$\frac{S(u)-S(low)}{S(high)-S(low)}$ at u = low + (high - low) elapsed, by $S(u)-S(l)=S(u)S(-l)(1-e^{l-u})$: nothing cancels or overflows."""
        l, h = t.new_tensor(low), t.new_tensor(high)
        u = l * (1 - elapsed) + h * elapsed
        return torch.sigmoid(u) / torch.sigmoid(h) * torch.expm1((l - h) * elapsed) / torch.expm1(l - h)

    @staticmethod
    def _elapsed(share: Tensor, low: float, high: float) -> Tensor:
        r"""The inverse of `_share`: $u-l=\log(1+ke^{-l})-\log(1-k)$ with $k=S(u)(1-e^{l-u})$, as a share of high - low."""
        l, h = share.new_tensor(low), share.new_tensor(high)
        k = share * torch.sigmoid(h) * -torch.expm1(l - h)
        return (torch.logaddexp(torch.zeros_like(k), k.log() - l) - torch.log1p(-k)) / (h - l)
