"""The exact worlds against quadrature, autograd, dense linear algebra and large samples."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from paths import SCHEDULES, f64, generator, one_thread  # noqa: F401
from scipy.integrate import quad

from diffusion_core import Empirical, Gaussian, GaussianMixture, LinearVP, Straight, ring, two_peaks

WEIGHTS, MEANS, STDS = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.3, 0.5])
LEVELS = [(1.0, 0.05), (0.8, 0.6), (0.1, 0.995), (1.0, 7.0), (0.0, 1.0), (1e-3, 1.0), (0.999, 0.004)]


def density(x_0):
    return (WEIGHTS * scipy.stats.norm.pdf(np.asarray(x_0)[..., None], MEANS, STDS)).sum(-1)


def moment(x, alpha, sigma, power, center=0.0):
    """The integral of (x_0 - center)^power p(x_0) N(x; alpha x_0, sigma^2) over x_0."""
    low, high = -1.5 - 0.3 * 12, 1.0 + 0.5 * 12
    points = [-1.5, 1.0]
    if alpha > 0:
        low, high = max(low, (x - 14 * sigma) / alpha), min(high, (x + 14 * sigma) / alpha)
        points = [p for p in (-1.5, 1.0, x / alpha) if low < p < high]
    value, _ = quad(lambda u: (u - center) ** power * density(u) * scipy.stats.norm.pdf(x, alpha * u, sigma), low, high, points=points, epsabs=0, epsrel=1e-11, limit=500)
    return value


def full_mixture():
    """Three Gaussians in three dimensions, with full covariances that do not commute."""
    roots = torch.randn(3, 3, 3, generator=generator(5), dtype=torch.float64)
    covariances = 0.3 * roots @ roots.mT + 0.1 * torch.eye(3, dtype=torch.float64)
    return GaussianMixture(1.5 * torch.randn(3, 3, generator=generator(6), dtype=torch.float64), covariances, [0.5, 0.2, 0.3]), covariances


def worlds():
    g = generator(9)
    return {
        "two_peaks": two_peaks(),
        "ring": ring(),
        "full": full_mixture()[0],
        "diagonal": GaussianMixture(torch.randn(4, 3, generator=g), 0.1 + torch.rand(4, 3, generator=g), torch.rand(4, generator=g) + 0.1),
        "gaussian": Gaussian([1.0, -2.0], [[2.0, 0.6], [0.6, 0.5]]),
        "images": GaussianMixture(torch.randn(3, 1, 2, 2, generator=g), 0.05 + torch.rand(3, 1, 2, 2, generator=g)),
        "empirical": Empirical(torch.randn(7, 2, generator=g, dtype=torch.float64)),
    }


WORLDS = worlds()
each = pytest.mark.parametrize("name", WORLDS)


def points(world, n=5, seed=2):
    return 1.5 * torch.randn(n, *world.event, generator=generator(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------------------- one dimension: quadrature


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_density_and_posterior_are_quadratures(alpha, sigma):
    world = two_peaks()
    x = f64([-1.8, -0.2, 0.3, 1.1]) * alpha + f64([-1.0, 0.5, 1.0, 2.0]) * sigma
    want = []
    for point in x.tolist():
        evidence = moment(point, alpha, sigma, 0)
        mean = moment(point, alpha, sigma, 1) / evidence
        want.append((math.log(evidence), mean, moment(point, alpha, sigma, 2, mean) / evidence))
    log_prob, mean, variance = (f64(column) for column in zip(*want))
    torch.testing.assert_close(world.log_prob(x, alpha, sigma), log_prob, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(world.posterior_mean(x, alpha, sigma), mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(world.posterior_cov(x, alpha, sigma), variance, rtol=1e-8, atol=1e-12)


def test_book_mixtures_are_the_stated_ones():
    x = np.linspace(-3, 3, 31)
    np.testing.assert_allclose(two_peaks().log_prob(f64(x)).numpy(), np.log(density(x)), rtol=1e-12)
    angles = np.arange(8) * np.pi / 4
    centers = 1.4 * np.stack([np.cos(angles), np.sin(angles)], -1)
    point = np.array([1.2, 0.3])
    want = np.log(np.mean([scipy.stats.multivariate_normal.pdf(point, c, 0.01 * np.eye(2)) for c in centers]))
    assert ring().log_prob(f64(point)[None]).item() == pytest.approx(want, rel=1e-11)


# ---------------------------------------------------------------------------------------------- several dimensions


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.0), (0.7, 0.5), (0.0, 1.0), (1.0, 9.0)])
def test_full_covariances_against_scipy(alpha, sigma):
    world, covariances = full_mixture()
    x = points(world)
    joint = np.stack([w * scipy.stats.multivariate_normal.pdf(x.numpy(), alpha * m.numpy(), alpha**2 * c.numpy() + sigma**2 * np.eye(3)) for w, m, c in zip((0.5, 0.2, 0.3), world.means, covariances)], -1)
    np.testing.assert_allclose(world.log_prob(x, alpha, sigma).numpy(), np.log(joint.sum(-1)), rtol=1e-11)
    share = joint / joint.sum(-1, keepdims=True)
    mean, second = np.zeros((5, 3)), np.zeros((5, 3, 3))
    for k in range(3):
        m, c = world.means[k].numpy(), covariances[k].numpy()
        gain = alpha * c @ np.linalg.inv(alpha**2 * c + sigma**2 * np.eye(3))
        component = m + (x.numpy() - alpha * m) @ gain.T
        spread = c - alpha * gain @ c
        mean += share[:, k, None] * component
        second += share[:, k, None, None] * (spread + component[:, :, None] * component[:, None, :])
    np.testing.assert_allclose(world.posterior_mean(x, alpha, sigma).numpy(), mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(world.posterior_cov(x, alpha, sigma).numpy(), second - mean[:, :, None] * mean[:, None, :], rtol=1e-9, atol=1e-11)


@each
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.3), (0.6, 0.8), (0.0, 1.0)])
def test_score_is_the_gradient_of_the_log_density(name, alpha, sigma):
    world = WORLDS[name]
    x = points(world).requires_grad_()
    (want,) = torch.autograd.grad(world.log_prob(x, alpha, sigma).sum(), x)
    torch.testing.assert_close(world.score(x, alpha, sigma), want, rtol=1e-9, atol=1e-10)
    assert want.shape == x.shape


@each
def test_tweedie(name):
    """E[x_0|x] = (x + sigma^2 score) / alpha, Cov[x_0|x] = sigma^2 / alpha^2 (I + sigma^2 d score/dx) = sigma^2 / alpha dE[x_0|x]/dx."""
    world, alpha, sigma = WORLDS[name], 0.7, 0.4
    x = points(world)
    torch.testing.assert_close(world.posterior_mean(x, alpha, sigma), (x + sigma**2 * world.score(x, alpha, sigma)) / alpha, rtol=1e-10, atol=1e-11)
    d = max(1, math.prod(world.event))
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda u: world.posterior_mean(u[None], alpha, sigma)[0], row) for row in x])
    cov = world.posterior_cov(x, alpha, sigma)
    assert cov.shape == (5, *world.event, *world.event)
    torch.testing.assert_close(cov, sigma**2 / alpha * jacobian, rtol=1e-9, atol=1e-11)
    matrices = cov.reshape(5, d, d)
    assert float((matrices - matrices.mT).abs().max()) < 1e-12 and float(torch.linalg.eigvalsh(matrices).min()) > -1e-12


HESSIAN_LEVELS = [(1.0, 0.0), (1.0, 0.05), (0.7, 0.5), (0.1, 0.995), (1.0, 7.0), (0.0, 1.5)]


@pytest.mark.parametrize("name", [*WORLDS, "isotropic", "image_scalars", "empirical_scalars", "empirical_images"])
@pytest.mark.parametrize(("alpha", "sigma"), HESSIAN_LEVELS)
def test_hessian_is_the_second_derivative_of_the_log_density(name, alpha, sigma):
    world = {**WORLDS, **more_worlds()}[name]
    x = points(world, 4)
    if isinstance(world, Empirical) and sigma == 0:
        with pytest.raises(ValueError, match="sigma > 0"):
            world.hessian(x, alpha, sigma)
        return
    want = torch.stack([torch.autograd.functional.hessian(lambda u: world.log_prob(u[None], alpha, sigma)[0], row) for row in x])
    got = world.hessian(x, alpha, sigma)
    assert got.shape == (4, *world.event, *world.event) and got.dtype == torch.float64
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-7 * float(want.abs().max()))
    if 0 < alpha and 0 < sigma:  # Tweedie, second order
        eye = torch.eye(max(1, math.prod(world.event)), dtype=torch.float64).reshape(world.event + world.event)
        torch.testing.assert_close(world.posterior_cov(x, alpha, sigma), sigma**2 / alpha**2 * (eye + sigma**2 * got), rtol=1e-6, atol=1e-9 / alpha**2)


def more_worlds():
    g = generator(10)
    return {
        "isotropic": GaussianMixture(torch.randn(3, 2, generator=g), torch.rand(3, generator=g) + 0.1, [0.2, 0.5, 0.3]),
        "image_scalars": GaussianMixture(torch.randn(2, 1, 1, 1, generator=g), 0.3),
        "empirical_scalars": Empirical(torch.randn(6, generator=g, dtype=torch.float64)),
        "empirical_images": Empirical(torch.randn(5, 1, 2, 2, generator=g, dtype=torch.float64)),
    }


@pytest.mark.parametrize("name", [*WORLDS, "empirical_scalars", "empirical_images"])
def test_a_hessian_at_levels_of_its_own_for_each_sample(name):
    world = {**WORLDS, **more_worlds()}[name]
    x, alpha, sigma = points(world, 3), f64([0.9, 0.5, 0.1]), f64([0.2, 0.8, 1.0])
    each = [world.hessian(x[i : i + 1], alpha[i], sigma[i])[0] for i in range(3)]
    torch.testing.assert_close(world.hessian(x, alpha, sigma), torch.stack(each))


def test_posterior_by_self_normalised_sampling():
    """Weights N(x; alpha x_0, sigma^2) on prior draws, with the delta method's standard errors."""
    world, alpha, sigma, n = full_mixture()[0], 0.8, 0.7, 400_000
    draws = world.sample(n, generator(11), dtype=torch.float64)
    for x in points(world, 2):
        log = -((x - alpha * draws) ** 2).sum(-1) / (2 * sigma**2)
        weights = (log - log.max()).softmax(0)

        def estimate(values):
            mean = weights @ values
            return mean, torch.sqrt(weights**2 @ (values - mean) ** 2)

        mean, error = estimate(draws)
        exact = world.posterior_mean(x[None], alpha, sigma)[0]
        assert bool(((exact - mean).abs() <= 5 * error).all())
        gap = draws - exact
        cov, error = estimate((gap[:, :, None] * gap[:, None, :]).flatten(1))
        assert bool(((world.posterior_cov(x[None], alpha, sigma)[0].flatten() - cov).abs() <= 5 * error).all())


