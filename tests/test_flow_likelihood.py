"""The flow's likelihood against scipy's densities, linear flows in closed form, finite differences, quadrature, and every sign a probe can have."""

import math
import sys

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from paths import f64, generator, one_thread  # noqa: F401

from diffusion_core import (
    EDM,
    MLP,
    CosineVP,
    Denoiser,
    Gaussian,
    GaussianMixture,
    GeometricVE,
    LinearVP,
    Straight,
    SubVP,
    draw_probes,
    ode_decode,
    ode_encode,
    ode_log_likelihood,
    targets,
    transport,
    two_peaks,
)
from diffusion_core.likelihood import flow

LEANING = GaussianMixture([[-1.0, 0.5], [1.2, -0.3]], [[[0.3, 0.15], [0.15, 0.2]], [[0.1, -0.05], [-0.05, 0.4]]], [0.4, 0.6])
WORLDS = {"line": (two_peaks(), f64([-2.3, -1.5, -0.4, 0.7, 1.9])), "plane": (LEANING, f64([[-1.0, 0.2], [0.3, 0.1], [1.5, -1.0]]))}
PATHS = {"vp": (LinearVP(), 1.0), "ve": (EDM(20.0), 1.0), "straight": (Straight(), 0.97), "subvp": (SubVP(), 1.0), "cosine": (CosineVP(), 0.98), "floored": (GeometricVE(0.1, 30.0), 1.0)}
FINE, MIDDLE = {"atol": 1e-8, "rtol": 1e-8}, {"atol": 1e-6, "rtol": 1e-6}


def noise_level(schedule, t):
    alpha, sigma = (float(c) for c in schedule(t))
    return sigma / alpha


def at_level(schedule, level):
    return float(schedule.time(-2 * math.log(level)))


def log_density(world, x, alpha=1.0, sigma=0.0):
    """Of alpha x0 + sigma eps, x0 from a mixture, by scipy."""
    d = world.means.shape[1]
    x = x.reshape(-1, d).numpy()
    bases = world._basis.numpy() if world._basis is not None else np.stack([np.eye(d)] * len(world.means))
    covariances = [b @ np.diag(v) @ b.T * alpha**2 + sigma**2 * np.eye(d) for b, v in zip(bases, world._variances.numpy())]
    parts = [np.log(w) + scipy.stats.multivariate_normal(alpha * m, c).logpdf(x) for w, m, c in zip(world.weights.numpy(), world.means.numpy(), covariances)]
    return f64(np.atleast_1d(scipy.special.logsumexp(np.stack(parts), axis=0)))


def mismatch(world, schedule, t, code):
    """log N(code; 0, sigma^2) - log p_t(code)."""
    alpha, sigma = (float(c) for c in schedule(t))
    gauss = scipy.stats.norm(0, sigma).logpdf(code.reshape(len(code), -1).numpy()).sum(1)
    return f64(gauss) - log_density(world, code, alpha, sigma)


def crooked(x, t):
    """A denoiser of no data at all, smooth in x, and in t."""
    return torch.tanh(1.3 * x + float(t)) - 0.4 * torch.sin(2 * x) * (1 - float(t))


# -------------------------------------------------------------------------------------------------------------- the value


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", WORLDS)
def test_it_is_the_density_of_the_mixture_at_t_min_but_for_the_prior(name, path):
    (world, x), (schedule, t_max) = WORLDS[name], PATHS[path]
    t_min = 0.0 if path == "floored" else at_level(schedule, 0.1)
    got = ode_log_likelihood(world.denoiser(schedule), schedule, x, t_min, t_max, **FINE)
    assert got.log_prob.shape == (len(x),) and got.dims == world.means.shape[1]
    want = log_density(world, x, 1.0, noise_level(schedule, t_min))
    torch.testing.assert_close(got.log_prob - mismatch(world, schedule, t_max, got.code), want, rtol=0, atol=2e-6)
    torch.testing.assert_close(got.prior + got.divergence, got.log_prob, rtol=0, atol=0)
    loose = ode_log_likelihood(world.denoiser(schedule), schedule, x, t_min, t_max)
    assert 0 < float((loose.log_prob - got.log_prob).abs().max()) < 2e-3 and loose.evaluations < 0.5 * got.evaluations


