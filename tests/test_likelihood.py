"""The bound against joint Gaussians, quadrature, closed forms and known entropies; none of them uses the package's formulas."""

import math

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from paths import f64, generator, one_thread  # noqa: F401

from diffusion_core import (
    DDPM,
    EDM,
    CosineVP,
    Gaussian,
    GeometricVE,
    LinearVP,
    Shifted,
    Straight,
    cosine_betas,
    linear_betas,
    log_snr_grid,
    posterior_variance,
    transition_variance,
    two_peaks,
    uniform,
)
from diffusion_core.likelihood import bits_per_dim, continuous_vlb, discretized_log_prob, gaussian_kl, mean_and_stderr, vlb

V, N = 0.3, 12
PATHS = {"ddpm": DDPM(linear_betas(N, 0.01, 0.4)), "cosine": DDPM(cosine_betas(N)), "exploding": EDM(sigma_max=10.0), "floored": GeometricVE(0.05, 8.0)}
VARIANCES = {"posterior": posterior_variance, "transition": transition_variance}


def grid_of(name):
    return {"exploding": f64([1, 0.6, 0.3, 0.1, 0.03, 0.01, 0]), "floored": f64([1, 0.7, 0.4, 0.2, 0])}.get(name, uniform(N))


def joint_bound(schedule, times, tau2, v):
    """E_q log q(x_1..x_N | x_0) - log p(x_0..x_N) for x_0 ~ N(0, v) in one dimension and the chain of the exact denoiser: two joint Gaussians, no KL of a step.

    States are ordered noise first; q by its covariances, p as the image of independent noises under a triangular matrix.
    """
    alpha, sigma = (a.numpy() for a in schedule(times))
    n = len(times)
    clean = sigma[-1] == 0
    states = n if clean else n + 1                                   # the last one is the image
    gain = np.append(alpha, 1.0)[:states] if not clean else alpha
    noise = np.append(sigma, 0.0)[:states] if not clean else sigma
    q = np.zeros((states, states))
    for i in range(states):
        for j in range(i, states):                                   # j is cleaner: x_i = (a_i / a_j) x_j + fresh noise
            q[i, j] = q[j, i] = gain[i] / gain[j] * (gain[j] ** 2 * v + noise[j] ** 2)
    A, D = np.zeros((states, states)), np.zeros(states)              # x_i = A[i, i-1] x_{i-1} + sqrt(D_i) z
    D[0] = noise[0] ** 2
    for i in range(1, states):
        a, s2, b, r2 = gain[i - 1], noise[i - 1] ** 2, gain[i], noise[i] ** 2
        wiener = a * v / (a * a * v + s2)
        added = s2 - (a / b) ** 2 * r2
        A[i, i - 1] = b * added / s2 * wiener + a / b * r2 / s2
        D[i] = tau2(i - 1) if i < states - 1 else s2 / a**2
    inverse = np.linalg.inv(np.eye(states) - A)
    p = inverse @ np.diag(D) @ inverse.T
    minus_log_p = 0.5 * (states * math.log(2 * math.pi) + np.linalg.slogdet(p)[1] + np.trace(np.linalg.solve(p, q)))
    entropy = 0.5 * (states * math.log(2 * math.pi * math.e) + np.linalg.slogdet(q)[1]) - 0.5 * math.log(2 * math.pi * math.e * v)
    return minus_log_p - entropy, 0.5 * (math.log(2 * math.pi * p[-1, -1]) + v / p[-1, -1])


@pytest.mark.parametrize("kind", VARIANCES)
@pytest.mark.parametrize("name", PATHS)
def test_the_terms_add_up_to_the_bound_of_two_joint_gaussians(name, kind):
    schedule, times = PATHS[name], grid_of(name)

    def variance(schedule, x, s, t):  # the decoder's variance is the default one in both kinds
        return VARIANCES[kind](schedule, x, s, t) if s > 0 or name == "floored" else f64(0.0)

    x0 = math.sqrt(V) * torch.randn(40_000, generator=generator(1), dtype=torch.float64)
    bound = vlb(Gaussian(0.0, V).denoiser(schedule), schedule, x0, times, variance=variance, levels=None, generator=generator(2))
    tau2 = lambda i: float(VARIANCES[kind](schedule, x0, times[i + 1], times[i]))
    want, evidence = joint_bound(schedule, times, tau2, V)
    mean, stderr = mean_and_stderr(bound.total)
    assert abs(mean - want) < 5 * stderr < 0.05 * want
    assert want > evidence and evidence >= 0.5 * math.log(2 * math.pi * math.e * V) - 1e-12
    assert bound.steps.shape == (40_000, len(times) - (1 if name == "floored" else 2)) and bound.dims == 1


