"""Score matching: the losses' means against each other by quadrature, enumeration and large samples; gradients by hand."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from paths import f64, generator, one_thread  # noqa: F401

from diffusion_core import (
    Gaussian,
    GaussianMixture,
    denoising_score_matching,
    draw_probes,
    explicit_score_matching,
    implicit_score_matching,
    score_of,
    sliced_score_matching,
    sliced_score_matching_vr,
    two_peaks,
)

WEIGHTS, MEANS, STDS = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.3, 0.5])
GRID = np.linspace(-14, 14, 40_001)
SLICED = {"SSM": sliced_score_matching, "SSM-VR": sliced_score_matching_vr}


def peaks(x, sigma=0.0):
    """Density and score of two_peaks with noise of level sigma added, typed once more."""
    variances = STDS**2 + sigma**2
    parts = WEIGHTS * scipy.stats.norm.pdf(x[..., None], MEANS, np.sqrt(variances))
    return parts.sum(-1), (parts * (MEANS - x[..., None]) / variances).sum(-1) / parts.sum(-1)


def integral(values, density):
    return np.trapezoid(np.asarray(values.detach()) * density, GRID)


def wrong_score(x):
    """No score of anything: a field in one dimension, or in two with a Jacobian that is not symmetric."""
    return 0.6 * torch.sin(2 * x) - 0.8 * x + (0.3 * x.flip(-1) ** 2 if x.ndim > 1 else 0.2)


def plane():
    """A mixture in the plane with full covariances."""
    return GaussianMixture([[-1.0, 0.2], [0.8, -0.5]], [[[0.5, 0.2], [0.2, 0.3]], [[0.4, -0.1], [-0.1, 0.6]]], [0.4, 0.6])


def mean_square_score(world, sigma=0.0):
    """E ||grad log q||^2 by quadrature in the plane; the gradient by differences of scipy's log-density."""
    axis = np.linspace(-7, 7, 701)
    at = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    covariances = [[[0.5, 0.2], [0.2, 0.3]], [[0.4, -0.1], [-0.1, 0.6]]]
    density = sum(
        w * scipy.stats.multivariate_normal.pdf(at, m, np.array(c) + sigma**2 * np.eye(2)) for w, m, c in zip((0.4, 0.6), ([-1.0, 0.2], [0.8, -0.5]), covariances)
    )
    slopes = np.gradient(density, axis, axis, edge_order=2)
    return np.trapezoid(np.trapezoid(sum(s**2 for s in slopes) / density, axis), axis)


# ---------------------------------------------------------------------------------------------- one dimension: quadrature


def test_explicit_is_half_the_fisher_divergence():
    density, score = peaks(GRID)
    x = f64(GRID)
    got = explicit_score_matching(wrong_score, x, two_peaks().score)
    torch.testing.assert_close(got, 0.5 * (wrong_score(x) - f64(score)) ** 2)
    assert float(explicit_score_matching(two_peaks().score, x, two_peaks().score).abs().max()) == 0
    assert integral(got, density) > 0.5


def test_implicit_differs_from_explicit_by_half_the_mean_square_score():
    """Pitfall 24."""
    density, score = peaks(GRID)
    constant = np.trapezoid(0.5 * score**2 * density, GRID)
    for s in (wrong_score, two_peaks().score, Gaussian(0.3, 1.7).score):
        difference = integral(implicit_score_matching(s, f64(GRID)), density) - integral(explicit_score_matching(s, f64(GRID), two_peaks().score), density)
        assert difference == pytest.approx(-constant, rel=1e-8)
    for loss in SLICED.values():  # in one dimension a Rademacher probe is +-1 and both are exact
        torch.testing.assert_close(loss(wrong_score, f64(GRID), generator=generator(1)), implicit_score_matching(wrong_score, f64(GRID)))


