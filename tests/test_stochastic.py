"""Samplers that draw noise: their exact moments on Gaussian data against recursions typed again, weak order, the family of SDEs, the ends, errors."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from paths import BAD_STARTS, FLOORED, NO_SIGNAL_AT_1, SCHEDULES, Spy, f64, generator, one_thread  # noqa: F401

from diffusion_core import (
    EDM,
    CosineVP,
    Gaussian,
    GeometricVE,
    LinearVP,
    Straight,
    ancestral,
    churned_heun,
    ddim,
    euler_maruyama,
    forward_euler_maruyama,
    heun,
    karras_grid,
    last,
    log_snr_grid,
    predictor_corrector,
    two_peaks,
    uniform,
)

every = pytest.mark.parametrize("name", SCHEDULES)
MEAN, VARIANCE = 0.7, 0.3
WORLD = Gaussian(MEAN, VARIANCE)
NOISES = (0.0, 0.5, 1.0, 1.7)

# alpha, sigma, f and g^2 from the papers, without the package
PATHS = {
    "linear": (lambda t: math.exp(-0.25 * 19.9 * t**2 - 0.05 * t), lambda t: math.sqrt(-math.expm1(-0.5 * 19.9 * t**2 - 0.1 * t)), lambda t: -(0.1 + 19.9 * t) / 2, lambda t: 0.1 + 19.9 * t),
    "edm": (lambda t: 1.0, lambda t: 80 * t, lambda t: 0.0, lambda t: 2 * 80**2 * t),
    "straight": (lambda t: 1 - t, lambda t: t, lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t)),
    "geometric": (lambda t: 1.0, lambda t: 0.01 * 5000**t, lambda t: 0.0, lambda t: 2 * math.log(5000) * (0.01 * 5000**t) ** 2),
}


def exact_moments(monkeypatch, run, n, mean, variance):
    """Mean and variance of the last state, for a sampler that is affine in its start and in each of its draws.

    Row 0 starts at 0 and draws zeros, row 1 starts at 1, row 2 + k draws 1 at the k-th draw: sums of squares in place of samples.
    """
    draws = iter(range(n))

    def unit(x, generator=None):
        z = torch.zeros_like(x)
        z[2 + next(draws)] = 1
        return z

    monkeypatch.setattr("diffusion_core.samplers.stochastic.normal_like", unit)
    start = torch.zeros(n + 2, dtype=torch.float64)
    start[1] = 1
    x = last(run(start))
    slope, gains = x[1] - x[0], x[2:] - x[0]
    return float(x[0] + slope * mean), float(slope**2 * variance + gains.square().sum())


def marginal(schedule, t):
    alpha, sigma = (float(c) for c in schedule(t))
    return alpha * MEAN, alpha**2 * VARIANCE + sigma**2


def grid(name, n, ends=None):
    """n steps, inside the path or down to t = 0."""
    low, high = ends or ((0.9, 0.0) if name != "edm" else (1.0, 0.0))
    return low + (high - low) * torch.linspace(0, 1, n + 1, dtype=torch.float64) ** (0.5 if name == "edm" else 1)


# ---------------------------------------------------------------------------------------------- recursions


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("steps", [1, 8, 60])
def test_euler_maruyama_is_the_recursion(monkeypatch, name, noise, steps):
    schedule, (alpha_of, sigma_of, f_of, g2_of) = SCHEDULES[name], PATHS[name]
    times = grid(name, steps)
    m, v = marginal(schedule, times[0])
    got = exact_moments(monkeypatch, lambda x: euler_maruyama(WORLD.denoiser(schedule), schedule, x, times, noise), steps, m, v)
    for t, s in zip(times.tolist(), times.tolist()[1:]):
        alpha, sigma, f, g2, h = alpha_of(t), sigma_of(t), f_of(t), g2_of(t), t - s
        total = alpha**2 * VARIANCE + sigma**2
        gain = alpha * VARIANCE / total
        if s == 0 and sigma_of(0) == 0:
            m, v = gain * m + (1 - gain * alpha) * MEAN, gain**2 * v
            continue
        slope = 1 - h * (f + (1 + noise**2) / 2 * g2 / total)  # the score is -(x - alpha MEAN) / total
        m = slope * m + h * (1 + noise**2) / 2 * g2 / total * alpha * MEAN
        v = slope**2 * v + noise**2 * g2 * h
    if sigma_of(0) > 0:
        gain = VARIANCE / (VARIANCE + sigma_of(0) ** 2)
        m, v = gain * m + (1 - gain) * MEAN, gain**2 * v
    assert got == pytest.approx((m, v), rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("kind", ["reverse_diffusion", "ancestral"])
@pytest.mark.parametrize("steps", [1, 8, 60])
def test_predictors_are_the_recursion(monkeypatch, name, kind, steps):
    schedule, (alpha_of, sigma_of, _, _) = SCHEDULES[name], PATHS[name]
    times = grid(name, steps)
    m, v = marginal(schedule, times[0])
    got = exact_moments(monkeypatch, lambda x: predictor_corrector(WORLD.denoiser(schedule), schedule, x, times, kind, 0), steps, m, v)
    for t, s in zip(times.tolist(), times.tolist()[1:]):
        alpha, sigma, before, sigma_s = alpha_of(t), sigma_of(t), alpha_of(s), sigma_of(s)
        total = alpha**2 * VARIANCE + sigma**2
        gain = alpha * VARIANCE / total
        if sigma_s == 0:
            m, v = gain * m + (1 - gain * alpha) * MEAN, gain**2 * v
            continue
        ratio = alpha / before
        variance = sigma**2 - ratio**2 * sigma_s**2
        if kind == "reverse_diffusion":
            slope, add = 2 - ratio - variance / total, variance
            m = slope * m + variance / total * alpha * MEAN
        else:
            slope, add = (1 - variance / total) / ratio, variance * sigma_s**2 / sigma**2
            m = slope * m + variance / total / ratio * alpha * MEAN
        v = slope**2 * v + add
    if sigma_of(0) > 0:
        gain = VARIANCE / (VARIANCE + sigma_of(0) ** 2)
        m, v = gain * m + (1 - gain) * MEAN, gain**2 * v
    assert got == pytest.approx((m, v), rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("how", [dict(s_churn=0.0), dict(s_churn=3.0, s_tmin=0.3, s_tmax=1.5, s_noise=1.1), dict(s_churn=1e6, s_tmin=0.2, s_tmax=2.0, s_noise=1.0)])
@pytest.mark.parametrize("steps", [2, 9, 60])
def test_churn_is_the_recursion(monkeypatch, name, how, steps):
    """EDM's algorithm 2 in its own variables, on every path."""
    schedule, (alpha_of, sigma_of, _, _) = SCHEDULES[name], PATHS[name]
    times = grid(name, steps, (0.8, 0.0))
    m, v = marginal(schedule, times[0])
    got = exact_moments(monkeypatch, lambda x: churned_heun(WORLD.denoiser(schedule), schedule, x, times, **how), steps, m, v)
    how = dict(s_tmin=0.0, s_tmax=math.inf, s_noise=1.0) | how
    a = alpha_of(0.8)
    m, v = m / a, v / a**2  # y = x / alpha, of variance VARIANCE + level^2
    for t, s in zip(times.tolist(), times.tolist()[1:]):
        level, to = sigma_of(t) / alpha_of(t), sigma_of(s) / alpha_of(s)
        gamma = min(how["s_churn"] / steps, math.sqrt(2) - 1) if how["s_tmin"] <= level <= how["s_tmax"] else 0.0
        hat = level * (1 + gamma)
        v += (hat**2 - level**2) * how["s_noise"] ** 2
        slope_of = lambda u: u / (VARIANCE + u**2)  # d = (y - D) / u is slope_of(u) (y - MEAN)
        euler = 1 + (to - hat) * slope_of(hat)
        slope = euler if to == 0 else 1 + (to - hat) * (slope_of(hat) + slope_of(to) * euler) / 2
        m, v = MEAN + slope * (m - MEAN), slope**2 * v
    if sigma_of(0) > 0:
        gain = VARIANCE / (VARIANCE + sigma_of(0) ** 2)
        m, v = gain * m + (1 - gain) * MEAN, gain**2 * v
    assert got == pytest.approx((m, v), rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("steps", [1, 30])
def test_forward_euler_maruyama_is_the_recursion(monkeypatch, name, steps):
    schedule, (_, _, f_of, g2_of) = SCHEDULES[name], PATHS[name]
    times = torch.linspace(0.1, 0.8, steps + 1, dtype=torch.float64)
    m, v = 0.4, 0.2
    got = exact_moments(monkeypatch, lambda x: forward_euler_maruyama(schedule, x, times), steps, m, v)
    for s, t in zip(times.tolist(), times.tolist()[1:]):
        slope = 1 + f_of(s) * (t - s)
        m, v = slope * m, slope**2 * v + g2_of(s) * (t - s)
    assert got == pytest.approx((m, v), rel=1e-9)


SAMPLERS = {f"euler_maruyama_{noise}": (lambda *a, noise=noise, **k: euler_maruyama(*a, noise=noise, **k)) for noise in NOISES}
SAMPLERS |= {"reverse_diffusion": lambda *a, **k: predictor_corrector(*a, **k), "ancestral_predictor": lambda *a, **k: predictor_corrector(*a, predictor="ancestral", corrections=2, **k)}
SAMPLERS |= {"churned_heun": lambda *a, **k: churned_heun(*a, s_churn=5.0, s_tmin=0.1, s_tmax=2.0, **k)}


@pytest.mark.parametrize("name", ["linear", "edm", "straight"])
@pytest.mark.parametrize("noise", NOISES)
def test_samples_have_the_moments_of_the_recursion(monkeypatch, name, noise):
    schedule, n, times = SCHEDULES[name], 40_000, grid(name, 12)
    m, v = marginal(schedule, times[0])
    start = m + math.sqrt(v) * torch.randn(n, generator=generator(1), dtype=torch.float64)
    x = last(euler_maruyama(WORLD.denoiser(schedule), schedule, start, times, noise, generator(2)))
    want_mean, want = exact_moments(monkeypatch, lambda x: euler_maruyama(WORLD.denoiser(schedule), schedule, x, times, noise), 12, m, v)
    assert abs(float(x.mean()) - want_mean) < 5 * math.sqrt(want / n) and abs(float(x.var()) / want - 1) < 5 * math.sqrt(2 / n)


# ---------------------------------------------------------------------------------------------- weak order


WEAK = {
    **{f"euler_maruyama_{noise}": (lambda d, p, x, t, noise=noise: euler_maruyama(d, p, x, t, noise), 1) for noise in NOISES},
    "reverse_diffusion": (lambda d, p, x, t: predictor_corrector(d, p, x, t, corrections=0), 1), "ancestral": (lambda d, p, x, t: predictor_corrector(d, p, x, t, "ancestral", 0), 1),
    "churn": (lambda d, p, x, t: churned_heun(d, p, x, t, 2.0, 0.0, 1e3, 1.0), 2), "forward": (lambda d, p, x, t: forward_euler_maruyama(p, x, t.flip(0)), 1),
}


@pytest.mark.parametrize("name", ["linear", "edm", "straight", "subvp"])
@pytest.mark.parametrize("kind", WEAK)
def test_weak_order(monkeypatch, name, kind):
    """From the exact marginal at one end to the other: errors of the mean and the variance fall as the step, for churn as its square."""
    schedule, (sampler, order) = SCHEDULES[name], WEAK[kind]
    high, low = (0.05, 0.005) if name == "edm" else (0.7, 0.2)
    first, final = (low, high) if kind == "forward" else (high, low)
    errors, sizes = [], (100, 200, 400)
    for n in sizes:
        times = torch.linspace(high, low, n + 1, dtype=torch.float64)
        got = exact_moments(monkeypatch, lambda x: sampler(WORLD.denoiser(schedule), schedule, x, times), n, *marginal(schedule, first))
        errors.append(np.abs(np.subtract(got, marginal(schedule, final))))
    errors = np.array(errors)
    for e, error in enumerate(errors.T):
        if error.max() > 1e-12:  # the mean of the forward VE process is exact
            slope = -np.polyfit(np.log(sizes), np.log(error), 1)[0]
            assert abs(slope - order) < 0.3 and error[-1] < 0.03 * max(1, got[1]), (e, error, slope)
    assert errors[:, 1].max() > 1e-12


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["linear", "edm", "straight"])
def test_samples_of_the_mixture_follow_it(name, sampler):
    schedule, world = SCHEDULES[name], two_peaks()
    times = karras_grid(schedule, 300, 0.01, 50.0)
    x = last(SAMPLERS[sampler](world.denoiser(schedule), schedule, schedule.noise((3000,), generator(1), dtype=torch.float64, t=times[0]), times, generator=generator(2)))
    weights, means, stds = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.3, 0.5])
    cdf = lambda u: (weights * scipy.stats.norm.cdf(np.asarray(u)[..., None], means, stds)).sum(-1)
    assert scipy.stats.kstest(x.numpy(), cdf).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------- identities and single steps


