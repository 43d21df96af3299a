"""What the exact worlds share: their interface, and the denoiser that they make."""

import torch
from torch import Tensor

from diffusion_core import targets
from diffusion_core.schedules import Schedule, double, per_sample

Level = Tensor | float


class Oracle:
    """What the exact worlds share: event shape *D, x of shape (B, *D), alpha and sigma scalars or (B,)."""

    event: torch.Size

    def score(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        r"""$\nabla_x\log p(x)$ of the noised density, (B, *D)."""
        raise NotImplementedError

    def posterior_mean(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        r"""$\mathbb E[x_0\mid x_t=x]$, (B, *D)."""
        raise NotImplementedError

    def hessian(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        r"""$\nabla^2_x\log p(x)$ of the noised density, the Jacobian of the score, (B, *D, *D)."""
        raise NotImplementedError

    def denoiser(self, schedule: Schedule) -> "ExactDenoiser":
        r"""The best denoiser there is on this path: $(x,t)\mapsto\mathbb E[x_0\mid x_t=x]$."""
        return ExactDenoiser(self, schedule)

    def _flat(self, x: Tensor) -> Tensor:
        shape = f"(B{''.join(f', {n}' for n in self.event)})"
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise ValueError(f"x must be a floating tensor of shape {shape}, got {x.dtype if isinstance(x, Tensor) else type(x).__name__}")
        if x.ndim != 1 + len(self.event) or x.shape[1:] != self.event:
            raise ValueError(f"x must have shape {shape}, got {tuple(x.shape)}")
        return x.reshape(x.shape[0], -1)

    @staticmethod
    def _level(value: Level, x: Tensor, trailing: int) -> Tensor:
        """alpha or sigma, shape () or (B, 1, .., 1) with that many ones, in the dtype of x."""
        value = per_sample(value, x)
        return value if value.ndim == 0 else value.reshape(-1, *[1] * trailing)


class ExactDenoiser:
    """A denoiser that is known, not learned. Its raw output (`predict`) is the image itself."""

    target = staticmethod(targets.x0)

    def __init__(self, oracle: Oracle, schedule: Schedule):
        self.oracle, self.schedule = oracle, schedule

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        alpha, sigma = self.schedule(double(t))
        return self.oracle.posterior_mean(x, alpha, sigma)

    predict = __call__