def test_every_term_of_a_point_is_a_quadrature():
    """For one x0 of the two peaks: each expectation over x_t by Simpson's rule, each KL as an integral over x_s of two normal densities."""
    peaks, schedule, x0, times = two_peaks(), DDPM(linear_betas(6, 0.05, 0.6)), 0.8, uniform(6)
    denoise = peaks.denoiser(schedule)
    bound = vlb(denoise, schedule, f64([x0]).expand(60_000), times, transition_variance, levels=None, generator=generator(3))
    alpha, sigma = (a.tolist() for a in schedule(times))
    normal = scipy.stats.norm.pdf
    log_normal = scipy.stats.norm.logpdf
    for i in range(5):
        x = np.linspace(alpha[i] * x0 - 9 * sigma[i], alpha[i] * x0 + 9 * sigma[i], 401)
        guess = denoise(f64(x), times[i]).numpy()
        a = alpha[i] / alpha[i + 1]
        beta = 1 - a**2
        near = lambda image: (alpha[i + 1] * beta * image + a * sigma[i + 1] ** 2 * x) / sigma[i] ** 2
        true_std = math.sqrt(beta) * sigma[i + 1] / sigma[i]
        z = np.linspace(-9, 9, 301)[:, None]
        y = near(x0) + true_std * z
        gap = log_normal(y, near(x0), true_std) - log_normal(y, near(guess), math.sqrt(beta))
        kl = scipy.integrate.simpson(normal(z) * gap, x=z[:, 0], axis=0)
        want = scipy.integrate.simpson(normal(x, alpha[i] * x0, sigma[i]) * kl, x=x)
        mean, stderr = mean_and_stderr(bound.steps[:, i])
        assert abs(mean - want) < 5 * stderr, i
    x = np.linspace(alpha[5] * x0 - 9 * sigma[5], alpha[5] * x0 + 9 * sigma[5], 401)
    want = -scipy.integrate.simpson(normal(x, alpha[5] * x0, sigma[5]) * log_normal(x0, denoise(f64(x), times[5]).numpy(), math.sqrt(0.05)), x=x)
    mean, stderr = mean_and_stderr(bound.decoder)
    assert abs(mean - want) < 5 * stderr
    want = scipy.integrate.quad(lambda y: normal(y, alpha[0] * x0, sigma[0]) * (log_normal(y, alpha[0] * x0, sigma[0]) - log_normal(y, 0, sigma[0])), -8, 8)[0]
    assert float(bound.prior[0]) == pytest.approx(want, rel=1e-8)


def test_the_bound_of_a_mixture_is_above_its_evidence_which_is_above_its_entropy():
    """p(x0) of the chain by matrices on a grid of states, for data that are no Gaussian."""
    peaks, schedule, times = two_peaks(), DDPM(linear_betas(20, 0.01, 0.4)), uniform(20)
    denoise = peaks.denoiser(schedule)
    x = np.linspace(-7, 7, 1401)
    width = x[1] - x[0]
    p = scipy.stats.norm.pdf(x, 0, float(schedule(1.0)[1]))
    for t, s in zip(times[:-1], times[1:]):
        c0, ct, _ = (float(v) for v in schedule.posterior(s, t))
        std = math.sqrt(float(transition_variance(schedule, None, s, t)))
        mean = c0 * denoise(f64(x), t).numpy() + ct * x
        p = scipy.stats.norm.pdf(x[:, None], mean[None], std) @ p * width
    assert p.sum() * width == pytest.approx(1, abs=1e-6)
    data = peaks.log_prob(f64(x)).exp().numpy()
    cross, entropy = (-(data * np.log(q)).sum() * width for q in (p, data))
    x0 = peaks.sample(60_000, generator(4), torch.float64)
    mean, stderr = mean_and_stderr(vlb(denoise, schedule, x0, times, transition_variance, levels=None, generator=generator(5)).total)
    assert mean - 5 * stderr > cross > entropy


