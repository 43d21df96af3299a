r"""From a network to a denoiser: `(x, t) -> E[x_0 | x_t = x]`.

Samplers, likelihoods and solvers know a model by nothing but this callable and the schedule. A trained network, an exact mixture, a
guided model are all denoisers. Derived in chapters 05 (targets), 10 (`score_at`) and 14 (`transport`).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_core.doors import require_callable
from diffusion_core.schedules import Schedule, double, per_sample
from diffusion_core.schedules.base import require_path
from diffusion_core.targets import Target, edm, solution

__all__ = ["Denoiser", "clipped", "require_schedule", "score_at", "transport"]

Denoise = Callable[..., Tensor]

LOG_SNR_RANGE = (-20.0, 20.0)


class Denoiser(nn.Module):
    r"""A network that predicts `target` on `schedule`, as a denoiser.

    net: `net(c_in * x, c, **cond) -> y` of the shape of x (twice its channels where `net.learned_variance` is true), called with $c_{in}=1/\sqrt{\alpha^2\sigma_{data}^2+\sigma^2}$, so that its input has unit
    variance, and c = the log-SNR (B,), clamped to `LOG_SNR_RANGE` = [-20, 20].
    target: one of `targets`. sigma_data: the standard deviation of the data (1 leaves a VP path's input as it is), for `edm(sigma_data)` the same.
    Raises ValueError for a sigma_data that is not positive or not the target's, and for a schedule that is none.

    >>> import torch
    >>> from diffusion_core import MLP, Denoiser, LinearVP, targets
    >>> denoiser = Denoiser(MLP(2, width=16), LinearVP(), targets.v)
    >>> x, t = torch.randn(4, 2), torch.full((4,), 0.3)
    >>> alpha, sigma = denoiser.schedule(0.3)
    >>> # v's solve
    >>> image = alpha.float() * x - sigma.float() * denoiser.predict(x, t)
    >>> torch.allclose(denoiser(x, t), image, atol=1e-6)
    True
    """

    def __init__(self, net: nn.Module, schedule: Schedule, target: Target, sigma_data: float = 1.0):
        super().__init__()
        require_callable(net, "net", "(x, c, **cond) -> y, such as MLP(2)")
        require_path(schedule)
        require_callable(target, "target", "(schedule, t) -> (a, b): targets.x0, eps, score, v, velocity or edm(sigma_data)")
        uncalled: object = edm
        if target is uncalled:
            raise ValueError("target must be one of targets.edm(sigma_data), got targets.edm itself: call it with the standard deviation of the data, targets.edm(0.5)")
        if not 0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data, the standard deviation of the data, must be positive and finite, got {sigma_data}")
        meant = getattr(target, "sigma_data", sigma_data)
        if meant != sigma_data:
            raise ValueError(f"the target was made for sigma_data = {meant} and the denoiser for {sigma_data}; give both the standard deviation of the data: Denoiser(net, schedule, edm({meant}), sigma_data={meant})")
        self.net, self.schedule, self.target, self.sigma_data = net, schedule, target, float(sigma_data)

    def predict(self, x: Tensor, t: Tensor | float, **cond: Any) -> Tensor:
        r"""The raw prediction $\hat y$ of $y=a\,x_0+b\,\epsilon$, (B, *D). t: scalar or (B,). cond: goes to the network, such as `label=y`."""
        y = self._outputs(x, t, **cond)
        return y.chunk(2, dim=1)[0] if getattr(self.net, "learned_variance", False) else y

    def predict_with_variance(self, x: Tensor, t: Tensor | float, **cond: Any) -> tuple[Tensor, Tensor]:
        """(y, v), each (B, *D): `predict` and the output for the variance, as it comes, for `range_variance`. t, cond: as in `predict`.

        Raises ValueError for a network without that output.
        """
        self.require_variance()
        y, v = self._outputs(x, t, **cond).chunk(2, dim=1)
        return y, v

    def require_variance(self) -> None:
        """A network that predicts no variance must not be asked for one."""
        if not getattr(self.net, "learned_variance", False):
            raise ValueError(f"{type(self.net).__name__} has no output for the variance; build it with learned_variance=True, or use posterior_variance, transition_variance or analytic_variance")

    def _outputs(self, x: Tensor, t: Tensor | float, **cond: Any) -> Tensor:
        if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 1):
            raise ValueError(f"x must be a floating tensor of shape (B, *D), got {f'{x.dtype} of shape {tuple(x.shape)}' if isinstance(x, Tensor) else type(x).__name__}")
        u = double(t)
        alpha, sigma = self.schedule(u)
        c_in = torch.rsqrt((alpha * self.sigma_data) ** 2 + sigma**2)
        log_snr = (2 * (alpha.log() - sigma.log())).clamp(*LOG_SNR_RANGE)
        y = self.net(per_sample(c_in, x) * x, log_snr.to(x.device, x.dtype).expand(len(x)), **cond)
        self._require_shape(y, x)
        return y

    def _require_shape(self, y: Any, x: Tensor) -> None:
        """An answer of another shape would spread over x without a word."""
        doubled = getattr(self.net, "learned_variance", False)
        wanted = (len(x), 2 * x.shape[1], *x.shape[2:]) if doubled and x.ndim > 1 else tuple(x.shape)
        if not isinstance(y, Tensor) or y.shape != wanted:
            shown = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"{type(self.net).__name__} must return a tensor of shape {wanted} for x of shape {tuple(x.shape)}{' (learned_variance is true)' if doubled else ''}, got {shown}; a network that predicts a variance too says so by learned_variance = True")

    def forward(self, x: Tensor, t: Tensor | float, **cond: Any) -> Tensor:
        r"""$\hat x_0=c_xx+c_y\hat y$, (B, *D). t, cond: as in `predict`. Raises ValueError where the target does not fix the image."""
        c_x, c_y = solution(self.schedule, self.target, t)
        return per_sample(c_x, x) * x + per_sample(c_y, x) * self.predict(x, t, **cond)

    def image(self, x: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        r"""$c_xx+c_yy$: the image that a prediction y stands for."""
        c_x, c_y = solution(self.schedule, self.target, t)
        return per_sample(c_x, x) * x + per_sample(c_y, x) * y


def clipped(denoise: Denoise, low: float = -1.0, high: float = 1.0) -> Denoise:
    r"""The same denoiser with $\hat x_0$ clamped to the range of the data.

    The image is clipped, not $x_t$; the samplers take $\hat\epsilon=(x_t-\alpha\hat x_0)/\sigma$ from the clipped image. Not stated in Ho et al. 2020's
    algorithm 2, but done in its code.

    >>> import torch
    >>> from diffusion_core import Gaussian, LinearVP, clipped
    >>> denoise = Gaussian(torch.zeros(1), 1.0).denoiser(LinearVP())
    >>> clipped(denoise)(torch.tensor([[-9.0], [0.0], [9.0]]), 0.1).flatten().tolist()
    [-1.0, 0.0, 1.0]
    """
    require_callable(denoise, "the denoiser", "(x, t) -> E[x_0 | x_t]")
    if not low < high:
        raise ValueError(f"need low < high, the range of the data, got {low} and {high}")

    def denoise_clipped(x: Tensor, t: Tensor | float, **cond: Any) -> Tensor:
        return denoise(x, t, **cond).clamp(low, high)

    return knowing(denoise_clipped, getattr(denoise, "schedule", None))


def transport(denoise: Denoise, source: Schedule, target: Schedule) -> Denoise:
    r"""A denoiser made for the path `source`, used on the path `target`.

    Two paths at equal $\sigma/\alpha$ differ by a rescaling, so $\mathbb E[x_0\mid x_t]$ on the target is the source's denoiser at the time of equal
    log-SNR, fed with $x\,\alpha_{source}/\alpha_{target}$. Raises ValueError where the source never reaches that log-SNR.

    >>> import torch
    >>> from diffusion_core import LinearVP, Straight, ring, transport
    >>> # a DDPM model on the path of flow matching
    >>> moved = transport(ring().denoiser(LinearVP()), LinearVP(), Straight())
    >>> x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(moved(x, 0.4), ring().denoiser(Straight())(x, 0.4), atol=1e-5)
    True
    """
    require_schedule(denoise, source)
    require_path(target)

    def transported(x: Tensor, t: Tensor | float, **cond: Any) -> Tensor:
        u = double(t)
        where = source.time(target.log_snr(u))
        scale = source(where)[0] / target(u)[0]
        return denoise(per_sample(scale, x) * x, where, **cond)

    return knowing(transported, target)


def score_at(denoise: Denoise, schedule: Schedule, t: Tensor | float) -> Callable[[Tensor], Tensor]:
    r"""The score of the noised data at time t, $x\mapsto\nabla\log p_t(x)=(\alpha\hat x_0(x,t)-x)/\sigma^2$: Tweedie's formula, read backwards.

    A field for the functions of `score_matching` and for `langevin`.

    t: scalar or (B,). Raises ValueError where sigma = 0, and for a denoiser of another path.

    >>> import torch
    >>> from diffusion_core import CosineVP, ring, score_at
    >>> x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    >>> schedule = CosineVP()
    >>> score = score_at(ring().denoiser(schedule), schedule, 0.5)
    >>> torch.allclose(score(x), ring().score(x, *schedule(0.5)), atol=1e-4)
    True
    """
    require_schedule(denoise, schedule)
    alpha, sigma = schedule(double(t))
    if not bool((sigma > 0).all()):
        raise ValueError("there is no score where sigma = 0: the denoiser says nothing about clean data; take a later time")

    def score(x: Tensor, **cond: Any) -> Tensor:
        return (per_sample(alpha, x) * denoise(x, t, **cond) - x) / per_sample(sigma, x) ** 2

    return score


def knowing(denoise: Denoise, schedule: Schedule | None) -> Denoise:
    """The denoiser, a plain function, that carries its path from now on: samplers then refuse another one."""
    if schedule is not None:
        denoise.schedule = schedule  # type: ignore[attr-defined]  # mypy knows no functions with attributes
    return denoise


def answering(denoise: Denoise) -> Denoise:
    """The same denoiser, which raises where it returns another shape than that of x: it would spread over the state without a word."""

    def denoise_checked(x: Tensor, t: Tensor | float, **cond: Any) -> Tensor:
        image = denoise(x, t, **cond)
        if not isinstance(image, Tensor) or image.shape != x.shape:
            shown = f"shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(f"the denoiser must return the image E[x_0 | x_t], a tensor of the shape of x, {tuple(x.shape)}, got {shown}")
        return image

    return denoise_checked


def require_schedule(denoise: Denoise, schedule: Schedule) -> None:
    """A denoiser that knows its schedule must be used on it.

    >>> from diffusion_core import CosineVP, LinearVP, ring
    >>> from diffusion_core.denoiser import require_schedule
    >>> # an equal path will do, it need not be the same object
    >>> require_schedule(ring().denoiser(LinearVP()), LinearVP())
    >>> require_schedule(ring().denoiser(LinearVP()), CosineVP())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: this denoiser was made for another path (LinearVP) than...
    """
    require_callable(denoise, "the denoiser", "(x, t) -> E[x_0 | x_t]")
    require_path(schedule)
    known = getattr(denoise, "schedule", None)
    if known is not None and not known.same(schedule):
        raise ValueError(f"this denoiser was made for another path ({type(known).__name__}) than the one it is used on ({type(schedule).__name__}); use transport(denoise, denoise.schedule, schedule), or its own schedule")