@each
def test_sample_moments(name):
    world, n = WORLDS[name], 200_000
    x = world.sample(n, generator(12)).double().reshape(n, -1)
    d = x.shape[1]
    origin = torch.zeros(1, *world.event, dtype=torch.float64)
    mean, cov = world.posterior_mean(origin, 0.0, 1.0).reshape(d), world.posterior_cov(origin, 0.0, 1.0).reshape(d, d)
    gap = x - mean
    outer = gap[:, :, None] * gap[:, None, :]
    assert bool((gap.mean(0).abs() <= 5 * gap.std(0) / math.sqrt(n)).all())
    assert bool(((outer.mean(0) - cov).abs() <= 5 * outer.std(0) / math.sqrt(n)).all())


def test_prior_moments_by_hand():
    """The moments that `test_sample_moments` takes from alpha = 0 are the mixture's own."""
    mean = WEIGHTS @ MEANS
    assert two_peaks().posterior_mean(f64([0.4]), 0.0, 1.0).item() == pytest.approx(mean, rel=1e-13)
    assert two_peaks().posterior_cov(f64([0.4]), 0.0, 1.0).item() == pytest.approx(WEIGHTS @ (STDS**2 + MEANS**2) - mean**2, rel=1e-13)


def test_samples_follow_the_density():
    x = two_peaks().sample(20_000, generator(13), dtype=torch.float64).numpy()
    cdf = lambda u: (WEIGHTS * scipy.stats.norm.cdf(np.asarray(u)[..., None], MEANS, STDS)).sum(-1)
    assert scipy.stats.kstest(x, cdf).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------- formats, shapes, dtypes, ends