@pytest.mark.parametrize("end", [6.0, 0.0])
@pytest.mark.parametrize("schedule", [LinearVP(), CosineVP(), Straight(), EDM(), Shifted(CosineVP(), 3.0)], ids=lambda s: type(s).__name__)
def test_the_continuous_bound_of_a_gaussian_knows_nothing_of_the_path_but_its_ends(schedule, end):
    r"""E diffusion = \frac12\log\frac{1+v SNR_max}{1+v SNR_min}, and the rest in closed form: for every path the same function of the ends."""
    t_min = float(schedule.time(f64(end)))
    low, high = (math.exp(v) if math.isfinite(v) else 0.0 for v in (schedule.log_snr_range()[0], end))
    x0 = math.sqrt(V) * torch.randn(50_000, generator=generator(6), dtype=torch.float64)
    bound = continuous_vlb(Gaussian(0.0, V).denoiser(schedule), schedule, x0, t_min, levels=None, generator=generator(7))
    for got, want in (
        (bound.diffusion, 0.5 * math.log((1 + V * high) / (1 + V * low))),
        (bound.prior, 0.5 * low * V),
        (bound.decoder, 0.5 * (math.log(2 * math.pi / high) + V * high / (1 + V * high))),
    ):
        mean, stderr = got.mean().item(), float(got.std() / math.sqrt(len(got))) + 1e-12
        assert abs(mean - want) < 5 * stderr < 0.2


def test_many_steps_tend_to_the_continuous_bound_from_above():
    """Their expectations on Gaussian data: sum (SNR_s - SNR_t) mmse(t) / 2 falls to the integral at first order."""
    schedule, gap = LinearVP(), {}
    x0 = math.sqrt(V) * torch.randn(4_000, generator=generator(8), dtype=torch.float64)
    for n in (20, 40, 80):
        grid = log_snr_grid(schedule, n, hi=6.0)
        steps = vlb(Gaussian(0.0, V).denoiser(schedule), schedule, x0, grid, levels=None, generator=generator(9)).steps.sum(1)
        snr = torch.exp(schedule.log_snr(grid[:-1])).tolist()
        exact = sum(0.5 * (b - a) * V / (1 + V * a) for a, b in zip(snr, snr[1:]))
        mean, stderr = mean_and_stderr(steps)
        assert abs(mean - exact) < 5 * stderr
        gap[n] = exact - 0.5 * math.log((1 + V * snr[-1]) / (1 + V * snr[0]))
    assert gap[20] > gap[40] > gap[80] > 0
    assert math.log2(gap[40] / gap[80]) == pytest.approx(1, abs=0.2)


# ------------------------------------------------------------------------------------------------------------ units


def test_a_value_that_nothing_predicts_costs_eight_bits():
    """Uniform over 256 levels, entropy 8 bits: a decoder much wider than the range that learned its width knows nothing, and no decoder does better."""
    x0 = torch.randint(256, (200, 400), generator=generator(10)).double() / 127.5 - 1
    flat = -discretized_log_prob(x0[:, :254].clamp(-1 + 2 / 255, 1 - 2 / 255), 0 * x0[:, :254], 1e3) / (254 * math.log(2))
    assert float(flat.mean()) == pytest.approx(math.log2(1e3 * math.sqrt(2 * math.pi) * 255 / 2), abs=1e-6)
    nats = -torch.stack([discretized_log_prob(x0, 0 * x0, std) for std in (0.4, 0.7, 1.0, 1.5)])
    assert bool((bits_per_dim(nats, 400).mean(1) > 8).all())


def test_bits_of_a_density_and_bits_of_its_values():
    """A density that is 1/2 on [-1, 1], cut in 256 bins: one nat-to-bit conversion, entropy 8 bits, by counting."""
    assert float(bits_per_dim(50 * math.log(2.0), 50, levels=256)) == pytest.approx(8, abs=1e-12)
    assert float(bits_per_dim(50 * math.log(2.0), 50)) == pytest.approx(1, abs=1e-12)
    counted = -sum(p * math.log2(p) for p in [1 / 256] * 256)
    assert float(bits_per_dim(math.log(2.0), 1, levels=256)) == pytest.approx(counted, abs=1e-12)


