"""Samplers on exact denoisers: moments by an independent recursion, the papers' identities, the order."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from paths import NO_SIGNAL_AT_1, SCHEDULES, WALKS, f64, generator, numbers, one_thread  # noqa: F401
from scipy.integrate import solve_ivp

from diffusion_core import Empirical, Gaussian, LinearVP, ancestral, ddim, last, log_snr_grid, posterior_variance, transition_variance, two_peaks, uniform

every = pytest.mark.parametrize("name", SCHEDULES)


# ---------------------------------------------------------------------------------------------- moments


def chain(schedule, times, mean, variance, eta=None, reverse=None):
    """Mean and variance after every step for data N(mean, variance), from Song's and Ho's printed formulas.

    eta: DDIM's, through x_0_hat and eps_hat. reverse: ancestral, tau^2 = "posterior" or "transition".
    """
    alpha, sigma = numbers(schedule, times)
    m, v = 0.0, sigma[0] ** 2
    for i in range(len(times) - 1):
        a_t, s_t, a_s, s_s = alpha[i], sigma[i], alpha[i + 1], sigma[i + 1]
        gain = a_t * variance / (a_t**2 * variance + s_t**2)
        step = s_t**2 - (a_t / a_s) ** 2 * s_s**2
        if eta is not None:
            tau2 = eta**2 * s_s**2 / s_t**2 * step
            root = math.sqrt(max(s_s**2 - tau2, 0.0))
            image, state = a_s - root * a_t / s_t, root / s_t
        else:
            tau2 = {"posterior": step * s_s**2 / s_t**2, "transition": step}[reverse] if s_s > 0 else 0.0
            image, state = a_s * step / s_t**2, a_t / a_s * s_s**2 / s_t**2
        slope = image * gain + state
        m, v = slope * m + image * (1 - gain * a_t) * mean, slope**2 * v + tau2
    if sigma[-1] > 0 and float(times[-1]) == 0:
        gain = alpha[-1] * variance / (alpha[-1] ** 2 * variance + sigma[-1] ** 2)
        m, v = gain * m + (1 - gain * alpha[-1]) * mean, gain**2 * v
    return m, v


@every
@pytest.mark.parametrize("steps", [3, 20])
def test_moments_of_a_chain_on_gaussian_data(name, steps):
    schedule, n, mean, variance = SCHEDULES[name], 20_000, 0.7, 0.3
    world, times = Gaussian(mean, variance), uniform(steps)
    start = schedule.noise((n,), generator(1), dtype=torch.float64)
    denoise = world.denoiser(schedule)
    cases = [(ddim(denoise, schedule, start, times, eta, generator(2)), dict(eta=eta)) for eta in (0.3, 1.0)]
    cases += [(ancestral(denoise, schedule, start, times, law, generator(2)), dict(reverse=r)) for law, r in ((posterior_variance, "posterior"), (transition_variance, "transition"))]
    for states, how in cases:
        x = last(states)
        want_mean, want_variance = chain(schedule, times, mean, variance, **how)
        assert abs(float(x.mean()) - want_mean) < 5 * math.sqrt(want_variance / n), how
        assert abs(float(x.var()) - want_variance) < 5 * want_variance * math.sqrt(2 / n), how


@every
@pytest.mark.parametrize("steps", [1, 3, 20, 100])
def test_deterministic_chain_is_the_recursion_to_rounding(name, steps):
    """On Gaussian data DDIM is an affine map: its slope and shift, exactly."""
    schedule, mean, variance = SCHEDULES[name], 0.7, 0.3
    zero, one = last(ddim(Gaussian(mean, variance).denoiser(schedule), schedule, f64([0.0, 1.0]), uniform(steps))).tolist()
    want_mean, want_variance = chain(schedule, uniform(steps), mean, variance, eta=0.0)
    assert zero == pytest.approx(want_mean, rel=1e-9, abs=1e-11)
    assert abs(one - zero) * float(schedule(1.0)[1]) == pytest.approx(math.sqrt(want_variance), rel=1e-8)


@every
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_marginals_are_preserved(name, eta):
    """With the image known (one data point), every state of any chain has the path's own mean and variance."""
    schedule, n = SCHEDULES[name], 40_000
    point = f64([[0.8]])
    alpha, sigma = (float(c) for c in schedule(1.0))
    start = alpha * point + sigma * torch.randn(n, 1, generator=generator(1), dtype=torch.float64)
    times = f64([1.0, 0.7, 0.45, 0.1])
    for state, t in zip(ddim(Empirical(point).denoiser(schedule), schedule, start, times, eta, generator(2)), times):
        a, s = (float(c) for c in schedule(t))
        assert abs(float(state.mean()) - a * 0.8) < 5 * s / math.sqrt(n)
        assert abs(float(state.var()) / s**2 - 1) < 5 * math.sqrt(2 / n)


