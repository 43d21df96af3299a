"""What the exact worlds share: their interface, and the denoiser that they make."""

import torch
from torch import Tensor

from diffusion_core import targets
from diffusion_core.schedules import Schedule, double, per_sample
from diffusion_core.schedules.base import require_path

Level = Tensor | float


class Oracle:
    """What the exact worlds share: event shape *D, x of shape (B, *D), alpha and sigma scalars or (B,).

    >>> import torch
    >>> from diffusion_core import Empirical, Gaussian, ring
    >>> alpha, sigma = 0.8, 0.6
    >>> x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    >>> # Tweedie's formula holds in all of them
    >>> for oracle in (Gaussian([1.0, 0.0], 0.5), ring(), Empirical(x)):
    ...     tweedie = (x + sigma**2 * oracle.score(x, alpha, sigma)) / alpha
    ...     mean = oracle.posterior_mean(x, alpha, sigma)
    ...     print(torch.allclose(tweedie, mean, atol=1e-5))
    True
    True
    True
    """

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
        return x.reshape(len(x), self.event.numel())

    @staticmethod
    def _level(value: Level, x: Tensor, trailing: int) -> Tensor:
        """alpha or sigma, shape () or (B, 1, .., 1) with that many ones, in the dtype of x."""
        value = per_sample(value, x)
        return value if value.ndim == 0 else value.reshape(-1, *[1] * trailing)


class ExactDenoiser:
    """A denoiser that is known, not learned. Its raw output (`predict`) is the image itself.

    >>> import torch
    >>> from diffusion_core import LinearVP, ddim, last, ring, uniform
    >>> schedule = LinearVP()
    >>> x = schedule.noise((1000, 2), torch.Generator().manual_seed(0))
    >>> samples = last(ddim(ring().denoiser(schedule), schedule, x, uniform(50)))
    >>> round(samples.norm(dim=1).median().item(), 1)  # the ring's radius
    1.4
    """

    target = staticmethod(targets.x0)

    def __init__(self, oracle: Oracle, schedule: Schedule):
        require_path(schedule)
        self.oracle, self.schedule = oracle, schedule

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        alpha, sigma = self.schedule(double(t))
        return self.oracle.posterior_mean(x, alpha, sigma)

    predict = __call__