def test_where_p_s_does_not_vanish_the_boundary_term_stays():
    """A normal law cut to [-1, 1] and s = x: by parts, E[s'] = [p s] - E[s d log p], and [p s] = 2 p(1)."""
    inside = np.linspace(-1, 1, 20_001)
    density = scipy.stats.truncnorm.pdf(inside, -1, 1)
    s = lambda x: 1.0 * x
    implicit, explicit = (np.trapezoid(np.asarray(v.detach()) * density, inside) for v in (implicit_score_matching(s, f64(inside)), explicit_score_matching(s, f64(inside), lambda x: -x)))
    constant = 0.5 * np.trapezoid(inside**2 * density, inside)
    assert implicit - explicit == pytest.approx(2 * density[-1] - constant, rel=1e-7) and density[-1] > 0.3


@pytest.mark.parametrize("sigma", [0.2, 1.5])
def test_denoising_differs_from_explicit_on_the_noised_density(sigma, monkeypatch):
    """Pitfall 25, by quadrature over x and over z: the noise is Gauss-Hermite nodes in place of draws."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights /= weights.sum()
    density, _ = peaks(GRID)
    got = 0.0
    for node, weight in zip(nodes, weights):
        monkeypatch.setattr("diffusion_core.score_matching.normal_like", lambda x, generator, z=node: torch.full_like(x, z))
        got += weight * integral(denoising_score_matching(wrong_score, f64(GRID), sigma), density)
    noised, score = peaks(GRID, sigma)
    explicit = integral(explicit_score_matching(wrong_score, f64(GRID), lambda x: two_peaks().score(x, 1.0, sigma)), noised)
    constant = 0.5 * (1 / sigma**2 - np.trapezoid(score**2 * noised, GRID))
    assert got - explicit == pytest.approx(constant, rel=1e-6)
    clean = integral(explicit_score_matching(wrong_score, f64(GRID), two_peaks().score), density)
    assert abs(got - clean - constant) > 0.1  # not the score of p


# ---------------------------------------------------------------------------------------------- two dimensions


def test_implicit_and_explicit_in_the_plane_with_error_bars():
    world, n = plane(), 200_000
    x = world.sample(n, generator(2), torch.float64)
    with torch.no_grad():
        difference = implicit_score_matching(wrong_score, x) - explicit_score_matching(wrong_score, x, world.score)
    stderr = float(difference.std()) / math.sqrt(n)
    assert abs(float(difference.mean()) + 0.5 * mean_square_score(world)) < 5 * stderr and stderr < 0.01


def test_denoising_and_explicit_in_the_plane_with_error_bars():
    world, n, sigma = plane(), 200_000, 0.5
    x = world.sample(n, generator(3), torch.float64)
    noised = x + sigma * torch.randn(x.shape, generator=generator(4), dtype=torch.float64)
    difference = denoising_score_matching(wrong_score, x, sigma, generator(4)) - explicit_score_matching(wrong_score, noised, lambda u: world.score(u, 1.0, sigma))
    stderr = float(difference.std()) / math.sqrt(n)
    assert abs(float(difference.mean()) - 0.5 * (2 / sigma**2 - mean_square_score(world, sigma))) < 5 * stderr and stderr < 0.02


def test_slices_average_to_the_whole_over_every_sign_vector():
    x = torch.randn(5, 2, generator=generator(5), dtype=torch.float64)
    signs = f64(list(itertools.product([-1.0, 1.0], repeat=2)))[:, None].expand(4, 5, 2)
    want = implicit_score_matching(wrong_score, x)
    for name, loss in SLICED.items():
        torch.testing.assert_close(loss(wrong_score, x, signs), want, rtol=1e-12, atol=1e-12)
        each = torch.stack([loss(wrong_score, x, v[None]) for v in signs])
        assert float((each - want).detach().abs().max()) > 0.05, name


def test_slices_by_hand():
    """1/2 (v s)^2 + v J v, and for SSM-VR 1/2 s s + v J v, with the Jacobian in closed form."""
    x = torch.randn(5, 2, generator=generator(6), dtype=torch.float64)
    v = draw_probes(x, 3, "gaussian", generator(7))
    s = wrong_score(x)
    j = torch.diag_embed(1.2 * torch.cos(2 * x) - 0.8)
    j[:, 0, 1], j[:, 1, 0] = 0.6 * x[:, 1], 0.6 * x[:, 0]
    curvature = torch.einsum("nbi,bij,nbj->b", v, j, v) / 3
    torch.testing.assert_close(sliced_score_matching(wrong_score, x, 3, "gaussian", generator(7)), 0.5 * torch.einsum("nbi,bi->nb", v, s).square().mean(0) + curvature)
    torch.testing.assert_close(sliced_score_matching_vr(wrong_score, x, 3, "gaussian", generator(7)), 0.5 * s.square().sum(1) + curvature)
    torch.testing.assert_close(implicit_score_matching(wrong_score, x), 0.5 * s.square().sum(1) + j.diagonal(dim1=1, dim2=2).sum(1))
    for loss in SLICED.values():
        assert torch.equal(loss(wrong_score, x, 3, "gaussian", generator(7)), loss(wrong_score, x, v))
        assert torch.equal(loss(wrong_score, x, 3, generator=generator(7)), loss(wrong_score, x, draw_probes(x, 3, "rademacher", generator(7))))


def test_the_variance_that_vr_removes():
    """At a point with J = 0 nothing is left of SSM-VR's variance, and SSM keeps that of 1/2 (v s)^2: for Gaussian probes ||s||^4 / 2."""
    s = f64([1.2, -0.7])
    constant = lambda x: s + 0 * x
    x = torch.zeros(100_000, 2, dtype=torch.float64)
    with torch.no_grad():
        plain, reduced = (loss(constant, x, 1, "gaussian", generator(8)) for loss in SLICED.values())
    assert float(reduced.std()) == 0 and float(reduced[0]) == pytest.approx(0.5 * float(s @ s))
    assert float(plain.var()) == pytest.approx(0.5 * float(s @ s) ** 2, rel=0.05)


