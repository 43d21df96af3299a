r"""Variance-exploding paths: $\alpha=1$ and a noise that grows. Derived in chapters 12 and 14."""

import math

import torch
from torch import Tensor

from diffusion_core.schedules.base import Schedule


class GeometricVE(Schedule):
    r"""$\alpha=1$, $\sigma(t)=\sigma_{min}(\sigma_{max}/\sigma_{min})^t$, NCSN's ladder in continuous time (Song et al. 2021 (SDE), eq. 31).

    The path has a floor, $\sigma(0)=\sigma_{min}$: samplers end with one denoising step. Raises ValueError unless 0 < sigma_min < sigma_max.

    >>> from diffusion_core import GeometricVE
    >>> schedule = GeometricVE(sigma_min=0.01, sigma_max=100.0)
    >>> # each quarter multiplies the noise by 10
    >>> [round(schedule(t)[1].item(), 6) for t in (0.0, 0.25, 0.5, 1.0)]
    [0.01, 0.1, 1.0, 100.0]
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        if not 0 < sigma_min < sigma_max < math.inf:
            raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}; sigma_max should be about the largest distance between two data points")
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self._log_ratio = math.log(sigma_max / sigma_min)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min ** (1 - t) * self.sigma_max**t

    def _sigma2(self, t: Tensor) -> Tensor:
        return self._sigma(t) ** 2

    def _time(self, log_snr: Tensor) -> Tensor:
        return (-0.5 * log_snr - math.log(self.sigma_min)) / self._log_ratio


class EDM(Schedule):
    r"""$\alpha=1$, $\sigma(t)=\sigma_{max}t$: noise itself as time, Karras et al. 2022 (there $t=\sigma$, here t runs to 1).

    >>> from diffusion_core import EDM
    >>> schedule = EDM(sigma_max=80.0)
    >>> alpha, sigma = schedule(0.5)
    >>> # the last is -2 log 40
    >>> alpha.item(), sigma.item(), round(schedule.log_snr(0.5).item(), 3)
    (1.0, 40.0, -7.378)
    """

    def __init__(self, sigma_max: float = 80.0):
        if not 0 < sigma_max < math.inf:
            raise ValueError(f"sigma_max must be positive, got {sigma_max}; the usual value is 80")
        self.sigma_max = float(sigma_max)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t

    def _sigma2(self, t: Tensor) -> Tensor:
        return self._sigma(t) ** 2

    def _time(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-0.5 * log_snr) / self.sigma_max