@pytest.mark.parametrize("path", PATHS)
def test_a_gaussian_in_closed_form(path):
    r"""$\bar x-m$ grows by the root of $(\Sigma+\varsigma_T^2)(\Sigma+\varsigma_0^2)^{-1}$; the integral is the logarithm of its determinant."""
    schedule, t_max = PATHS[path]
    t_min = 0.0 if path == "floored" else at_level(schedule, 0.2)
    mean, cov = np.array([0.5, -1.0]), np.array([[0.5, 0.3], [0.3, 0.4]])
    x = f64([[0.3, 0.2], [-1.0, 1.0], [2.0, 0.0]])
    got = ode_log_likelihood(Gaussian(mean, cov).denoiser(schedule), schedule, x, t_min, t_max, **FINE)
    low, high = noise_level(schedule, t_min), noise_level(schedule, t_max)
    v, basis = np.linalg.eigh(cov)
    growth = np.sqrt((v + high**2) / (v + low**2))
    code = float(schedule(t_max)[0]) * (mean + (x.numpy() - mean) @ basis * growth @ basis.T)
    torch.testing.assert_close(got.code, f64(code), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got.divergence, f64(np.log(growth).sum()).expand(3), rtol=0, atol=1e-6)
    in_bar = scipy.stats.norm(0, high).logpdf(code / float(schedule(t_max)[0])).sum(1)
    torch.testing.assert_close(got.prior, f64(in_bar), rtol=0, atol=1e-6)


def test_a_denoiser_of_nothing_has_a_density_that_sums_to_one_and_follows_its_codes():
    """Two truths of any flow: by quadrature, and by finite differences of the code."""
    schedule = LinearVP(0.1, 8.0)
    t_min = at_level(schedule, 0.3)
    x = torch.linspace(-9, 9, 1801, dtype=torch.float64)
    got = ode_log_likelihood(crooked, schedule, x, t_min, atol=1e-8, rtol=1e-8)
    assert float(got.log_prob.max() - got.log_prob.min()) > 10
    assert scipy.integrate.simpson(got.log_prob.exp().numpy(), x=x.numpy()) == pytest.approx(1, abs=1e-5)
    sigma = float(schedule(1.0)[1])
    slope = (got.code[2:] - got.code[:-2]) / (x[2:] - x[:-2])
    want = scipy.stats.norm(0, sigma).logpdf(got.code.numpy())[1:-1] + np.log(slope.numpy())
    torch.testing.assert_close(got.log_prob[1:-1], f64(want), rtol=0, atol=2e-3)


def test_a_transported_denoiser_gives_the_same_density():
    source, (world, x) = LinearVP(), WORLDS["plane"]
    target = EDM(noise_level(source, 1.0))
    moved = transport(world.denoiser(source), source, target)
    here, there = (ode_log_likelihood(d, s, x, at_level(s, 0.1), **MIDDLE) for d, s in ((world.denoiser(source), source), (moved, target)))
    torch.testing.assert_close(there.log_prob, here.log_prob, rtol=0, atol=2e-5)
    torch.testing.assert_close(there.code / float(target(1.0)[1]), here.code / float(source(1.0)[1]), rtol=2e-5, atol=2e-5)


def test_a_hard_sample_is_as_exact_among_easy_ones_as_alone():
    narrow = GaussianMixture([-2.0, -1.9, 3.0], [1e-4, 1e-4, 4.0], [0.3, 0.3, 0.4])
    schedule = EDM(40.0)
    t_min, hard = at_level(schedule, 0.01), f64([-1.949])
    crowd = torch.cat([hard, torch.linspace(2.5, 3.5, 5_000, dtype=torch.float64)])
    exact = ode_log_likelihood(narrow.denoiser(schedule), schedule, hard, t_min, **FINE).log_prob
    alone, among = (float(ode_log_likelihood(narrow.denoiser(schedule), schedule, x, t_min).log_prob[0] - exact) for x in (hard, crowd))
    assert abs(among) < 3 * abs(alone) + 1e-4 < 0.01


