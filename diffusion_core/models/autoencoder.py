r"""A small variational autoencoder of 28 x 28 gray images (Kingma and Welling 2014): plain torch, one file."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class ELBO(NamedTuple):
    """The two parts of the bound, (B,) nats each: total = reconstruction - kl.

    >>> import torch
    >>> from diffusion_core.models.autoencoder import ELBO
    >>> ELBO(reconstruction=torch.tensor([-2.0]), kl=torch.tensor([0.5])).total.item()
    -2.5
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def total(self) -> Tensor:
        return self.reconstruction - self.kl


class VAE(nn.Module):
    r"""$p(z)=\mathcal N(0,I)$, $p(x|z)=\mathcal N(\mathrm{decode}(z),\ e^\ell I)$, $q(z|x)=\mathcal N(\mu(x),\ \mathrm{diag}\,e^{v(x)})$.

    x is (B, 1, 28, 28) in [-1, 1], z is (B, latent); $\ell$ = `decoder_log_var` is one learned number. `parts(x)` splits the bound that
    `elbo(x)` returns. Raises ValueError for sizes below 1 and for inputs of another shape.

    >>> import torch
    >>> from diffusion_core import VAE
    >>> vae, x = VAE(latent=8), torch.zeros(2, 1, 28, 28)
    >>> bound = vae.parts(x, torch.Generator().manual_seed(0))
    >>> elbo = vae.elbo(x, torch.Generator().manual_seed(0))
    >>> torch.equal(elbo, bound.reconstruction - bound.kl)
    True
    """

    def __init__(self, latent: int = 8, width: int = 16):
        super().__init__()
        if latent < 1 or width < 1:
            raise ValueError(f"latent and width must be at least 1, got {latent} and {width}")
        self.latent = latent
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1), nn.SiLU(), nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Linear(2 * width * 49, 128), nn.SiLU(), nn.Linear(128, 2 * latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, 128), nn.SiLU(), nn.Linear(128, 2 * width * 49), nn.SiLU(), nn.Unflatten(1, (2 * width, 7, 7)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.SiLU(), nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
        )
        self.decoder_log_var = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""$(\mu, v)$ of $q(z|x)$, each (B, latent)."""
        if x.ndim != 4 or x.shape[1:] != (1, 28, 28):
            raise ValueError(f"the images must be of shape (B, 1, 28, 28), got {tuple(x.shape)}; add the channel with x[:, None] or resize them")
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return mean, log_var

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z), (B, 1, 28, 28)."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"the codes must be of shape (B, {self.latent}), got {tuple(z.shape)}")
        return self.decoder(z)

    @staticmethod
    def reparametrize(mean: Tensor, log_var: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""$z=\mu+e^{v/2}\epsilon$, $\epsilon\sim\mathcal N(0,I)$: a sample that is differentiable in both."""
        where = generator.device if generator is not None else mean.device
        eps = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=where).to(mean.device)
        return mean + torch.exp(0.5 * log_var) * eps

    def parts(self, x: Tensor, generator: torch.Generator | None = None) -> ELBO:
        r"""$\log p(x|z)=-\frac12\sum_i\big[\ell+\log2\pi+(x_i-\hat x_i)^2e^{-\ell}\big]$ at one z drawn from q, and
        $\mathrm{KL}(q\|p)=\frac12\sum_j(\mu_j^2+e^{v_j}-1-v_j)$, both (B,) in nats."""
        mean, log_var = self.encode(x)
        error = (x - self.decode(self.reparametrize(mean, log_var, generator))).flatten(1)
        square = error.square().sum(1) * torch.exp(-self.decoder_log_var)
        reconstruction = -0.5 * (error.shape[1] * (self.decoder_log_var + math.log(2 * math.pi)) + square)
        kl = 0.5 * (mean.square() + torch.expm1(log_var) - log_var).sum(1)
        return ELBO(reconstruction, kl)

    def elbo(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""$\log p(x|z)-\mathrm{KL}(q(z|x)\|p(z))$ at one draw of z, (B,) nats: in expectation at most $\log p(x)$. Train on `-elbo(x).mean()`."""
        return self.parts(x, generator).total