@pytest.mark.parametrize("name", ["linear", "cosine", "ddpm_linear_1000", "straight", "geometric", "edm"])
def test_samples_of_the_mixture_follow_it(name):
    """Many small steps: the distribution of the samples is the data's."""
    schedule, world = SCHEDULES[name], two_peaks()
    times = uniform(200) if name in ("linear", "cosine", "ddpm_linear_1000", "straight") else log_snr_grid(schedule, 200)
    x = last(ancestral(world.denoiser(schedule), schedule, schedule.noise((4000,), generator(1), dtype=torch.float64), times, generator=generator(2)))
    weights, means, stds = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.3, 0.5])
    cdf = lambda u: (weights * scipy.stats.norm.cdf(np.asarray(u)[..., None], means, stds)).sum(-1)
    assert scipy.stats.kstest(x.numpy(), cdf).pvalue > 1e-3


def test_reverse_variances_bracket_the_data_they_are_right_for():
    """Pitfall 5: beta is exact for N(0, I), the posterior variance for a point; on the last state of a VP chain."""
    schedule, times = LinearVP(), uniform(40)
    assert chain(schedule, times[:-1], 0.0, 1.0, reverse="transition")[1] == pytest.approx(1.0, abs=1e-4)
    x = last(ancestral(Gaussian(0.0, 1.0).denoiser(schedule), schedule, schedule.noise((100_000,), generator(1), dtype=torch.float64), times[:-1], transition_variance, generator(2)))
    assert abs(float(x.var()) - 1) < 5 * math.sqrt(2 / 100_000) + 1e-4


# ---------------------------------------------------------------------------------------------- identities


@every
@pytest.mark.parametrize("steps", [4, 20, 100])
def test_eta_one_is_ancestral(name, steps):
    schedule, world = SCHEDULES[name], two_peaks()
    x = schedule.noise((16,), generator(1), dtype=torch.float64)
    pairs = zip(ddim(world.denoiser(schedule), schedule, x, uniform(steps), 1.0, generator(2)), ancestral(world.denoiser(schedule), schedule, x, uniform(steps), generator=generator(2)))
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@every
def test_ddim_is_euler_and_dpm_solver_1(name):
    """Pitfall 22, from t = 0.9 down: x/alpha moves by d(sigma/alpha) eps; DPM-Solver-1 in its exponential form; the DDIM paper's eq. 12."""
    schedule = SCHEDULES[name]
    times = f64([0.9, 0.6, 0.35, 0.1])
    denoise, x = two_peaks().denoiser(schedule), torch.linspace(-2, 2, 9, dtype=torch.float64)
    states = list(ddim(denoise, schedule, x, times))
    for i in range(3):
        state, t = states[i], times[i]
        (a_t, s_t), (a_s, s_s) = ((float(c) for c in schedule(u)) for u in (t, times[i + 1]))
        image = denoise(state, t)
        eps = (state - a_t * image) / s_t
        h = math.log(a_s / s_s) - math.log(a_t / s_t)
        forms = {
            "euler": a_s * (state / a_t + (s_s / a_s - s_t / a_t) * eps),
            "dpm_solver_1": a_s / a_t * state - s_s * math.expm1(h) * eps,
            "dpm_solver_pp_1": s_s / s_t * state - a_s * math.expm1(-h) * image,
            "equation_12": a_s * image + s_s * eps,
        }
        for form, want in forms.items():
            scale = max(1.0, float(want.abs().max())) * max(1.0, s_t / a_t)
            assert float((states[i + 1] - want).abs().max()) < 1e-12 * scale, form


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_one_stochastic_step_by_hand(eta):
    """Pitfall 21: tau^2 = eta^2 (1 - bar_s) / (1 - bar_t) (1 - bar_t / bar_s), direction sqrt(1 - bar_s - tau^2) eps."""
    schedule, x = LinearVP(), torch.linspace(-2, 2, 9, dtype=torch.float64)
    times = f64([0.7, 0.4])
    bar_t, bar_s = (schedule(times)[0] ** 2).tolist()
    image = two_peaks().denoiser(schedule)(x, 0.7)
    eps = (x - math.sqrt(bar_t) * image) / math.sqrt(1 - bar_t)
    tau2 = eta**2 * (1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s)
    z = torch.randn(9, generator=generator(5), dtype=torch.float64)
    want = math.sqrt(bar_s) * image + math.sqrt(1 - bar_s - tau2) * eps + math.sqrt(tau2) * z
    torch.testing.assert_close(last(ddim(two_peaks().denoiser(schedule), schedule, x, times, eta, generator(5))), want, rtol=1e-13, atol=1e-13)