def test_a_flow_that_hardly_moves_is_not_asked_beyond_its_end():
    """The solver's first guess of a step would be far longer than the whole way."""
    schedule, x = LinearVP(), f64([300.0, -800.0])
    got = ode_log_likelihood(Gaussian(0.0, 1e6).denoiser(schedule), schedule, x, at_level(schedule, 0.1), 0.6)
    low, high = 0.1, noise_level(schedule, 0.6)
    torch.testing.assert_close(got.divergence, f64(0.5 * math.log((1e6 + high**2) / (1e6 + low**2))).expand(2), rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- Hutchinson's trace


def integrated_jacobian(cov, low, high):
    r"""$\int\Sigma(\Sigma+\varsigma^2)^{-1}d\log\varsigma$, the matrix whose quadratic form a fixed probe sees on the flow of a Gaussian."""
    v, basis = np.linalg.eigh(cov)
    return basis @ np.diag(np.log(high / low) - 0.5 * np.log((v + high**2) / (v + low**2))) @ basis.T


COV = np.array([[0.5, 0.3, -0.1], [0.3, 0.4, 0.05], [-0.1, 0.05, 0.8]])


def test_signs_in_the_plane_give_one_of_two_values_and_their_mean_is_exact():
    """v^T M v = M_11 + M_22 +- 2 M_12: only with one v for the whole solve."""
    schedule, x = EDM(20.0), f64([[0.4, -0.2]]).expand(40, 2)
    cov, t_min = COV[:2, :2], at_level(schedule, 0.2)
    g, plain = generator(1), generator(1)
    got = ode_log_likelihood(Gaussian(np.zeros(2), cov).denoiser(schedule), schedule, x, t_min, trace="rademacher", generator=g, **FINE)
    exact = ode_log_likelihood(Gaussian(np.zeros(2), cov).denoiser(schedule), schedule, x[:1], t_min, **FINE)
    signs = draw_probes(x, 1, "rademacher", plain)[0]
    off = integrated_jacobian(cov, 0.2, 20.0)[0, 1]
    torch.testing.assert_close(got.log_prob, exact.log_prob - 2 * off * signs.prod(1), rtol=0, atol=1e-5)
    assert abs(off) > 0.1 and len(signs.prod(1).unique()) == 2
    assert torch.equal(g.get_state(), plain.get_state())  # drawn once, and nothing else
    torch.testing.assert_close(got.code, exact.code.expand(40, 2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_it_is_unbiased_with_the_variance_of_one_quadratic_form(kind):
    schedule, n = EDM(20.0), 6_000
    x, t_min, denoise = f64([[0.4, -0.2, 1.0]]).expand(n, 3), at_level(schedule, 0.2), Gaussian(np.zeros(3), COV).denoiser(schedule)
    got = ode_log_likelihood(denoise, schedule, x, t_min, trace=kind, generator=generator(2)).log_prob
    exact = float(ode_log_likelihood(denoise, schedule, x[:1], t_min).log_prob)
    m = integrated_jacobian(COV, 0.2, 20.0)
    variance = 2 * ((m**2).sum() - (np.diag(m) ** 2).sum() * (kind == "rademacher"))
    assert float(got.var()) == pytest.approx(variance, rel=0.1)
    assert abs(float(got.mean()) - exact) < 5 * math.sqrt(variance / n) < 0.3


def test_it_is_unbiased_on_a_curved_flow():
    (_, x), schedule = WORLDS["plane"], LinearVP()
    t_min, denoise = at_level(schedule, 0.2), LEANING.denoiser(LinearVP())
    many = x[:1].expand(3_000, 2)
    got = ode_log_likelihood(denoise, schedule, many, t_min, trace="rademacher", generator=generator(3)).log_prob
    exact = float(ode_log_likelihood(denoise, schedule, x[:1], t_min).log_prob)
    stderr = float(got.std()) / math.sqrt(len(many))
    assert abs(float(got.mean()) - exact) < 5 * stderr < 0.2


# ---------------------------------------------------------------------------------------------------------------- errors


def slopes(values):
    return np.diff(np.log2(np.abs(values)))


@pytest.mark.parametrize("name", WORLDS)
def test_the_prior_error_is_right_to_the_third_order_of_the_last_noise(name):
    world, x = WORLDS[name]
    size, rest = [], []
    for sigma_max in (30.0, 60.0, 120.0):
        schedule = EDM(sigma_max)
        got = ode_log_likelihood(world.denoiser(schedule), schedule, x, at_level(schedule, 0.2))
        true = mismatch(world, schedule, 1.0, got.code)
        size.append(float(true.norm()))
        rest.append(float((got.prior_error - true).norm()))
    np.testing.assert_allclose(slopes(size), -1, atol=0.15)
    assert bool((slopes(rest) < -2.6).all()) and rest[0] < 0.1 * size[0]


def test_a_point_mass_has_a_prior_error_in_closed_form():
    m = f64([0.7, -1.1])
    code = ode_log_likelihood(lambda x, t: 0 * x + m, EDM(5.0), f64([[0.5, 0.2]]), 0.1)
    torch.testing.assert_close(code.prior_error, -(code.code @ m - m @ m / 2) / 25, rtol=1e-9, atol=0)


def test_the_mean_prior_error_is_the_divergence_and_the_bound_is_above_it():
    world, schedule = two_peaks(), EDM(6.0)
    x0 = world.sample(4_000, generator(4), torch.float64)
    t_min = at_level(schedule, 0.05)
    got = ode_log_likelihood(world.denoiser(schedule), schedule, x0 + 0.05 * torch.randn(4_000, generator=generator(5), dtype=torch.float64), t_min)
    z = np.linspace(-60, 60, 6001)
    log_p = log_density(world, f64(z), 1.0, 6.0).numpy()
    kl = scipy.integrate.simpson(np.exp(log_p) * (log_p - scipy.stats.norm(0, 6).logpdf(z)), x=z)
    assert -float(got.prior_error.mean()) == pytest.approx(kl, abs=5 * float(got.prior_error.std()) / math.sqrt(4_000))
    bound = 0.5 * (np.sum(world.weights.numpy() * (world.means.numpy()[:, 0] ** 2 + world._variances.numpy()[:, 0])) + 0.05**2) / 36
    assert float(got.prior_bound.mean()) == pytest.approx(bound, rel=0.05) and bound > kl > 0
    assert float(got.prior_error.abs().max()) > float(got.prior_bound.max())  # of one sample it is no bound


@pytest.mark.parametrize("name", WORLDS)
def test_the_end_error_is_right_to_the_fourth_order_of_the_first_noise(name):
    world, x = WORLDS[name]
    schedule, size, rest = EDM(20.0), [], []
    for level in (0.1, 0.05, 0.025):
        got = ode_log_likelihood(world.denoiser(schedule), schedule, x, at_level(schedule, level), 0.1)
        true = log_density(world, x, 1.0, level) - log_density(world, x)
        size.append(float(true.norm()))
        rest.append(float((got.end_error - true).norm()))
    np.testing.assert_allclose(slopes(size), -2, atol=0.15)
    np.testing.assert_allclose(slopes(rest), -4, atol=0.4)


@pytest.mark.parametrize("path", PATHS)
def test_both_errors_subtracted_leave_the_density_of_the_data(path):
    (world, x), (schedule, t_max) = WORLDS["plane"], PATHS[path]
    if path == "floored":
        schedule = GeometricVE(0.02, 30.0)
    t_min = 0.0 if path == "floored" else at_level(schedule, 0.02)
    got = ode_log_likelihood(world.denoiser(schedule), schedule, x, t_min, t_max, atol=1e-7, rtol=1e-7)
    raw, mended = ((value - log_density(world, x)).abs().max() for value in (got.log_prob, got.log_prob - got.prior_error - got.end_error))
    assert mended < 1.5e-4 < 3e-3 < raw


def test_hutchinsons_errors_use_the_same_probe():
    schedule, x = EDM(20.0), f64([[0.4, -0.2]]).expand(6, 2)
    cov, t_min = COV[:2, :2], at_level(schedule, 0.2)
    run = lambda kind: ode_log_likelihood(Gaussian(np.zeros(2), cov).denoiser(schedule), schedule, x, t_min, trace=kind, generator=generator(1))
    signs = draw_probes(x, 1, "rademacher", generator(1))[0].prod(1)
    j = lambda level: (cov @ np.linalg.inv(cov + level**2 * np.eye(2)))[0, 1]
    torch.testing.assert_close(run("rademacher").end_error - run("exact").end_error, j(0.2) * signs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(run("rademacher").prior_error - run("exact").prior_error, j(20.0) * signs, rtol=1e-4, atol=1e-9)


# ------------------------------------------------------------------------------------------------------------- the codes


@pytest.mark.parametrize("path", ["vp", "straight", "floored"])
def test_there_and_back(path):
    (world, x), (schedule, t_max) = WORLDS["plane"], PATHS[path]
    t_min = 0.0 if path == "floored" else at_level(schedule, 0.1)
    code = ode_encode(world.denoiser(schedule), schedule, x, t_min, t_max, **MIDDLE)
    torch.testing.assert_close(code, ode_log_likelihood(world.denoiser(schedule), schedule, x, t_min, t_max, **MIDDLE).code, rtol=1e-4, atol=1e-4)
    back = ode_decode(world.denoiser(schedule), schedule, code, t_min, t_max, **MIDDLE)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-4)


def test_codes_are_noise_and_noise_decodes_to_the_data():
    world, schedule, n = two_peaks(), LinearVP(), 2_000
    level = 0.2
    t_min, denoise = at_level(schedule, level), world.denoiser(LinearVP())
    noised = world.sample(n, generator(6), torch.float64) + level * torch.randn(n, generator=generator(7), dtype=torch.float64)
    code = ode_encode(denoise, schedule, noised, t_min)
    assert scipy.stats.kstest(code, scipy.stats.norm(0, float(schedule(1.0)[1])).cdf).pvalue > 0.01
    assert scipy.stats.kstest(noised, scipy.stats.norm(0, 1).cdf).pvalue < 1e-9
    stds = np.sqrt(world._variances.numpy()[:, 0] + level**2)
    cdf = lambda x: sum(w * scipy.stats.norm(m, s).cdf(x) for w, m, s in zip(world.weights.numpy(), world.means.numpy()[:, 0], stds))
    drawn = ode_decode(denoise, schedule, schedule.noise((n,), generator(8), torch.float64), t_min)
    assert scipy.stats.kstest(drawn, cdf).pvalue > 0.01
    np.testing.assert_allclose(scipy.stats.norm(0, float(schedule(1.0)[1])).cdf(code), cdf(noised.numpy()), atol=3e-3)  # quantiles stay


# ------------------------------------------------------------------------------------------- shapes, dtypes, conditions, calls


@pytest.mark.parametrize("kind", ["exact", "rademacher"])
def test_images_conditions_and_counts(kind):
    schedule, calls, labels = CosineVP(), [], torch.tensor([0.1, 0.5, 0.9])

    def denoise(x, t, label=None):
        calls.append((tuple(x.shape), x.dtype, t.dtype, label.tolist() == labels.tolist(), 0 < float(t) < 0.95))
        return label.reshape(-1, 1, 1, 1) * torch.tanh(x)

    x = torch.randn(3, 1, 2, 2, generator=generator(9))
    got = ode_log_likelihood(denoise, schedule, x, 0.1, 0.9, trace=kind, generator=generator(10), label=labels)
    assert set(calls) == {((3, 1, 2, 2), torch.float32, torch.float64, True, True)} and got.evaluations == len(calls) > 20
    assert got.code.shape == x.shape and got.code.dtype == torch.float32 and got.dims == 4
    for value in got[:3] + got[4:7]:
        assert value.shape == (3,) and value.dtype == torch.float64
    torch.testing.assert_close(got.bits_per_dim(256), -got.log_prob / (4 * math.log(2)) + 7)
    torch.testing.assert_close(got.bits_per_dim(), -got.log_prob / (4 * math.log(2)))
    code = ode_encode(denoise, schedule, x, 0.1, 0.9, label=labels)
    back = ode_decode(denoise, schedule, code, 0.1, 0.9, label=labels)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-3)
    assert back.dtype == torch.float32


def test_a_network_in_float32_is_nearly_as_exact_as_in_float64():
    schedule = LinearVP()
    net = Denoiser(MLP(2, width=32), schedule, targets.v)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator(11)))
    x = torch.randn(5, 2, generator=generator(12))
    single = ode_log_likelihood(net, schedule, x, 0.05)
    exact = ode_log_likelihood(net.double(), schedule, x.double(), 0.05, **MIDDLE)
    torch.testing.assert_close(single.log_prob, exact.log_prob, rtol=0, atol=3e-3)
    assert not single.log_prob.requires_grad and not single.code.requires_grad and single.evaluations < exact.evaluations
    with torch.inference_mode():
        torch.testing.assert_close(ode_log_likelihood(net, schedule, x.double(), 0.05).log_prob, exact.log_prob, rtol=0, atol=3e-3)


