"""The empirical measure of a data set: the exact world of a network that memorizes."""

import math

import torch
from torch import Tensor

from diffusion_core.doors import drawn_on, require_count
from diffusion_core.oracles.base import Level, Oracle
from diffusion_core.schedules import per_sample


class Empirical(Oracle):
    r"""The empirical measure of a data set, $\frac1N\sum_i\delta_{x_i}$: noised, a mixture of N equal Gaussians.

    data: (N, *D).

    The exact denoiser is a softmax over the data, $\mathbb E[x_0\mid x]=\sum_i\mathrm{softmax}_i(-\|x-\alpha x_i\|^2/2\sigma^2)\,x_i$, which
    is what a network that memorizes would be. Everything asks for sigma > 0. Distances are summed in float64.

    >>> import torch
    >>> from diffusion_core import Empirical
    >>> data = Empirical(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    >>> x = torch.tensor([[0.6, 0.6]])
    >>> # the nearest point; the mean
    >>> [data.posterior_mean(x, *level).tolist() for level in ((1.0, 0.01), (0.0, 1.0))]
    [[[1.0, 1.0]], [[0.5, 0.5]]]
    """

    def __init__(self, data: Tensor):
        data = torch.as_tensor(data)
        if data.ndim == 0 or len(data) == 0 or not data.is_floating_point():
            raise ValueError(f"data must be a floating tensor of shape (N, *D) with N > 0, got {data.dtype} of shape {tuple(data.shape)}")
        if not bool(data.isfinite().all()):
            raise ValueError("data must be finite: a NaN or an infinity in one row spoils every average")
        self.event = data.shape[1:]
        self.data = data
        self._rows = data.reshape(len(data), -1).to(torch.float64)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n rows of the data, drawn with replacement, (n, *D)."""
        n = require_count(n, "n, the number of draws,")
        return self.data[torch.randint(len(self.data), (n,), generator=generator, device=drawn_on(generator)).to(self.data.device)]

    def log_prob(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        r"""$\log\frac1N\sum_i\mathcal N(x;\alpha x_i,\sigma^2I)$, (B,), nats."""
        logits, flat, sigma2 = self._logits(x, alpha, sigma)
        d = flat.shape[1]
        out = logits.logsumexp(-1) - 0.5 * (flat**2).sum(-1) / sigma2.squeeze(-1) - math.log(len(self._rows)) - 0.5 * d * torch.log(2 * math.pi * sigma2.squeeze(-1))
        return out.to(x.device, x.dtype)

    def score(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        r"""$(\alpha\,\mathbb E[x_0\mid x]-x)/\sigma^2$: Tweedie's formula, read backwards."""
        mean = self.posterior_mean(x, alpha, sigma)
        return (per_sample(alpha, x) * mean - x) / per_sample(sigma, x) ** 2

    def posterior_mean(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        r"""The softmax average of the data, (B, *D)."""
        weights = self._logits(x, alpha, sigma)[0].softmax(-1)
        return (weights @ self._rows.to(weights.device)).reshape(x.shape).to(x.device, x.dtype)

    def posterior_cov(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        r"""$\sum_ip_i(x_i-m)(x_i-m)^\top$, (B, *D, *D)."""
        return self._covariance(x, alpha, sigma).reshape(len(x), *self.event, *self.event).to(x.device, x.dtype)

    def hessian(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        r"""$\big(\frac{\alpha^2}{\sigma^2}\mathrm{Cov}[x_0\mid x]-I\big)/\sigma^2$, (B, *D, *D): Tweedie's formula of second order, read backwards."""
        cov = self._covariance(x, alpha, sigma)
        alpha2, sigma2 = (self._level(level, cov, 2) ** 2 for level in (alpha, sigma))
        hessian = (alpha2 / sigma2 * cov - torch.eye(cov.shape[-1]).to(cov)) / sigma2
        return hessian.reshape(len(x), *self.event, *self.event).to(x.device, x.dtype)

    def _covariance(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """Cov[x_0 | x], (B, d, d), in float64."""
        weights = self._logits(x, alpha, sigma)[0].softmax(-1)
        rows = self._rows.to(weights.device)
        gap = rows - (weights @ rows)[:, None]
        return torch.einsum("bn,bni,bnj->bij", weights, gap, gap)

    def _logits(self, x: Tensor, alpha: Level, sigma: Level) -> tuple[Tensor, Tensor, Tensor]:
        """$(\\alpha\\,x\\cdot x_i-\\alpha^2\\|x_i\\|^2/2)/\\sigma^2$ (B, N), what of the squared distance depends on i."""
        flat = self._flat(x)
        flat = flat.to("cpu" if x.device.type == "mps" else x.device, torch.float64)
        rows = self._rows.to(flat.device)
        a, s2 = self._level(alpha, flat, 1), self._level(sigma, flat, 1) ** 2
        if not bool((s2 > 0).all()):
            raise ValueError("an empirical measure has no density at sigma = 0; ask for it at sigma > 0")
        s2 = s2.expand(len(flat), 1)
        return (a * (flat @ rows.T) - 0.5 * a**2 * (rows**2).sum(-1)) / s2, flat, s2
