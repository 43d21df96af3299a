r"""The straight path of flow matching, in this book's direction: t = 1 is noise. Chapters 05 and 14 use it."""

import torch
from torch import Tensor

from diffusion_core.schedules.base import Schedule


class Straight(Schedule):
    r"""$\alpha=1-t$, $\sigma=t$ (Lipman et al. 2023 and Liu et al. 2023 with time reversed, Esser et al. 2024 as here).

    >>> from diffusion_core import Straight
    >>> schedule = Straight()
    >>> # the velocity of a point is eps - x_0 at every t
    >>> [round(rate.item(), 6) for rate in schedule.rates(0.3)]
    [-1.0, 1.0]
    """

    def _alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def _sigma(self, t: Tensor) -> Tensor:
        return 1 * t

    def _sigma2(self, t: Tensor) -> Tensor:
        return t**2

    def _time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-0.5 * log_snr)
