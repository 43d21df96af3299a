r"""The denoising loss: the network's own target, predicted at a random time and compared in its own units, with a weight that says what an error costs.

A weight is stated as $w(t)$ on $\|\hat x_0-x_0\|^2$ (`weights`); here it multiplies $\|\hat y-y\|^2$, with the coefficient $w\,c_y^2$, $c_y=-\sigma/(\alpha b-\sigma a)$.
Derived in chapter 05.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_core.denoiser import Denoiser
from diffusion_core.doors import require_callable
from diffusion_core.losses.weights import Weight, edm_weight, min_snr
from diffusion_core.schedules import double, normal_like, per_sample

Loss = Callable[..., Tensor]


def denoising_loss(denoiser: Denoiser, x0: Tensor, t: Tensor | float, weight: Weight | None = None, generator: torch.Generator | None = None, **cond: Any) -> Tensor:
    r"""$w\,c_y^2\,\|\hat y(x_t,t)-y\|^2/D$ with $x_t=\alpha x_0+\sigma\epsilon$, $y=a\,x_0+b\,\epsilon$: (B,), unreduced, the mean over the D coordinates.

    x0: (B, *D). t: scalar or (B,). weight: `snr`, `uniform`, `min_snr(5.)` ...; None is the plain $\|\hat y-y\|^2/D$: for the noise target, DDPM's
    L_simple. cond: goes to the network, such as `label=y`.

    The noise comes from `generator`, on its device.

    >>> import torch
    >>> from diffusion_core import MLP, Denoiser, LinearVP, denoising_loss, targets
    >>> denoiser = Denoiser(MLP(2, width=16), LinearVP(), targets.eps)
    >>> seeded = torch.Generator().manual_seed(0)
    >>> loss = denoising_loss(denoiser, torch.zeros(10_000, 2), 0.5, generator=seeded)
    >>> # an untrained network predicts 0, and the noise has variance 1
    >>> loss.shape, round(loss.mean().item(), 1)
    (torch.Size([10000]), 1.0)
    """
    x_t, y = noised(denoiser, x0, t, generator)
    return weighted(denoiser, denoiser.predict(x_t, t, **cond), y, t, weight)


def noised(denoiser: Denoiser, x0: Tensor, t: Tensor | float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """x_t, and the target y of the same noise. The door of the losses."""
    if not (hasattr(denoiser, "predict") and hasattr(denoiser, "schedule") and hasattr(denoiser, "target")):
        raise ValueError(f"denoiser must be a Denoiser, got {type(denoiser).__name__}; a network becomes one by Denoiser(net, schedule, target)")
    if not (isinstance(x0, Tensor) and x0.is_floating_point() and x0.ndim >= 1 and len(x0)):
        raise ValueError(f"x0 must be a floating tensor of shape (B, *D) with at least one sample, got {f'{x0.dtype} of shape {tuple(x0.shape)}' if isinstance(x0, Tensor) else type(x0).__name__}")
    alpha, sigma = denoiser.schedule(double(t))
    a, b = denoiser.target(denoiser.schedule, t)
    eps = normal_like(x0, generator)
    return per_sample(alpha, x0) * x0 + per_sample(sigma, x0) * eps, per_sample(a, x0) * x0 + per_sample(b, x0) * eps


def weighted(denoiser: Denoiser, prediction: Tensor, y: Tensor, t: Tensor | float, weight: Weight | None) -> Tensor:
    """The mean square of each sample's error, (B,), times its weight. Raises ValueError for a weight that is none or of another shape."""
    loss = (prediction - y).square().reshape(len(y), -1).mean(1)
    if weight is None:
        return loss
    require_callable(weight, "weight", "(schedule, t, target) -> w, such as losses.snr or losses.min_snr(5.0), or None")
    uncalled: tuple[object, ...] = (min_snr, edm_weight)
    if weight in uncalled:
        raise ValueError("weight must be losses.min_snr(gamma) or losses.edm_weight(sigma_data), got the function that makes one: call it, such as losses.min_snr(5.0)")
    w = weight(denoiser.schedule, t, denoiser.target)
    if w.shape not in ((), loss.shape):
        raise ValueError(f"weight must give a scalar or one number a sample, shape ({len(loss)},), got {tuple(w.shape)}")
    return w.to(loss.device, loss.dtype) * loss