def test_denoising_by_hand():
    for shape in ((6,), (6, 2), (6, 1, 2, 2)):
        x = torch.randn(shape, generator=generator(9), dtype=torch.float64)
        z = torch.randn(shape, generator=generator(10), dtype=torch.float64)
        f = lambda u: -0.5 * u
        for sigma in (0.4, f64(0.4), torch.tensor(0.4), f64([0.1, 0.2, 0.4, 0.8, 1.0, 3.0])):
            level = f64(sigma).reshape(-1, *[1] * (x.ndim - 1)) if f64(sigma).ndim else f64(sigma)
            want = 0.5 * (f(x + level * z) + z / level).square().reshape(6, -1).sum(1)
            torch.testing.assert_close(denoising_score_matching(f, x, sigma, generator(10)), want, rtol=1e-12, atol=1e-12)
    sigma = 0.4  # weighted with sigma^2: the error of the noise, for a score that is eps_hat / -sigma
    eps_hat = 0.2 * (x + sigma * z)
    weighted = sigma**2 * denoising_score_matching(lambda u: -0.2 * u / sigma, x, sigma, generator(10))
    torch.testing.assert_close(weighted, 0.5 * (eps_hat - z).square().reshape(6, -1).sum(1))


@pytest.mark.parametrize("shape", [(4,), (1,), (4, 3), (1, 3), (4, 1, 2, 2)])
def test_one_number_a_sample_whatever_the_others_are(shape):
    x = torch.randn(shape, generator=generator(11))
    v = draw_probes(x, 2, generator=generator(12))
    f = lambda u: -u + torch.sin(u)
    losses = {
        "explicit": lambda x, v: explicit_score_matching(f, x, lambda u: -u), "implicit": lambda x, v: implicit_score_matching(f, x),
        "SSM": lambda x, v: sliced_score_matching(f, x, v), "SSM-VR": lambda x, v: sliced_score_matching_vr(f, x, v),
        "denoising": lambda x, v: denoising_score_matching(f, x, 0.3, generator(13)),
    }
    for name, loss in losses.items():
        values = loss(x, v)
        assert values.shape == (len(x),) and values.dtype == torch.float32, name
        if name != "denoising":
            torch.testing.assert_close(values[-1:], loss(x[-1:], v[:, -1:]))


