r"""Paths made from paths: `Shifted` moves the log-SNR for a resolution, `ZeroTerminalSNR` takes the last of the signal away at t = 1."""

import math

import torch
from torch import Tensor

from diffusion_core.schedules.base import Schedule, require_path


class Shifted(Schedule):
    r"""The log-SNR of a path moved by a constant: $\lambda'_t=\lambda_t-2\log s$, so $\alpha'=\alpha/n$, $\sigma'=s\sigma/n$.

    n keeps what the path keeps: $n^2=\alpha^2+s^2\sigma^2$ on variance-preserving paths, $n=\alpha+s\sigma$ where $\alpha+\sigma=1$, $n=1$ where
    $\alpha=1$. Hoogeboom et al. 2023 ("simple diffusion"): for images of side d a cosine path takes $s=d/64$, that is
    $\lambda+2\log(64/d)$. On `Straight` it is the time shift $t'=st/(1+(s-1)t)$ of Esser et al. 2024 (SD3).
    s > 1 adds noise, s < 1 takes noise away. Raises ValueError for s outside (0, inf) and for a path that keeps none of the three (`SubVP`).

    >>> import math
    >>> from diffusion_core import CosineVP, Shifted, Straight
    >>> moved = Shifted(CosineVP(), 4.0).log_snr(0.3) - CosineVP().log_snr(0.3)
    >>> round(moved.item() / math.log(4), 6)
    -2.0
    >>> # t' = 3t / (1 + 2t) of the straight path
    >>> alpha, sigma = Shifted(Straight(), 3.0)(0.5)
    >>> round(sigma.item(), 6)
    0.75
    """

    def __init__(self, schedule: Schedule, shift: float):
        require_path(schedule)
        if not 0 < shift < math.inf:
            raise ValueError(f"the shift must be positive and finite, got {shift}; above 1 it adds noise, and d / 64 is usual for images of side d")
        self.schedule, self.shift = schedule, float(shift)
        with torch.no_grad():
            alpha, sigma = schedule(torch.linspace(0, 1, 257, dtype=torch.float64))
        kept = {"norm": alpha**2 + sigma**2, "sum": alpha + sigma, "signal": alpha}
        self._kept = next((name for name, value in kept.items() if bool(((value - 1).abs() < 1e-12).all())), None)
        if self._kept is None:
            raise ValueError(f"{type(schedule).__name__} keeps neither alpha^2 + sigma^2 nor alpha + sigma nor alpha at 1, so a shift does not say how to scale it. Shift a variance-preserving path, a straight one or one with alpha = 1")

    def _scale(self, t: Tensor) -> Tensor:
        """n, by sigma^2 where the path has it to full digits: the rate of alpha then exists at t = 0."""
        if self._kept == "signal":
            return torch.ones_like(t)
        if self._kept == "sum":
            return self.schedule._alpha(t) + self.shift * self.schedule._sigma(t)
        return torch.sqrt(self.schedule._alpha(t) ** 2 + self.shift**2 * self.schedule._sigma2(t))

    def _alpha(self, t: Tensor) -> Tensor:
        return self.schedule._alpha(t) / self._scale(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.shift * self.schedule._sigma(t) / self._scale(t)

    def _sigma2(self, t: Tensor) -> Tensor:
        return self.shift**2 * self.schedule._sigma2(t) / self._scale(t) ** 2

    def _log_snr(self, t: Tensor) -> Tensor:
        return self.schedule._log_snr(t) - 2 * math.log(self.shift)

    def _time(self, log_snr: Tensor) -> Tensor:
        return self.schedule._time(log_snr + 2 * math.log(self.shift))


class ZeroTerminalSNR(Schedule):
    r"""A variance-preserving path whose signal ends at exactly 0: $\alpha'_t=\alpha_0\frac{\alpha_t-\alpha_1}{\alpha_0-\alpha_1}$, $\sigma'^2=1-\alpha'^2$.

    Lin et al. 2024, algorithm 1, in continuous t: their $\sqrt{\bar\alpha}$ is $\alpha$, and $\alpha(0)$ stays as it was (theirs keeps the
    first knot, t = 1/N, instead). $\alpha_t-\alpha_1$ is $\alpha_1\,\mathrm{expm1}(\frac12\int_t^1\beta)$ on paths that know their integral
    (`LinearVP`, `DDPM`), and a plain difference on others, which loses digits as t nears 1.
    Raises ValueError for a path that is not variance-preserving.

    >>> from diffusion_core import DDPM, ZeroTerminalSNR, linear_betas
    >>> schedule = DDPM(linear_betas())
    >>> round(schedule(1.0)[0].item(), 4), ZeroTerminalSNR(schedule)(1.0)[0].item()
    (0.0064, 0.0)
    """

    def __init__(self, schedule: Schedule):
        require_path(schedule)
        with torch.no_grad():
            alpha, sigma = schedule(torch.linspace(0, 1, 257, dtype=torch.float64))
        if not bool(((alpha**2 + sigma**2 - 1).abs() < 1e-12).all()):
            raise ValueError(f"zero terminal SNR is a rescaling of variance-preserving paths, and {type(schedule).__name__} has alpha^2 + sigma^2 other than 1. Use LinearVP, DDPM, CosineVP, SigmoidVP or Learned")
        self.schedule = schedule

    def _ends(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""$\alpha_0,\ \alpha_1,\ 1-\alpha_0$."""
        ends = torch.tensor([0.0, 1.0], dtype=t.dtype, device=t.device)
        first, last = self.schedule._alpha(ends)
        return first, last, self.schedule._sigma2(ends)[0] / (1 + first)

    def _missing(self, t: Tensor) -> Tensor:
        r"""$1-\alpha'_t$, which keeps its digits near t = 0."""
        first, last, lost = self._ends(t)
        missing = self.schedule._sigma2(t) / (1 + self.schedule._alpha(t))
        return lost + (missing - lost) * (first / (first - last))

    def _alpha(self, t: Tensor) -> Tensor:
        first, last, _ = self._ends(t)
        if hasattr(self.schedule, "remaining"):
            left = last * torch.expm1(0.5 * self.schedule.remaining(t))
        else:
            left = self.schedule._alpha(t) - self.schedule._alpha(torch.ones_like(t))
        return torch.where(t < 0.5, 1 - self._missing(t), left * (first / (first - last)))

    def _sigma2(self, t: Tensor) -> Tensor:
        alpha = self._alpha(t)
        return torch.where(alpha > 0.5, self._missing(t) * (1 + alpha), 1 - alpha**2)

    def _time(self, log_snr: Tensor) -> Tensor:
        first, last, lost = self._ends(log_snr)
        kept, sigma2 = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr)
        missing = ((first - last) * sigma2 / (1 + kept) + last * lost) / first
        alpha = last + kept * (first - last) / first
        t = self.schedule._time(2 * alpha.log() - (missing * (1 + alpha)).log())
        return torch.where(log_snr == -math.inf, 1.0, t)
