"""Gaussians and mixtures of Gaussians."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_core.doors import on_cpu, require_count
from diffusion_core.oracles.base import Level, Oracle

Numbers = Tensor | np.ndarray | Sequence[Any] | float


class GaussianMixture(Oracle):
    r"""$\sum_kw_k\,\mathcal N(\mu_k,\Sigma_k)$.

    means: (K, *D). covariances: a number, (K,) isotropic, (K, *D) diagonal or (K, d, d) full, d the number of coordinates.
    weights: (K,), positive, equal when absent; they are normalized.

    Parameters are kept in float64, results come in the dtype of x. Raises ValueError for shapes that do not fit, for means that are not finite
    and for covariances that are not positive definite.

    >>> import torch
    >>> from diffusion_core import GaussianMixture
    >>> mixture = GaussianMixture([[-1.0, 0.0], [1.0, 0.0]], 0.01, weights=[1.0, 3.0])
    >>> # from noise alone: the mean of the data
    >>> mixture.posterior_mean(torch.zeros(1, 2), 0.0, 1.0).numpy().round(3).tolist()
    [[0.5, 0.0]]
    >>> x = torch.zeros(1, 2, requires_grad=True)
    >>> (gradient,) = torch.autograd.grad(mixture.log_prob(x, 0.8, 0.6).sum(), x)
    >>> torch.allclose(gradient, mixture.score(x, 0.8, 0.6))
    True
    """

    def __init__(self, means: Numbers, covariances: Numbers, weights: Numbers | None = None):
        means = torch.as_tensor(means, dtype=torch.float64)
        if means.ndim == 0 or len(means) == 0:
            raise ValueError(f"means must have shape (K, *D), one mean a component, got {'a single number' if means.ndim == 0 else 'none'}; write [mean], or use Gaussian")
        if not bool(means.isfinite().all()):
            raise ValueError("means must be finite: a NaN or an infinity in one spoils the whole mixture")
        self.event = means.shape[1:]
        self.means = means.reshape(len(means), -1)
        self._variances, self._basis = _eigen(torch.as_tensor(covariances, dtype=torch.float64), self.means, self.event)
        weights = torch.ones(len(means), dtype=torch.float64) if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        if weights.shape != (len(means),) or not bool(((weights > 0) & weights.isfinite()).all()):
            raise ValueError(f"weights must be {len(means)} positive numbers, got {weights.tolist()}")
        self.weights = weights / weights.sum()

    def sample(self, n: int, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """n independent draws of x_0, (n, *D), in torch's default dtype unless another is asked for."""
        n = require_count(n, "n, the number of draws,")
        generator = on_cpu(generator)
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = self._variances[k].sqrt() * torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        if self._basis is not None:
            z = torch.einsum("nij,nj->ni", self._basis[k], z)
        return (self.means[k] + z).reshape(n, *self.event).to(dtype or torch.get_default_dtype())

    def log_prob(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        r"""$\log\sum_kw_k\,\mathcal N(x;\alpha\mu_k,C_k)$, (B,), nats."""
        return self._joint(x, alpha, sigma)[0].logsumexp(-1)

    def score(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        r"""$\sum_kr_k(x)\,C_k^{-1}(\alpha\mu_k-x)$ with responsibilities $r_k(x)=p(k\mid x)$."""
        log_joint, whitened, _ = self._joint(x, alpha, sigma)
        return torch.einsum("bk,bkd->bd", log_joint.softmax(-1), -self._rotated_back(whitened)).reshape(x.shape)

    def posterior_mean(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        r"""$\mathbb E[x_0\mid x]=\sum_kr_k\,m_k$, $m_k=\mu_k+\alpha\Sigma_kC_k^{-1}(x-\alpha\mu_k)$."""
        responsibilities, means, _ = self._components(x, alpha, sigma)
        return torch.einsum("bk,bkd->bd", responsibilities, means).reshape(x.shape)

    def posterior_cov(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        r"""$\mathrm{Cov}[x_0\mid x]=\sum_kr_k\big(\sigma^2\Sigma_kC_k^{-1}+(m_k-m)(m_k-m)^\top\big)$, (B, *D, *D)."""
        responsibilities, means, noised = self._components(x, alpha, sigma)
        within = self._level(sigma, x, 2) ** 2 * self._variances.to(x) / noised
        gap = means - torch.einsum("bk,bkd->bd", responsibilities, means)[:, None]
        cov = self._average(responsibilities, within) + torch.einsum("bk,bki,bkj->bij", responsibilities, gap, gap)
        return cov.reshape(len(x), *self.event, *self.event)

    def hessian(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        r"""$\nabla^2\log p=\sum_kr_k\big((g_k-s)(g_k-s)^\top-C_k^{-1}\big)$, (B, *D, *D), with $g_k=C_k^{-1}(\alpha\mu_k-x)$ and the score $s=\sum_kr_kg_k$.

        By Tweedie's second order, $\mathrm{Cov}[x_0\mid x]=\frac{\sigma^2}{\alpha^2}(I+\sigma^2\nabla^2\log p)$; this form exists at $\sigma=0$ and $\alpha=0$ too.
        """
        log_joint, whitened, noised = self._joint(x, alpha, sigma)
        responsibilities, g = log_joint.softmax(-1), -self._rotated_back(whitened)
        gap = g - torch.einsum("bk,bkd->bd", responsibilities, g)[:, None]
        hessian = torch.einsum("bk,bki,bkj->bij", responsibilities, gap, gap) - self._average(responsibilities, 1 / noised)
        return hessian.reshape(len(x), *self.event, *self.event)

    def _average(self, responsibilities: Tensor, eigenvalues: Tensor) -> Tensor:
        """The mean over k of matrices given by their eigenvalues in the basis of component k, (B, d, d)."""
        eigenvalues = eigenvalues.expand(*responsibilities.shape, -1)
        if self._basis is None:
            return torch.diag_embed(torch.einsum("bk,bkd->bd", responsibilities, eigenvalues))
        basis = self._basis.to(responsibilities)
        return torch.einsum("bk,kij,bkj,klj->bil", responsibilities, basis, eigenvalues, basis)

    def _joint(self, x: Tensor, alpha: Level, sigma: Level) -> tuple[Tensor, Tensor, Tensor]:
        """log w_k N(x; alpha mu_k, C_k) (B, K); C_k^-1 (x - alpha mu_k) in the eigenbasis (B, K, d); eigenvalues of C_k."""
        flat, a, s = self._flat(x), self._level(alpha, x, 2), self._level(sigma, x, 2)
        gap = flat[:, None] - a * self.means.to(x)
        if self._basis is not None:
            gap = torch.einsum("bki,kij->bkj", gap, self._basis.to(x))
        noised = a**2 * self._variances.to(x) + s**2
        whitened = gap / noised
        quadratic = (gap * whitened).sum(-1)
        log_det = noised.log().sum(-1)
        log_joint = self.weights.log().to(x) - 0.5 * (quadratic + log_det + flat.shape[1] * math.log(2 * math.pi))
        return log_joint, whitened, noised

    def _components(self, x: Tensor, alpha: Level, sigma: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Responsibilities (B, K), component posterior means (B, K, d), eigenvalues of C_k."""
        log_joint, whitened, noised = self._joint(x, alpha, sigma)
        shift = self._rotated_back(self._level(alpha, x, 2) * self._variances.to(x) * whitened)
        return log_joint.softmax(-1), self.means.to(x) + shift, noised

    def _rotated_back(self, z: Tensor) -> Tensor:
        return z if self._basis is None else torch.einsum("bkj,kij->bki", z, self._basis.to(z))


class Gaussian(GaussianMixture):
    r"""$\mathcal N(\mu,\Sigma)$. mean: (*D). covariance: a number, (*D) diagonal, or (d, d) full.

    >>> import torch
    >>> from diffusion_core import Gaussian
    >>> data = Gaussian([0.0, 0.0], [3.0, 1.0])
    >>> # each coordinate shrinks by v / (v + sigma^2)
    >>> data.posterior_mean(torch.tensor([[1.0, 1.0]]), alpha=1.0, sigma=1.0).tolist()
    [[0.75, 0.5]]
    """

    def __init__(self, mean: Numbers, covariance: Numbers):
        mean, covariance = torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(covariance, dtype=torch.float64)
        super().__init__(mean[None], covariance if covariance.ndim == 0 else covariance[None])


def two_peaks() -> GaussianMixture:
    """The book's 1-D mixture: weights .3 and .7, means -1.5 and 1, standard deviations .3 and .5; x is (B,).

    >>> import torch
    >>> from diffusion_core import two_peaks
    >>> x = torch.linspace(-6, 6, 2001)
    >>> # a density, noised or not
    >>> round(torch.trapezoid(two_peaks().log_prob(x, 0.8, 0.6).exp(), x).item(), 4)
    1.0
    """
    return GaussianMixture([-1.5, 1.0], [0.09, 0.25], [0.3, 0.7])


def ring() -> GaussianMixture:
    """The book's 2-D mixture: eight equal Gaussians on a circle of radius 1.4, standard deviation .1; x is (B, 2).

    >>> import torch
    >>> from diffusion_core import ring
    >>> samples = ring().sample(1000, torch.Generator().manual_seed(0))
    >>> round(samples.norm(dim=1).mean().item(), 1), round(samples.std().item(), 1)
    (1.4, 1.0)
    """
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    return GaussianMixture(1.4 * torch.stack([angle.cos(), angle.sin()], -1), 0.01)


def _eigen(covariances: Tensor, means: Tensor, event: torch.Size) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (K, d) and, for full covariances, eigenvectors (K, d, d) in columns."""
    k, d = means.shape
    basis = None
    if covariances.ndim == 0:
        variances = covariances.expand(k, d)
    elif covariances.shape == (k,):
        variances = covariances[:, None].expand(k, d)
    elif covariances.shape == (k, *event):
        variances = covariances.reshape(k, d)
    elif covariances.shape == (k, d, d):
        if not torch.allclose(covariances, covariances.mT, rtol=1e-8, atol=1e-12):
            raise ValueError("a full covariance must be symmetric; use (C + C.mT) / 2")
        variances, basis = torch.linalg.eigh(covariances)
    else:
        raise ValueError(f"covariances must be a number or have shape ({k},), {(k, *event)} or {(k, d, d)}, got {tuple(covariances.shape)}")
    if not bool(((variances > 0) & variances.isfinite()).all()):
        raise ValueError("every covariance must be positive definite (a positive variance in every direction); for point masses use Empirical")
    return variances, basis