@every
def test_identities(name):
    """Without corrections the ancestral predictor is `ancestral`; without churn the churned Heun is Heun; without noise nothing is drawn."""
    schedule, denoise = SCHEDULES[name], two_peaks().denoiser(SCHEDULES[name])
    x, times, late = schedule.noise((8,), generator(1), dtype=torch.float64), uniform(7), 0.95 * uniform(7)
    for a, b in zip(predictor_corrector(denoise, schedule, x, times, "ancestral", 0, generator=generator(2)), ancestral(denoise, schedule, x, times, generator=generator(2)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for how in (dict(s_churn=0.0), dict(s_churn=5.0, s_tmin=1e12, s_tmax=1e13)):
        for a, b in zip(churned_heun(denoise, schedule, x, late, **how, generator=generator(2)), heun(denoise, schedule, x, late), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        churned, plain = Spy(denoise), Spy(denoise)
        last(churned_heun(churned, schedule, x, late, **how)), last(heun(plain, schedule, x, late))
        assert churned.times == plain.times  # those of the grid to the last bit, not found again from their log-SNR
    g = generator(2)
    last(euler_maruyama(denoise, schedule, x, late, 0.0, g))
    last(churned_heun(denoise, schedule, x, late, 0.0, generator=g))
    assert torch.equal(g.get_state(), generator(2).get_state())


def test_no_noise_tends_to_the_probability_flow():
    schedule, denoise = LinearVP(), two_peaks().denoiser(LinearVP())
    x, gaps = f64([-1.3, -0.2, 0.4, 1.7]), []
    want = last(heun(denoise, schedule, x, torch.linspace(0.8, 0.2, 2001, dtype=torch.float64)))
    for n in (200, 400):
        gaps.append(float((last(euler_maruyama(denoise, schedule, x, torch.linspace(0.8, 0.2, n + 1, dtype=torch.float64), 0.0)) - want).abs().mean()))
    assert abs(math.log2(gaps[0] / gaps[1]) - 1) < 0.1 and gaps[1] < 0.02


def test_song_steps_to_the_letter():
    """Reverse diffusion on the VP and VE chains as printed, and the corrector in the form eps s + sqrt(2 eps) z."""
    z = torch.randn(6, 2, generator=generator(5), dtype=torch.float64)
    x = torch.randn(6, 2, generator=generator(6), dtype=torch.float64)
    world = Gaussian(torch.zeros(2), 0.5)
    vp, ve = SCHEDULES["ddpm_linear_1000"], SCHEDULES["geometric"]
    i = 400
    beta, times = float(vp.betas[i - 1]), f64([i / 1000, (i - 1) / 1000])
    score = world.score(x, *vp(times[0]))
    got = last(predictor_corrector(world.denoiser(vp), vp, x, times, corrections=0, generator=generator(5)))
    torch.testing.assert_close(got, (2 - math.sqrt(1 - beta)) * x + beta * score + math.sqrt(beta) * z, rtol=1e-10, atol=1e-10)
    times = f64([0.6, 0.55])
    (_, high), (_, low) = ve(times[0]), ve(times[1])
    gap = high**2 - low**2
    got = last(predictor_corrector(world.denoiser(ve), ve, x, times, corrections=0, generator=generator(5)))
    torch.testing.assert_close(got, x + gap * world.score(x, 1.0, high) + gap.sqrt() * z, rtol=1e-10, atol=1e-10)
    g, snr = generator(5), 0.16
    draws = [torch.randn(6, 2, generator=g, dtype=torch.float64) for _ in range(3)]
    y = x + gap * world.score(x, 1.0, high) + gap.sqrt() * draws[0]
    for z in draws[1:]:
        score = world.score(y, 1.0, low)
        eps = 2 * (snr * z.norm(dim=1).mean() / score.norm(dim=1).mean()) ** 2
        y = y + eps * score + (2 * eps).sqrt() * z
    got = last(predictor_corrector(world.denoiser(ve), ve, x, times, corrections=2, snr=snr, generator=generator(5)))
    torch.testing.assert_close(got, y, rtol=1e-10, atol=1e-10)


def test_corrector_on_a_path_that_scales_the_data():
    """The score at the new time has alpha in it."""
    schedule, world, times = LinearVP(), Gaussian(torch.ones(2), 0.5), f64([0.6, 0.5])
    x, g = torch.randn(6, 2, generator=generator(6), dtype=torch.float64), generator(5)
    y = last(ancestral(world.denoiser(schedule), schedule, x, times, generator=g))
    z, score = torch.randn(6, 2, generator=g, dtype=torch.float64), world.score(y, *schedule(times[1]))
    step = (2 * 0.16 * z.norm(dim=1).mean() / score.norm(dim=1).mean()) ** 2
    got = last(predictor_corrector(world.denoiser(schedule), schedule, x, times, "ancestral", generator=generator(5)))
    torch.testing.assert_close(got, y + step / 2 * score + step.sqrt() * z, rtol=1e-10, atol=1e-10)


def test_corrector_heals_a_wrong_start():
    """Langevin steps at each level pull a start of the wrong width towards the marginal."""
    schedule, times = GeometricVE(0.05, 5.0), log_snr_grid(GeometricVE(0.05, 5.0), 25)
    start = 0.3 * schedule.noise((4000, 2), generator(1), dtype=torch.float64)
    world = Gaussian(torch.zeros(2), 0.3)
    stds = [float(last(predictor_corrector(world.denoiser(schedule), schedule, start, times[:12], corrections=c, snr=0.3, generator=generator(2))).std()) for c in (0, 5)]
    want = math.sqrt(0.3 + float(schedule(times[11])[1]) ** 2)
    assert abs(stds[1] - want) < 0.5 * abs(stds[0] - want)


# ---------------------------------------------------------------------------------------------- calls and ends


@every
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_states_calls_and_the_last_step(name, sampler):
    schedule, floored = SCHEDULES[name], name in FLOORED
    spy, times, g = Spy(two_peaks().denoiser(schedule)), 0.95 * uniform(6), generator(2)
    start = schedule.noise((4,), generator(1), dtype=torch.float64, t=0.95)
    kept = start.clone()
    states = list(SAMPLERS[sampler](spy, schedule, start, times, generator=g))
    assert len(states) == 7 + floored and torch.equal(states[0], kept) and torch.equal(start, kept)
    calls = {"reverse_diffusion": 12, "ancestral_predictor": 18, "churned_heun": 12}.get(sampler, 6)
    assert len(spy.times) == (calls + 1 if floored else calls - {"reverse_diffusion": 1, "ancestral_predictor": 2, "churned_heun": 1}.get(sampler, 0))
    assert all(float(schedule(t)[1]) > 0 for t in spy.times)
    assert all(s.shape == (4,) and s.dtype == torch.float64 and bool(s.isfinite().all()) for s in states)
    if not floored and sampler != "churned_heun":
        assert torch.equal(states[-1], spy.denoise(states[-2], times[-2]))
    again = list(SAMPLERS[sampler](spy, schedule, start, times, generator=generator(2)))
    assert all(torch.equal(a, b) for a, b in zip(states, again))


@every
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_float32_images_and_gradients(name, sampler):
    schedule, world = SCHEDULES[name], Gaussian(torch.zeros(1, 2, 2), 0.25)
    x, times = schedule.noise((3, 1, 2, 2), generator(1), t=0.9), 0.9 * uniform(5)
    end = last(SAMPLERS[sampler](world.denoiser(schedule), schedule, x, times, generator=generator(4)))
    assert end.shape == (3, 1, 2, 2) and end.dtype == torch.float32 and bool(end.isfinite().all())
    start = x.double().requires_grad_()
    end = last(SAMPLERS[sampler](world.denoiser(schedule), schedule, start, times, generator=generator(4)))
    assert bool(torch.autograd.grad(end.sum(), start)[0].isfinite().all())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["linear", "edm", "straight"])
def test_the_step_to_data_draws_nothing(name, sampler):
    schedule, g = SCHEDULES[name], generator(3)
    last(SAMPLERS[sampler](two_peaks().denoiser(schedule), schedule, torch.zeros(3), f64([0.001, 0.0]), generator=g))
    assert torch.equal(g.get_state(), generator(3).get_state())


@pytest.mark.parametrize("name", NO_SIGNAL_AT_1)
def test_from_no_signal(name):
    """All refuse but the ancestral predictor, whose first state is the image renoised."""
    schedule, x = SCHEDULES[name], f64([-1.0, 0.5])
    denoise = two_peaks().denoiser(schedule)
    for sampler in SAMPLERS:
        if sampler != "ancestral_predictor":
            with pytest.raises(ValueError, match="no signal at t = 1"):
                last(SAMPLERS[sampler](denoise, schedule, x, uniform(4), generator=generator(1)))
    states = list(predictor_corrector(denoise, schedule, x, f64([1.0, 0.5]), "ancestral", 0, generator=generator(1)))
    alpha, sigma = (float(c) for c in schedule(0.5))
    torch.testing.assert_close(states[1], alpha * 0.25 + sigma * torch.randn(2, generator=generator(1), dtype=torch.float64), rtol=1e-10, atol=1e-10)
    assert bool(last(predictor_corrector(denoise, schedule, x, uniform(4), "ancestral", generator=generator(1))).isfinite().all())


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("x", "times", "message"), BAD_STARTS)
def test_bad_starts_and_grids_raise(sampler, x, times, message):
    with pytest.raises(ValueError, match=message):
        last(SAMPLERS[sampler](two_peaks().denoiser(LinearVP()), LinearVP(), x, times))


def test_other_bad_calls_raise():
    schedule, x = LinearVP(), torch.zeros(2)
    denoise = two_peaks().denoiser(schedule)
    for noise in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="factor nu of g"):
            last(euler_maruyama(denoise, schedule, x, uniform(3), noise))
    with pytest.raises(ValueError, match="'reverse_diffusion' or 'ancestral'"):
        last(predictor_corrector(denoise, schedule, x, uniform(3), "euler"))
    for how, said in ((dict(corrections=-1), "corrections must be an integer"), (dict(corrections=1.0), "corrections must be an integer"), (dict(snr=0.0), "snr, .*positive"), (dict(snr=math.nan), "snr, .*positive")):
        with pytest.raises(ValueError, match=said):
            last(predictor_corrector(denoise, schedule, x, uniform(3), **how))
    for how in (dict(s_churn=-1.0), dict(s_churn=math.nan), dict(s_tmin=2.0, s_tmax=1.0), dict(s_tmin=-1.0), dict(s_noise=-1.0), dict(s_noise=math.inf)):
        with pytest.raises(ValueError, match="need s_churn >= 0"):
            last(churned_heun(denoise, schedule, x, uniform(3), **how))
    with pytest.raises(ValueError, match="which EDM never reaches.*s_tmax below 56.57"):
        last(churned_heun(two_peaks().denoiser(EDM()), EDM(), x, karras_grid(EDM(), 5), s_tmax=100.0))
    assert len(list(churned_heun(two_peaks().denoiser(EDM()), EDM(), x, karras_grid(EDM(), 5)))) == 6
    for sampler in SAMPLERS.values():
        with pytest.raises(ValueError, match="made for another path"):
            last(sampler(denoise, CosineVP(), x, 0.9 * uniform(3)))
    for times in (uniform(3), f64([0.5]), f64([0.1, 0.1]), f64([[0.1, 0.2]])):
        with pytest.raises(ValueError, match="strictly increasing"):
            last(forward_euler_maruyama(schedule, x, times))
    for path, times in ((schedule, f64([0.0, 0.5])), (Straight(), f64([0.5, 1.0, 1.0 + 1e-9]))):
        with pytest.raises(ValueError, match="neither 0 nor infinite|lie in"):
            last(forward_euler_maruyama(path, x, times))
    for start in (0.5, torch.tensor(0.5), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="floating tensor"):
            last(forward_euler_maruyama(schedule, start, f64([0.1, 0.2])))
    assert len(list(forward_euler_maruyama(Straight(), x, f64([0.5, 0.9, 1.0]), generator(1)))) == 3
    assert float((last(ddim(denoise, schedule, x, uniform(3)))).abs().max()) < 5