# ------------------------------------------------------------------------------------------------------------- bad input

VP = LinearVP()


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda f, d, x: f(d, VP, x, 0.0), "no noise at t_min"),
    (lambda f, d, x: f(crooked, Straight(), x, 0.1), "no signal at t_max"),
    (lambda f, d, x: f(d, VP, x, 0.5, 0.5), "t_min < t_max"),
    (lambda f, d, x: f(d, VP, x, 0.5, 1.5), "t_max <= 1"),
    (lambda f, d, x: f(d, LinearVP(0.2, 9.0), x, 0.1), "another path"),
    (lambda f, d, x: f(d, VP, x, 0.1, atol=0.0), "atol > 0"),
    (lambda f, d, x: f(d, VP, x.long(), 0.1), "floating tensor"),
    (lambda f, d, x: f(d, VP, x[:0], 0.1), "at least one sample"),
    (lambda f, d, x: f(lambda x, t: x[:1], VP, x, 0.1), "the shape of x"),
    (lambda f, d, x: f(lambda x, t: x / 0, VP, x, 0.1), "not finite"),
])
@pytest.mark.parametrize("call", [ode_log_likelihood, ode_encode, ode_decode])
def test_what_has_no_flow_raises(call, wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(call, two_peaks().denoiser(VP), f64([0.1, -0.3]))


def test_an_unknown_trace_raises():
    with pytest.raises(ValueError, match='"rademacher" or "gaussian", got \'skilling\''):
        ode_log_likelihood(two_peaks().denoiser(VP), VP, f64([0.1]), 0.1, trace="skilling")


@pytest.mark.parametrize("size", [1.0, 1e15])
def test_a_denoiser_with_noise_of_its_own_makes_the_solver_give_up(monkeypatch, size):
    """Small noise: ever more steps; large noise: a step of nothing."""
    monkeypatch.setattr(flow, "MOST_CALLS", 600)
    noise, calls = generator(13), []
    with pytest.raises(RuntimeError, match="gave up .* evaluation mode"):
        ode_encode(lambda x, t: calls.append(1) or x + size * torch.randn(x.shape, generator=noise, dtype=x.dtype), VP, f64([0.1, -0.3]), 0.1)
    assert len(calls) < 300 if size > 1 else 600 < len(calls) < 610


def test_without_torchdiffeq_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match=r"diffusion-core\[evaluate\]"):
        ode_encode(two_peaks().denoiser(VP), VP, f64([0.1]), 0.1)