def test_covariance_formats_agree_where_they_coincide():
    means = torch.randn(4, 3, generator=generator(1), dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    formats = [0.3, f64([0.3] * 4), torch.full((4, 3), 0.3, dtype=torch.float64), 0.3 * eye.expand(4, 3, 3)]
    x = torch.randn(6, 3, generator=generator(2), dtype=torch.float64)
    answers = [[w.log_prob(x, 0.7, 0.5), w.score(x, 0.7, 0.5), w.posterior_mean(x, 0.7, 0.5), w.posterior_cov(x, 0.7, 0.5)] for w in (GaussianMixture(means, f) for f in formats)]
    for other in answers[1:]:
        for a, b in zip(answers[0], other):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    diagonal = 0.1 + torch.rand(4, 3, generator=generator(3), dtype=torch.float64)
    a, b = GaussianMixture(means, diagonal), GaussianMixture(means, torch.diag_embed(diagonal))
    torch.testing.assert_close(a.posterior_cov(x, 0.7, 0.5), b.posterior_cov(x, 0.7, 0.5))
    one, many = Gaussian(means[0], torch.diag(diagonal[0])), GaussianMixture(means[:1], diagonal[:1])
    torch.testing.assert_close(one.score(x, 0.7, 0.5), many.score(x, 0.7, 0.5))


def test_equal_weights_are_the_default_and_weights_are_normalised():
    x = f64([0.1, 0.9])
    torch.testing.assert_close(GaussianMixture([0.0, 1.0], 1.0).log_prob(x), GaussianMixture([0.0, 1.0], 1.0, [3.0, 3.0]).log_prob(x))


@each
def test_levels_per_sample(name):
    world = WORLDS[name]
    x, alpha, sigma = points(world, 3), f64([0.9, 0.5, 0.1]), f64([0.2, 0.8, 1.5])
    for law in (world.log_prob, world.score, world.posterior_mean, world.posterior_cov):
        batched = law(x, alpha, sigma)
        for i in range(3):
            torch.testing.assert_close(batched[i], law(x[i : i + 1], float(alpha[i]), float(sigma[i]))[0], rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match="one coefficient a sample"):
        world.score(x, f64([0.9, 0.5]), 0.3)


@each
def test_float32_agrees_with_float64_and_stays_float32(name):
    world = WORLDS[name]
    x = points(world)
    for law in (world.log_prob, world.score, world.posterior_mean, world.posterior_cov, world.hessian):
        single = law(x.float(), 0.8, 0.6)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), law(x, 0.8, 0.6), rtol=2e-4, atol=2e-5)
    assert world.sample(3).shape == (3, *world.event)