# ---------------------------------------------------------------------------------------------- gradients


def test_the_gradients_that_train():
    """s = -theta x on samples in one dimension: every loss is a quadratic in theta with coefficients in closed form."""
    x, sigma = two_peaks().sample(5000, generator(14), torch.float64), 0.6
    theta = f64(0.4).requires_grad_()
    s = lambda u: -theta * u
    z = torch.randn(5000, generator=generator(15), dtype=torch.float64)
    noised, power = x + sigma * z, (x**2).mean()
    for loss, want in (
        (implicit_score_matching(s, x), 0.4 * power - 1),
        (sliced_score_matching(s, x, 2, generator=generator(1)), 0.4 * power - 1),
        (sliced_score_matching_vr(s, x, 2, generator=generator(1)), 0.4 * power - 1),
        (explicit_score_matching(s, x, two_peaks().score), 0.4 * power + (x * two_peaks().score(x)).mean()),
        (denoising_score_matching(s, x, sigma, generator(15)), 0.4 * (noised**2).mean() - (noised * z).mean() / sigma),
    ):
        torch.testing.assert_close(torch.autograd.grad(loss.mean(), theta)[0], want)


def test_the_gradients_that_train_an_energy():
    """-log p = theta x^4 / 4 + x^2 / 2: the loss is 1/2 (theta x^3 + x)^2 - 3 theta x^2 - 1."""
    x, theta = torch.randn(50, generator=generator(16), dtype=torch.float64), f64(0.4).requires_grad_()
    score = score_of(lambda u: -theta * u**4 / 4 - u**2 / 2)
    for loss in (implicit_score_matching, sliced_score_matching, sliced_score_matching_vr):
        values = loss(score, x)
        torch.testing.assert_close(values, 0.5 * (theta * x**3 + x) ** 2 - 3 * theta * x**2 - 1)
        torch.testing.assert_close(torch.autograd.grad(values.sum(), theta)[0], ((0.4 * x**3 + x) * x**3 - 3 * x**2).sum())


def test_without_gradients():
    x = torch.randn(4, 2, generator=generator(17))
    f = torch.nn.Linear(2, 2)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for loss in (explicit_score_matching(f, x, f), implicit_score_matching(f, x), sliced_score_matching(f, x), sliced_score_matching_vr(f, x), denoising_score_matching(f, x, 1.0)):
                assert not loss.requires_grad and bool(loss.isfinite().all())


# ---------------------------------------------------------------------------------------------- errors

X = torch.zeros(4, 2)


@pytest.mark.parametrize(("wrong", "message"), [
    *((lambda s=s: denoising_score_matching(torch.neg, X, s), "positive and finite") for s in (0.0, -1.0, math.nan, math.inf, f64([1.0, 1.0, 0.0, 1.0]))),
    (lambda: denoising_score_matching(torch.neg, X, f64([1.0, 2.0])), "one coefficient a sample"),
    (lambda: denoising_score_matching(lambda x: x[:, :1], X, 1.0), "must return the shape of x"),
    (lambda: explicit_score_matching(lambda x: x[:, 0], X, torch.neg), "must return the shape of x"), (lambda: explicit_score_matching(torch.neg, X, lambda x: x.sum()), "must return the shape of x"),
    (lambda: explicit_score_matching(torch.neg, X, lambda x: None), "got NoneType"),
    *((lambda loss=loss: loss(lambda x: x[:1], X), "must return the shape of x") for loss in (implicit_score_matching, *SLICED.values())),
    *((lambda loss=loss: loss(torch.zeros_like, X), "no differentiable path") for loss in (implicit_score_matching, *SLICED.values())),
    *((lambda loss=loss: loss(torch.neg, X, 0), "positive integer") for loss in SLICED.values()),
    *((lambda loss=loss: loss(torch.neg, X, 1, "sphere"), "rademacher") for loss in SLICED.values()),
    *((lambda loss=loss: loss(torch.neg, X, torch.ones(4, 2)), r"shape \(n, 4, 2\)") for loss in SLICED.values()),
])
def test_what_cannot_be_meant_raises(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