def test_ancestral_step_in_the_form_of_the_noise():
    """Pitfall 4: mean = (x - beta / sqrt(1 - bar_t) eps) / sqrt(1 - beta)."""
    schedule = SCHEDULES["ddpm_linear_1000"]
    x, i = torch.linspace(-2, 2, 9, dtype=torch.float64), 400
    beta, bar = float(schedule.betas[i - 1]), float(schedule.alphas_bar[i - 1])
    image = two_peaks().denoiser(schedule)(x, i / 1000)
    eps = (x - math.sqrt(bar) * image) / math.sqrt(1 - bar)
    z = torch.randn(9, generator=generator(5), dtype=torch.float64)
    mean = (x - beta / math.sqrt(1 - bar) * eps) / math.sqrt(1 - beta)
    for law, tau2 in ((transition_variance, beta), (posterior_variance, beta * (1 - float(schedule.alphas_bar[i - 2])) / (1 - bar))):
        got = last(ancestral(two_peaks().denoiser(schedule), schedule, x, f64([i / 1000, (i - 1) / 1000]), law, generator(5)))
        torch.testing.assert_close(got, mean + math.sqrt(tau2) * z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in NO_SIGNAL_AT_1])
@pytest.mark.parametrize("walk", WALKS)
def test_from_no_signal_the_first_step_is_the_image_renoised(name, walk):
    schedule, x = SCHEDULES[name], f64([-1.0, 0.5])
    first = list(WALKS[walk](two_peaks().denoiser(schedule), schedule, x, f64([1.0, 0.5]), generator=generator(1)))[1]
    mean, (alpha, sigma) = 0.3 * -1.5 + 0.7 * 1.0, (float(c) for c in schedule(0.5))
    z = torch.randn(2, generator=generator(1), dtype=torch.float64)
    want = {"ddim": sigma * x, "ddim_half": sigma * (math.sqrt(0.75) * x + 0.5 * z), "ddim_one": sigma * z, "ancestral": sigma * z, "ancestral_transition": z}[walk]
    torch.testing.assert_close(first, alpha * mean + want, rtol=1e-11, atol=1e-11)


# ---------------------------------------------------------------------------------------------- the order


@pytest.mark.parametrize("name", ["linear", "cosine", "subvp", "straight", "edm"])
def test_ddim_tends_to_the_probability_flow_at_first_order(name):
    """Towards scipy's solution of dx/dt = f x - g^2 score / 2, with the score of the mixture by finite differences of its density."""
    schedule, top, bottom = SCHEDULES[name], 0.8, 0.2
    weights, means, variances = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.09, 0.25])

    def score(x, alpha, sigma):
        v = alpha**2 * variances + sigma**2
        d = x[:, None] - alpha * means
        r = weights * np.exp(-(d**2) / (2 * v)) / np.sqrt(v)
        return -(r * d / v).sum(-1) / r.sum(-1)

    def flow(t, x):
        alpha, sigma = (float(c) for c in schedule(t))
        return float(schedule.drift(t)) * x - 0.5 * float(schedule.diffusion2(t)) * score(x, alpha, sigma)

    sigma = float(schedule(top)[1])
    x = sigma * f64([-1.3, -0.2, 0.4, 1.7])
    want = solve_ivp(flow, [top, bottom], x.numpy(), rtol=1e-9, atol=1e-10, method="LSODA").y[:, -1]
    levels = schedule.log_snr(f64([top, bottom])).tolist()

    def error(n):
        times = schedule.time(torch.linspace(*levels, n + 1, dtype=torch.float64))
        return np.abs(last(ddim(two_peaks().denoiser(schedule), schedule, x, times)).numpy() - want).mean()

    errors = [error(n) for n in (100, 200, 400)]
    orders = -np.diff(np.log2(errors))
    assert errors[-1] < 0.02 and np.all(np.abs(orders - 1) < 0.1), (errors, orders)