def test_sample_dtype_and_generator():
    assert two_peaks().sample(3).dtype == torch.float32 and two_peaks().sample(3, dtype=torch.float64).dtype == torch.float64
    assert torch.equal(ring().sample(4, generator(1)), ring().sample(4, generator(1)))


@pytest.mark.parametrize("name", [n for n in WORLDS if n != "empirical"])
def test_the_ends(name):
    """sigma = 0: the image is what is seen. alpha = 0: nothing is seen, and the score is that of the noise."""
    world = WORLDS[name]
    x = points(world)
    torch.testing.assert_close(world.posterior_mean(x, 1.0, 0.0), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(world.posterior_mean(x, 0.5, 0.0), 2 * x, rtol=1e-12, atol=1e-12)
    assert float(world.posterior_cov(x, 1.0, 0.0).abs().max()) < 1e-12
    torch.testing.assert_close(world.score(x, 0.0, 2.0), -x / 4)
    prior = world.posterior_mean(x, 0.0, 1.0)
    torch.testing.assert_close(prior, prior[:1].expand_as(prior))


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "learned"])
def test_denoiser_on_every_path(name):
    schedule, world = SCHEDULES[name], two_peaks()
    denoise, x = world.denoiser(schedule), f64([-1.0, 0.2])
    for t in (0.0, 0.3, f64([0.1, 0.9]), 1.0):
        alpha, sigma = schedule(t)
        torch.testing.assert_close(denoise(x, t), world.posterior_mean(x, alpha, sigma))
    assert denoise.schedule is schedule and bool(denoise(x, 1.0).isfinite().all())
    assert torch.equal(denoise.predict(x, 0.3), denoise(x, 0.3))


def test_far_tails_stay_finite():
    world = two_peaks()
    x = f64([-1e4, 1e4])
    for law in (world.log_prob, world.score, world.posterior_mean, world.posterior_cov, world.hessian):
        assert bool(law(x, 1.0, 0.01).isfinite().all()) and bool(law(x.float(), 1.0, 0.01).isfinite().all())
    torch.testing.assert_close(world.score(x), -(x - f64([1.0, 1.0])) / 0.25)


def test_vmap_over_points():
    world = full_mixture()[0]
    x = points(world)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda u: world.score(u[None], 0.8, 0.6)[0]))(x)
    torch.testing.assert_close(jacobian, jacobian.mT)


# ---------------------------------------------------------------------------------------------- the empirical measure


