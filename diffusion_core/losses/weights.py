r"""Weights of the loss over time: $w(t)$ on $\|\hat x_0-x_0\|^2$, given in the units of any target.

The coefficient of $\|\hat y-y\|^2$ is $w\,c_y^2$, $c_y=-\sigma/(\alpha b-\sigma a)$. All but one of the weights are functions of two, the SNR $\alpha^2/\sigma^2$ and 1, so that
both are turned into the target's units with exact powers of $\alpha$ and $\sigma$: where a limit is finite, so is the coefficient. Derived in chapter 05.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_core import targets
from diffusion_core.schedules import Schedule, double
from diffusion_core.targets import Target

Weight = Callable[[Schedule, Tensor | float, Target], Tensor]


def _snr_and_one(schedule: Schedule, t: Tensor | float, target: Target) -> tuple[Tensor, Tensor]:
    r"""$(\mathrm{SNR}\cdot c_y^2,\ 1\cdot c_y^2)$ in the units of the target, float64."""
    t = double(t)
    alpha, sigma = schedule(t)
    factor, m, n = targets.determinant(schedule, target, t)
    one = alpha ** (-2 * m) * sigma ** (2 - 2 * n) / factor**2
    snr = alpha ** (2 - 2 * m) * sigma ** (-2 * n) / factor**2
    return snr, one


def uniform(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
    r"""$w=1$: the plain error of the image.

    >>> from diffusion_core import LinearVP, losses, targets
    >>> # in units of the noise: 1 / SNR
    >>> schedule = LinearVP()
    >>> weight = losses.uniform(schedule, 0.3, targets.eps)
    >>> round((weight * losses.snr(schedule, 0.3)).item(), 6)
    1.0
    """
    return _snr_and_one(schedule, t, target)[1]


def snr(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
    r"""$w=\mathrm{SNR}$: the plain error of the noise, L_simple, for any target. Ho et al. 2020, eq. 14.

    >>> from diffusion_core import LinearVP, losses, targets
    >>> # for the noise: the plain loss, at both ends too
    >>> [losses.snr(LinearVP(), t, targets.eps).item() for t in (0.0, 0.5, 1.0)]
    [1.0, 1.0, 1.0]
    """
    return _snr_and_one(schedule, t, target)[0]


def v_weight(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
    r"""$w=\mathrm{SNR}+1$: on a VP path, the plain error of v. Salimans and Ho 2022.

    >>> from diffusion_core import CosineVP, losses, targets
    >>> # for v: the plain loss
    >>> [round(losses.v_weight(CosineVP(), t, targets.v).item(), 6) for t in (0.0, 1.0)]
    [1.0, 1.0]
    """
    per_snr, per_one = _snr_and_one(schedule, t, target)
    return per_snr + per_one


def truncated_snr(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
    r"""$w=\max(\mathrm{SNR},1)$. Salimans and Ho 2022.

    >>> import torch
    >>> from diffusion_core import CosineVP, losses
    >>> schedule = CosineVP()
    >>> t = schedule.time(torch.tensor([2.0, -2.0]))  # by their log-SNR
    >>> [round(w, 4) for w in losses.truncated_snr(schedule, t).log().tolist()]
    [2.0, 0.0]
    """
    return torch.maximum(*_snr_and_one(schedule, t, target))


def min_snr(gamma: float = 5.0) -> Weight:
    r"""$w=\min(\mathrm{SNR},\gamma)$, in the units of every target: for the noise $\min(1,\gamma/\mathrm{SNR})$. Hang et al. 2023, section 3.4.

    Raises ValueError unless gamma > 0.

    >>> import torch
    >>> from diffusion_core import CosineVP, losses
    >>> schedule, weight = CosineVP(), losses.min_snr(5.0)
    >>> round(weight(schedule, 0.1).item(), 6)  # where the SNR is higher
    5.0
    >>> torch.allclose(weight(schedule, 0.9), losses.snr(schedule, 0.9))
    True
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}; the usual value is 5")

    def weight(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
        per_snr, per_one = _snr_and_one(schedule, t, target)
        return torch.minimum(per_snr, gamma * per_one)

    return weight


def edm_weight(sigma_data: float = 0.5) -> Weight:
    r"""$w=\mathrm{SNR}+1/\sigma_d^2$: $1/c_{out}^2$ of Karras et al. 2022, the plain error of their F.

    Raises ValueError unless sigma_data > 0.

    >>> from diffusion_core import EDM, losses, targets
    >>> # for F: the plain loss
    >>> weight, target = losses.edm_weight(0.5), targets.edm(0.5)
    >>> [round(weight(EDM(), t, target).item(), 6) for t in (0.01, 0.5, 1.0)]
    [1.0, 1.0, 1.0]
    """
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"sigma_data, the standard deviation of the data, must be positive and finite, got {sigma_data}")

    def weight(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
        per_snr, per_one = _snr_and_one(schedule, t, target)
        return per_snr + per_one / sigma_data**2

    return weight


def vlb(schedule: Schedule, t: Tensor | float, target: Target = targets.x0) -> Tensor:
    r"""$w=-\frac12\frac{d\,\mathrm{SNR}}{dt}=\frac{\alpha(\alpha\dot\sigma-\sigma\dot\alpha)}{\sigma^3}$: the rate of the continuous-time bound, in nats a unit of t. Kingma et al. 2021, eq. 15.

    On the sum over coordinates; `denoising_loss` takes the mean. Raises ValueError where a rate of the path is infinite (`Schedule.rates`).

    >>> import torch
    >>> from diffusion_core import LinearVP, losses
    >>> schedule, t = LinearVP(), torch.linspace(0.1, 1.0, 1001, dtype=torch.float64)
    >>> # of an error of 1 at every t
    >>> cost = torch.trapezoid(losses.vlb(schedule, t), t)
    >>> snr = schedule.log_snr(t).exp()
    >>> round((2 * cost / (snr[0] - snr[-1])).item(), 3)  # half of what the SNR loses
    1.0
    """
    t = double(t)
    (alpha, sigma), (d_alpha, d_sigma) = schedule(t), schedule.rates(t)
    factor, m, n = targets.determinant(schedule, target, t)
    return alpha ** (1 - 2 * m) * sigma ** (-1 - 2 * n) * (alpha * d_sigma - sigma * d_alpha) / factor**2
