r"""What a network may be asked to predict: every target is a line $y=a\,x_0+b\,\epsilon$.

A target is a function `(schedule, t) -> (a, b)` (float64, the shape of t). With $x_t=\alpha x_0+\sigma\epsilon$, one linear solve turns the
prediction into the denoised image, $\hat x_0=(b\,x_t-\sigma\hat y)/(\alpha b-\sigma a)$. Derived in chapter 05.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_core.schedules import Schedule, double

__all__ = ["determinant", "edm", "eps", "score", "solution", "v", "velocity", "x0"]

Target = Callable[[Schedule, Tensor | float], tuple[Tensor, Tensor]]


def x0(schedule: Schedule, t: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""The clean image: $(a,b)=(1,0)$.

    >>> from diffusion_core import LinearVP, targets
    >>> # the prediction is the image, also where there is no noise
    >>> [c.item() for c in targets.solution(LinearVP(), targets.x0, 0.0)]
    [0.0, 1.0]
    """
    t = double(t)
    return torch.ones_like(t), torch.zeros_like(t)


def eps(schedule: Schedule, t: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""The noise: $(a,b)=(0,1)$, Ho et al. 2020. Cannot be turned into an image where $\alpha=0$.

    >>> import torch
    >>> from diffusion_core import LinearVP, targets
    >>> schedule, t, x0, noise = LinearVP(), 0.5, torch.tensor(0.3), torch.tensor(-1.2)
    >>> alpha, sigma = schedule(t)
    >>> c_x, c_y = targets.solution(schedule, targets.eps, t)
    >>> # the image again
    >>> round((c_x * (alpha * x0 + sigma * noise) + c_y * noise).item(), 6)
    0.3
    """
    t = double(t)
    return torch.zeros_like(t), torch.ones_like(t)


def score(schedule: Schedule, t: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""The conditional score $-\epsilon/\sigma$: $(a,b)=(0,-1/\sigma)$. Raises ValueError where $\sigma=0$.

    >>> from diffusion_core import LinearVP, targets
    >>> a, b = targets.score(LinearVP(), 0.5)
    >>> a.item(), round((b * LinearVP()(0.5)[1]).item(), 6)
    (0.0, -1.0)
    """
    _, sigma = schedule(double(t))
    if not bool((sigma > 0).all()):
        raise ValueError("the score target does not exist where sigma = 0 (the clean end of the path); keep t above 0")
    return torch.zeros_like(sigma), -1 / sigma


def v(schedule: Schedule, t: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""$v=\alpha\epsilon-\sigma x_0$: $(a,b)=(-\sigma,\alpha)$, Salimans and Ho 2022.

    >>> from diffusion_core import CosineVP, targets
    >>> a, b = targets.v(CosineVP(), 1.0)
    >>> a.item(), b.item()  # where nothing of the image is left, v is minus the image
    (-1.0, 0.0)
    """
    alpha, sigma = schedule(double(t))
    return -sigma, alpha


def velocity(schedule: Schedule, t: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""$\dot x_t=\dot\alpha x_0+\dot\sigma\epsilon$: $(a,b)=(\dot\alpha,\dot\sigma)$; on the straight path $\epsilon-x_0$. Raises ValueError where a rate is infinite.

    >>> from diffusion_core import Straight, targets
    >>> [round(c.item(), 6) for c in targets.velocity(Straight(), 0.3)]  # eps - x_0
    [-1.0, 1.0]
    """
    return schedule.rates(double(t))


def edm(sigma_data: float = 0.5) -> Target:
    r"""Karras et al. 2022's F on the path $x/\alpha$, $\varsigma=\sigma/\alpha$: $(a,b)=\big(\frac{\varsigma}{\sigma_dS},-\frac{\sigma_d}{S}\big)$, $S=\sqrt{\varsigma^2+\sigma_d^2}$.

    Solved for the image it is $c_{skip}\,x/\alpha+c_{out}F$ with $c_{skip}=\sigma_d^2/S^2$, $c_{out}=\varsigma\sigma_d/S$. Written with $\alpha$ multiplied through, so that it
    exists at both ends. Raises ValueError unless sigma_data > 0.

    >>> from diffusion_core import EDM, targets
    >>> # sigma = sigma_data
    >>> c_x, c_y = targets.solution(EDM(), targets.edm(0.5), 0.5 / 80)
    >>> # c_skip = 1/2 and c_out^2 = sigma_data^2 / 2
    >>> round(c_x.item(), 6), round((c_y**2).item(), 6)
    (0.5, 0.125)
    """
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"sigma_data, the standard deviation of the data, must be positive and finite, got {sigma_data}")
    return _EDM(float(sigma_data))


@dataclass(frozen=True)
class _EDM:
    sigma_data: float

    def __call__(self, schedule: Schedule, t: Tensor | float) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule(double(t))
        root = torch.sqrt(sigma**2 + (alpha * self.sigma_data) ** 2)
        return sigma / (self.sigma_data * root), -alpha * self.sigma_data / root


def determinant(schedule: Schedule, target: Target, t: Tensor | float) -> tuple[Tensor, int, int]:
    r"""$\alpha b-\sigma a$ as (factor, m, n), meaning factor $\cdot\,\alpha^m\sigma^n$ with a factor that is finite and nonzero where possible.

    Its zeros are where the image cannot be had from the target: $\alpha$ for the noise, $\alpha/\sigma$ for the score. Kept as powers, they cancel
    exactly against a loss weight's (`losses`).

    >>> from diffusion_core import LinearVP, targets
    >>> factor, m, n = targets.determinant(LinearVP(), targets.score, 0.5)
    >>> factor.item(), m, n  # -alpha / sigma
    (-1.0, 1, -1)
    """
    alpha, sigma = schedule(double(t))
    one = torch.ones_like(alpha)
    if target is x0:
        return -one, 0, 1
    if target is eps:
        return one, 1, 0
    if target is score:
        return -one, 1, -1
    a, b = target(schedule, t)
    return alpha * b - sigma * a, 0, 0


def solution(schedule: Schedule, target: Target, t: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""$(c_x,c_y)$ with $\hat x_0=c_xx_t+c_y\hat y$: $c_x=b/(\alpha b-\sigma a)$, $c_y=-\sigma/(\alpha b-\sigma a)$.

    For the image target this is (0, 1) at every t, $\sigma=0$ included. Raises ValueError where the target does not fix the image (noise or
    score at zero signal-to-noise ratio).

    >>> import torch
    >>> from diffusion_core import CosineVP, targets
    >>> alpha, sigma = CosineVP()(0.5)
    >>> c_x, c_y = targets.solution(CosineVP(), targets.v, 0.5)
    >>> # x_0 = alpha x_t - sigma v
    >>> torch.allclose(c_x, alpha), torch.allclose(c_y, -sigma)
    (True, True)
    """
    if target is x0:
        a, b = x0(schedule, t)
        return b, a
    alpha, sigma = schedule(double(t))
    a, b = target(schedule, t)
    det = alpha * b - sigma * a
    if not bool((det != 0).all()):
        raise ValueError("at zero signal-to-noise ratio (alpha = 0) the noise and the score say nothing about the image; predict x0, v or the velocity, or start at a later time of finite SNR")
    return b / det, -sigma / det
