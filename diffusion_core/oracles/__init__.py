r"""Oracles: distributions whose noised density, score and best denoiser are known in closed form, at every point of every Gaussian path.

Use one where you would use a network, to find out whether an error comes from the network or from your sampler.

If $x_0\sim\sum_kw_k\mathcal N(\mu_k,\Sigma_k)$ then $x_t=\alpha x_0+\sigma\epsilon\sim\sum_kw_k\mathcal N(\alpha\mu_k,C_k)$ with
$C_k=\alpha^2\Sigma_k+\sigma^2I$: the density, the score, the denoiser and the posterior covariance are sums over k.
No network does better on their data. Derived in chapters 01 and 10.
"""

from diffusion_core.oracles.base import ExactDenoiser, Oracle
from diffusion_core.oracles.empirical import Empirical
from diffusion_core.oracles.mixtures import Gaussian, GaussianMixture, ring, two_peaks

__all__ = ["Empirical", "ExactDenoiser", "Gaussian", "GaussianMixture", "Oracle", "ring", "two_peaks"]