def test_the_discrete_bound_of_quantized_gaussians_is_that_of_their_density_and_seven_bits():
    """x0 = round(N(0, .3) 127.5) / 127.5: its entropy is the Gaussian's plus log2 127.5 bits, up to the square of the bin's width."""
    v, schedule = 0.04, CosineVP()
    x0 = (0.2 * torch.randn(30_000, 1, generator=generator(11), dtype=torch.float64) * 127.5 - 0.5).round().add(0.5).div(127.5).clamp(-1, 1)
    grid = log_snr_grid(schedule, 400, lo=-9.0, hi=9.0)
    denoise = Gaussian(torch.zeros(1, dtype=torch.float64), v * torch.eye(1, dtype=torch.float64)).denoiser(schedule)
    bits, density = (vlb(denoise, schedule, x0, grid, levels=levels, generator=generator(12)).bits_per_dim for levels in (256, None))
    mean, stderr = mean_and_stderr(bits - density)
    assert mean == pytest.approx(math.log2(127.5), abs=0.02)
    entropy = 0.5 * math.log2(2 * math.pi * math.e * v) + math.log2(127.5)
    mean, stderr = mean_and_stderr(bits)
    assert entropy - 5 * stderr < mean < entropy + 0.05 + 5 * stderr


# ----------------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize(("mean", "std", "levels"), [(0.1, 0.3, 256), (0.0, 1e-3, 256), (3.0, 0.02, 256), (-40.0, 0.5, 8), (0.4, 5.0, 2)])
def test_the_probabilities_of_all_levels_are_one_and_each_is_that_of_mpmath(mean, std, levels):
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    got = discretized_log_prob(values[:, None], torch.full((levels, 1), mean, dtype=torch.float64), std, levels)
    assert float(torch.logsumexp(got, 0)) == pytest.approx(0, abs=1e-12)
    with mpmath.workdps(60):
        below = lambda z: mpmath.erfc(-z / mpmath.sqrt(2)) / 2
        for k in (0, 1, levels // 2, levels - 1):
            low = -mpmath.inf if k == 0 else (mpmath.mpf(2 * k - levels) / (levels - 1) - mpmath.mpf(mean)) / mpmath.mpf(std)
            high = mpmath.inf if k == levels - 1 else (mpmath.mpf(2 * k + 2 - levels) / (levels - 1) - mpmath.mpf(mean)) / mpmath.mpf(std)
            want = mpmath.log(below(high) - below(low) if low < 0 else below(-low) - below(-high))
            assert float(got[k]) == pytest.approx(float(want), rel=1e-8, abs=1e-14)


def test_fine_bins_are_a_density():
    x0 = f64([[0.25, -0.5], [0.75, 0.0]])
    levels = 80_001
    fine = discretized_log_prob(x0, f64([[0.2, 0.1]]).expand(2, 2), f64([0.3, 0.6]), levels) - 2 * math.log(2 / (levels - 1))
    density = discretized_log_prob(x0, f64([[0.2, 0.1]]).expand(2, 2), f64([0.3, 0.6]), None)
    want = scipy.stats.norm([[0.2, 0.1]], [[0.3], [0.6]]).logpdf(x0.numpy()).sum(1)
    np.testing.assert_allclose(density.numpy(), want, rtol=1e-12)
    np.testing.assert_allclose(fine.numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("ratio", [1.0, 1 + 1e-9, 0.3, 40.0])
def test_gaussian_kl_is_that_of_torch_and_keeps_its_digits(ratio):
    mean_p, mean_q = torch.randn(2, 5, 3, generator=generator(13), dtype=torch.float64)
    var = 0.1 + torch.rand(5, generator=generator(14), dtype=torch.float64)
    normal = lambda mean, v: torch.distributions.Normal(mean, v.sqrt()[:, None])
    want = torch.distributions.kl_divergence(normal(mean_p, ratio * var), normal(mean_q, var)).sum(1)
    torch.testing.assert_close(gaussian_kl(mean_p, ratio * var, mean_q, var), want)
    same = float(gaussian_kl(mean_p, ratio * var, mean_p, var)[0])
    with mpmath.workdps(50):
        exact = mpmath.mpf(float((ratio * var)[0])) / mpmath.mpf(float(var[0]))
        assert same == pytest.approx(float(1.5 * (exact - 1 - mpmath.log(exact))), rel=1e-6, abs=1e-30)


def test_images_conditions_and_variances_of_every_shape():
    schedule, calls = CosineVP(), []

    def denoise(x, t, label=None):
        calls.append((tuple(x.shape), label is not None))
        return 0.9 * x.clamp(-1, 1)

    x0 = torch.randint(256, (3, 1, 4, 4), generator=generator(15)).float() / 127.5 - 1
    numbers = []
    for variance in (lambda *a: f64(0.02), lambda sch, x, s, t: torch.full((3,), 0.02), lambda sch, x, s, t: torch.full_like(x, 0.02)):
        bound = vlb(denoise, schedule, x0, f64([0.9, 0.5, 0.2, 0]), variance, generator=generator(16), label=torch.zeros(3))
        assert bound.steps.shape == (3, 2) and bound.bits_per_dim.shape == (3,) and bound.dims == 16
        torch.testing.assert_close(bound.bits_per_dim, (bound.prior + bound.steps.sum(1) + bound.decoder) / (16 * math.log(2)))
        numbers.append(bound.total)
    torch.testing.assert_close(numbers[0], numbers[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(numbers[0], numbers[2], rtol=1e-6, atol=0)
    assert continuous_vlb(denoise, schedule, x0, 0.1, generator=generator(17), label=torch.zeros(3)).total.shape == (3,)
    assert {shape for shape, _ in calls} == {(3, 1, 4, 4)} and all(given for _, given in calls)


def test_more_samples_of_the_same_images_tighten_the_error():
    schedule, x0 = CosineVP(), f64([0.4]).expand(2_000)
    spread = [float(continuous_vlb(Gaussian(0.0, V).denoiser(schedule), schedule, x0, 0.01, None, samples, generator(18)).total.std()) for samples in (1, 9)]
    assert spread[0] / spread[1] == pytest.approx(3, rel=0.15)


@pytest.mark.filterwarnings("error")
def test_mean_and_stderr_of_four_numbers_also_with_a_graph():
    values = f64([1.0, 2.0, 4.0, 9.0]).requires_grad_()
    assert mean_and_stderr(2 * values) == pytest.approx((8.0, 2 * (38 / 3 / 4) ** 0.5), rel=1e-12)   # squared deviations 9 + 4 + 0 + 25, over 3
    assert mean_and_stderr(f64([1.0, 3.0])) == pytest.approx((2.0, 1.0), rel=1e-12)   # two are enough


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda d, s, x: vlb(d, s, x, f64([1, 0.5]), levels=None), "ends at 0"),
    (lambda d, s, x: vlb(d, s, x, f64([0.5, 1, 0]), levels=None), "decreasing"),
    (lambda d, s, x: vlb(d, s, x, uniform(4), levels=None, samples=0), "samples, .* positive integer, got 0"),
    (lambda d, s, x: vlb(d, s, x, uniform(4), lambda *a: f64(0.0), levels=None), "deterministic sampler has no such bound"),
    (lambda d, s, x: vlb(d, s, x, uniform(4)), "levels=None"),
    (lambda d, s, x: vlb(d, s, x, uniform(4), levels=1), "at least 2"),
    (lambda d, s, x: vlb(d, LinearVP(0.2, 10), x, uniform(4), levels=None), "another path"),
    (lambda d, s, x: continuous_vlb(d, s, x, 0.0, levels=None), "t_min"),
    (lambda d, s, x: continuous_vlb(d, s, x, 1.0, levels=None), "t_min"),
    (lambda d, s, x: discretized_log_prob(x / 3, x, 0.0), "std must be positive"),
    (lambda d, s, x: discretized_log_prob(x[:1], x[:1], 1.0), "must hold values"),   # inside [-1, 1], between two levels
    (lambda d, s, x: discretized_log_prob(x[1:], x[1:], 1.0), "must hold values"),   # outside, a whole number of bins away
    (lambda d, s, x: bits_per_dim(1.0, 0), "dims"), (lambda d, s, x: mean_and_stderr(x[:1]), "at least two"),
])
def test_what_has_no_bound_raises(wrong, message):
    schedule = LinearVP()
    with pytest.raises(ValueError, match=message):
        wrong(Gaussian(0.0, V).denoiser(schedule), schedule, f64([0.1234, -3.0]))