def test_empirical_is_a_softmax_by_brute_force():
    data = torch.randn(9, 2, 3, generator=generator(4), dtype=torch.float64)
    world, alpha, sigma = Empirical(data), 0.8, 0.35
    x = 0.9 * torch.randn(4, 2, 3, generator=generator(5), dtype=torch.float64)
    for i in range(4):
        p = np.array([scipy.stats.norm.pdf(x[i].numpy().ravel(), alpha * row.numpy().ravel(), sigma).prod() for row in data])
        assert world.log_prob(x, alpha, sigma)[i].item() == pytest.approx(math.log(p.mean()), rel=1e-11)
        mean = np.tensordot(p / p.sum(), data.numpy(), 1)
        np.testing.assert_allclose(world.posterior_mean(x, alpha, sigma)[i].numpy(), mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(world.score(x, alpha, sigma)[i].numpy(), (alpha * mean - x[i].numpy()) / sigma**2, rtol=1e-10, atol=1e-11)
    assert world.posterior_cov(x, alpha, sigma).shape == (4, 2, 3, 2, 3)


def test_empirical_is_the_limit_of_narrow_mixtures():
    data = torch.randn(5, 2, generator=generator(6), dtype=torch.float64)
    x = torch.randn(4, 2, generator=generator(7), dtype=torch.float64)
    narrow, exact = GaussianMixture(data, 1e-9), Empirical(data)
    for law in ("log_prob", "score", "posterior_mean", "posterior_cov", "hessian"):
        torch.testing.assert_close(getattr(narrow, law)(x, 0.8, 0.5), getattr(exact, law)(x, 0.8, 0.5), rtol=1e-6, atol=1e-6)


def test_empirical_at_little_noise_finds_the_nearest_in_float32():
    data = 2 * torch.rand(50, 1, 28, 28, generator=generator(8)) - 1
    x = data[7:8] + 1e-3 * torch.randn(1, 1, 28, 28, generator=generator(9))
    assert torch.equal(Empirical(data).posterior_mean(x, 1.0, 1e-3), data[7:8])


def test_empirical_samples_are_rows():
    data = torch.arange(6.0).reshape(3, 2)
    rows = Empirical(data).sample(50, generator(1))
    assert {tuple(r) for r in rows.tolist()} == {tuple(r) for r in data.tolist()} and rows.dtype == data.dtype


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("make", "message"), [
    (lambda: GaussianMixture(1.0, 1.0), "one mean a component"),
    (lambda: GaussianMixture([[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]]), "symmetric"),
    (lambda: GaussianMixture([[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]), "positive definite"),
    (lambda: GaussianMixture([0.0, 1.0], 0.0), "positive definite"),
    (lambda: GaussianMixture([0.0, 1.0], math.nan), "positive definite"),
    (lambda: GaussianMixture([0.0, 1.0], [1.0, 1.0, 1.0]), "covariances must be"),
    (lambda: GaussianMixture([0.0, 1.0], 1.0, [1.0]), "2 positive numbers"),
    (lambda: GaussianMixture([0.0, 1.0], 1.0, [1.0, 0.0]), "2 positive numbers"),
    (lambda: GaussianMixture([0.0, 1.0], 1.0, [1.0, math.nan]), "2 positive numbers"),
    (lambda: GaussianMixture([0.0, 1.0], 1.0, [1.0, math.inf]), "2 positive numbers"),
    (lambda: GaussianMixture([0.0, math.nan], 1.0), "finite"),
    (lambda: Empirical(torch.zeros(0, 2)), "N > 0"),
    (lambda: Empirical(torch.tensor([0.0, math.nan])), "finite"),
    (lambda: Empirical(torch.arange(3)), "floating"),
    (lambda: Empirical(torch.tensor(1.0)), "shape"),
    (lambda: two_peaks().score([0.1]), "floating tensor"),
    (lambda: two_peaks().score(torch.tensor([1])), "floating tensor"),
    (lambda: two_peaks().score(torch.zeros(3, 1)), r"shape \(B\)"),
    (lambda: ring().log_prob(torch.zeros(2)), r"shape \(B, 2\)"),
    (lambda: ring().log_prob(torch.zeros(4, 3)), r"shape \(B, 2\), got \(4, 3\)"),
    (lambda: Empirical(torch.zeros(2, 2)).log_prob(torch.zeros(1, 2)), "sigma > 0"),
    (lambda: Empirical(torch.zeros(2, 2)).denoiser(Straight())(torch.zeros(1, 2), 0.0), "sigma > 0"),
    (lambda: two_peaks().denoiser(LinearVP())(torch.zeros(3), torch.full((2,), 0.5)), "one coefficient a sample"),
])
def test_what_makes_no_sense_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
