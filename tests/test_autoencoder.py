"""The variational autoencoder: its bound against torch.distributions, closed forms and finite differences."""

import math

import pytest
import torch
from paths import f64, generator, one_thread  # noqa: F401
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from diffusion_core import VAE


def pictures(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 1, 28, 28, generator=generator(), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize(("latent", "width"), [(8, 16), (2, 4), (1, 1)])
def test_shapes_and_every_weight_takes_part(latent, width):
    vae, x = VAE(latent, width).double(), pictures()
    mean, log_var = vae.encode(x)
    assert mean.shape == log_var.shape == (3, latent) and vae.decode(mean).shape == x.shape
    bound = vae.elbo(x, generator())
    assert bound.shape == (3,) and torch.equal(bound, vae.elbo(x, generator())) and not torch.equal(bound, vae.elbo(x, generator(1)))
    bound.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in vae.parameters())


def test_the_two_parts_are_those_of_torch_distributions():
    vae, x = VAE(3, 4).double(), pictures()
    with torch.no_grad():
        vae.decoder_log_var.fill_(-1.3)
    mean, log_var = vae.encode(x)
    std = torch.exp(log_var / 2)
    z = mean + std * torch.randn(3, 3, generator=generator(5), dtype=torch.float64)
    parts = vae.parts(x, generator(5))
    torch.testing.assert_close(parts.kl, kl_divergence(Normal(mean, std), Normal(f64(0.0), f64(1.0))).sum(1))
    torch.testing.assert_close(parts.reconstruction, Normal(vae.decode(z), math.exp(-0.65)).log_prob(x).flatten(1).sum(1))
    torch.testing.assert_close(vae.elbo(x, generator(5)), parts.reconstruction - parts.kl)


def test_with_the_exact_posterior_of_a_linear_model_the_bound_is_the_evidence():
    """x = W z + e with W'W = c I: q is the true posterior, so the mean over draws is log p(x) of a 784-dimensional Gaussian."""
    vae, noise, c = VAE(2, 1).double(), 0.5, 4.0
    w = torch.linalg.qr(torch.randn(784, 2, generator=generator(2), dtype=torch.float64))[0] * math.sqrt(c)
    decode, encode = nn.Linear(2, 784, bias=False).double(), nn.Linear(784, 4).double()
    with torch.no_grad():
        decode.weight.copy_(w)
        encode.weight.copy_(torch.cat([w.T / (c + noise), torch.zeros(2, 784, dtype=torch.float64)]))
        encode.bias.copy_(f64([0, 0, *[math.log(noise / (c + noise))] * 2]))
        vae.decoder_log_var.fill_(math.log(noise))
    vae.encoder, vae.decoder = nn.Sequential(nn.Flatten(), encode), nn.Sequential(decode, nn.Unflatten(1, (1, 28, 28)))
    x = pictures(1)
    want = MultivariateNormal(torch.zeros(784, dtype=torch.float64), w @ w.T + noise * torch.eye(784, dtype=torch.float64)).log_prob(x.flatten(1))
    with torch.no_grad():
        draws = vae.elbo(x.expand(4000, -1, -1, -1), generator(3))
    assert abs(float(draws.mean() - want)) < 5 * float(draws.std()) / math.sqrt(4000) < 0.2


def test_the_gradient_through_a_draw_is_a_finite_difference():
    mean, log_var = f64([[0.3, -1.0]]).requires_grad_(), f64([[-0.4, 0.7]]).requires_grad_()
    value = lambda m, v: (VAE.reparametrize(m, v, generator(4)) ** 3).sum()
    got = torch.autograd.grad(value(mean, log_var), (mean, log_var))
    for j in (0, 1):
        h = 1e-5 * torch.nn.functional.one_hot(torch.tensor([j]), 2).double()
        with torch.no_grad():
            by_mean = (value(mean + h, log_var) - value(mean - h, log_var)) / 2e-5
            by_log_var = (value(mean, log_var + h) - value(mean, log_var - h)) / 2e-5
        assert float(got[0][0, j]) == pytest.approx(float(by_mean), rel=1e-7)
        assert float(got[1][0, j]) == pytest.approx(float(by_log_var), rel=1e-7)


@pytest.mark.parametrize("wrong", [
    lambda: VAE(0), lambda: VAE(8, 0), lambda: VAE().encode(torch.zeros(2, 28, 28)), lambda: VAE().elbo(torch.zeros(2, 3, 28, 28)),
    lambda: VAE().decode(torch.zeros(2, 3)), lambda: VAE().decode(torch.zeros(8)),
])
def test_what_does_not_fit_raises(wrong):
    with pytest.raises(ValueError, match="must be"):
        wrong()
