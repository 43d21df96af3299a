"""Annealed Langevin dynamics: every step by hand, moments by an exact recursion, the same chain on every path, the ladder and the step against scipy and NCSNv2."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from paths import FLOORED, NO_SIGNAL_AT_1, SCHEDULES, Spy, f64, generator, numbers, one_thread  # noqa: F401

from diffusion_core import (
    EDM,
    CosineVP,
    Gaussian,
    GeometricVE,
    LinearVP,
    Straight,
    annealed_langevin,
    annealed_step,
    annealed_variance,
    ladder_ratio,
    langevin,
    last,
    score_at,
    transport,
    two_peaks,
    uniform,
)


def start(schedule, times, shape, seed=1):
    return schedule.noise(shape, generator(seed), dtype=torch.float64, t=float(times[0]))


def grid(name, n=5):
    return uniform(n)[1:] if name in NO_SIGNAL_AT_1 else uniform(n)


# ---------------------------------------------------------------------------------------------- the walk


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_step_by_hand(name):
    """NCSN's algorithm in its own letters: alpha_i = eps sigma_i^2 / sigma_L^2, x + alpha_i / 2 s + sqrt(alpha_i) z, in x / alpha; then the denoised image."""
    schedule, world, times, n, step = SCHEDULES[name], two_peaks(), grid(name), 3, 0.3
    x = start(schedule, times, (40,))
    spy, g = Spy(world.denoiser(schedule)), generator(2)
    states = list(annealed_langevin(spy, schedule, x, times, n, step, g))
    alpha, sigma = numbers(schedule, times)
    levels = [i for i in range(len(times)) if sigma[i] > 0]
    assert spy.times == [float(times[i]) for i in levels for _ in range(n)] + [float(times[levels[-1]])]
    assert len(states) == 1 + n * len(levels) + 1 and torch.equal(states[0], x)
    z, u, k = generator(2), x / alpha[0], 1
    for i in levels:
        level = sigma[i] / alpha[i]
        alpha_i = step * level**2
        for _ in range(n):
            u = u + alpha_i / 2 * world.score(u, 1.0, level) + math.sqrt(alpha_i) * torch.randn(40, generator=z, dtype=torch.float64)
            torch.testing.assert_close(states[k], alpha[i] * u, rtol=1e-7, atol=1e-8 * max(1.0, level))
            k += 1
    torch.testing.assert_close(states[-1], world.posterior_mean(u, 1.0, level), rtol=1e-6, atol=1e-7)
    assert torch.equal(states[-1], spy.denoise(states[-2], times[levels[-1]])) and torch.equal(g.get_state(), z.get_state())
    assert (len(levels) == len(times)) == (name in FLOORED)


def test_it_is_langevin_with_a_step_for_each_level():
    schedule, world, times = LinearVP(), two_peaks(), f64([0.9, 0.5, 0.1])
    x, step, g = start(schedule, times, (30,)), 0.2, generator(3)
    states = list(annealed_langevin(world.denoiser(schedule), schedule, x, times, 4, step, generator(3)))
    assert len(states) == 1 + 3 * 4  # the grid stops early: no denoised image
    for i, t in enumerate(times):
        alpha, sigma = (float(c) for c in schedule(t))
        if i:
            x = alpha / float(schedule(times[i - 1])[0]) * x
        x = last(langevin(score_at(world.denoiser(schedule), schedule, t), x, step * sigma**2, 4, g))
        torch.testing.assert_close(states[4 * (i + 1)], x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("source", ["linear", "cosine_shifted", "straight", "ddpm_linear_1000", "subvp"])
def test_in_x_over_alpha_every_path_runs_the_same_chain(source):
    world, source, ve = two_peaks(), SCHEDULES[source], GeometricVE(0.02, 30.0)
    log_snr = torch.linspace(-4, 6, 7, dtype=torch.float64)
    one, other = source.time(log_snr), ve.time(log_snr)
    x = torch.randn(50, generator=generator(4), dtype=torch.float64)
    a, b = (
        list(annealed_langevin(world.denoiser(schedule), schedule, float(schedule(times[0])[0]) * 3 * x, times, 2, 0.5, generator(5)))
        for schedule, times in ((source, one), (ve, other))
    )
    alphas = source(one)[0].repeat_interleave(2)
    for state, want, alpha in zip(a[1:], b[1:], alphas):
        torch.testing.assert_close(state / alpha, want, rtol=1e-6, atol=1e-6)
    moved = list(annealed_langevin(transport(world.denoiser(ve), ve, source), source, a[0], one, 2, 0.5, generator(5)))
    torch.testing.assert_close(moved[-1], a[-1], rtol=1e-6, atol=1e-6)


def test_images_in_float32_and_defaults():
    schedule = GeometricVE(0.05, 5.0)
    world = Gaussian(torch.zeros(1, 2, 2), 0.25)
    x = schedule.noise((3, 1, 2, 2), generator(6))
    states = list(annealed_langevin(world.denoiser(schedule), schedule, x, uniform(3), generator=generator(7)))
    assert len(states) == 1 + 4 * 5 + 1 and all(s.shape == x.shape and s.dtype == torch.float32 for s in states)
    want = last(annealed_langevin(world.denoiser(schedule), schedule, x, uniform(3), n=5, step=0.1, generator=generator(7)))
    assert torch.equal(states[-1], want)


def test_steps_are_differentiable():
    schedule, x = EDM(2.0), f64([1.0, -1.0]).requires_grad_()
    final = last(annealed_langevin(lambda x, t: 0 * x, schedule, x, f64([1.0, 0.5]), 2, 0.4, generator(8)))
    torch.testing.assert_close(torch.autograd.grad(final.sum(), x)[0], f64([0.8**4] * 2))


# ---------------------------------------------------------------------------------------------- moments


def chain(schedule, times, mean, variance, n, step, s2):
    """Mean and variance of the final state for data N(mean, variance) and a start N(0, s2), in x / alpha: linear, with the score's slope 1 / (variance + level^2)."""
    alpha, sigma = numbers(schedule, times)
    m, v = 0.0, s2 / alpha[0] ** 2
    for a, s in zip(alpha, sigma):
        level2 = (s / a) ** 2
        if level2 == 0:
            break
        slope = 1 - step * level2 / 2 / (variance + level2)
        for _ in range(n):
            m, v = slope * m + (1 - slope) * mean, slope**2 * v + step * level2
        gain = variance / (variance + level2)
    return gain * m + (1 - gain) * mean, gain**2 * v  # the denoised image


@pytest.mark.parametrize("name", ["geometric", "edm", "linear", "straight", "subvp", "cosine"])
@pytest.mark.parametrize("step", [0.1, 1.5])
def test_moments_on_gaussian_data(name, step):
    schedule, times, n, mean, variance = SCHEDULES[name], grid(name, 9), 40_000, 0.7, 0.3
    x = start(schedule, times, (n,), 9)
    final = last(annealed_langevin(Gaussian(mean, variance).denoiser(schedule), schedule, x, times, 3, step, generator(10)))
    want_mean, want_variance = chain(schedule, times, mean, variance, 3, step, float(schedule(times[0])[1]) ** 2)
    assert abs(float(final.mean()) - want_mean) < 5 * math.sqrt(want_variance / n)
    assert abs(float(final.var()) / want_variance - 1) < 5 * math.sqrt(2 / n)


@pytest.mark.parametrize(("ratio", "step", "n"), [(1.0, 0.3, 4), (1.4, 0.3, 4), (2.0, 1.2, 2), (1.1, 3.0, 3), (5.0, 0.05, 1)])
def test_annealed_variance_is_that_of_the_chain_on_a_point_mass(ratio, step, n):
    """By its recursion, and by a simulation that starts a level higher."""
    variance = ratio**2
    for _ in range(n):
        variance = (1 - step / 2) ** 2 * variance + step
    assert annealed_variance(ratio, step, n) == pytest.approx(variance, rel=1e-12)
    schedule, times, chains = GeometricVE(0.1, 2.0), f64([0.4, 0.2]), 100_000
    sigma = float(schedule(0.4)[1])
    x = 3 + ratio * sigma * torch.randn(chains, generator=generator(11), dtype=torch.float64)
    states = list(annealed_langevin(lambda x, t: torch.full_like(x, 3.0), schedule, x, times, n, step, generator(12)))
    assert abs(float(states[n].var()) / sigma**2 / variance - 1) < 5 * math.sqrt(2 / chains)


def test_annealed_variance_settles_where_langevin_does():
    for step in (0.01, 0.7, 3.9):
        assert annealed_variance(1.5, step, 100_000) == pytest.approx(1 / (1 - step / 4), rel=1e-12)


def test_a_whole_ladder_keeps_its_variance_best_with_the_step_of_technique_4():
    """From level to level each chain arrives with what the one before left; steps 8 times smaller or larger leave more than the level's variance."""
    n, levels = 3, 24
    ratio = 100 ** (1 / (levels - 1))
    best = annealed_step(ratio, n)

    def left_over(step):
        variance = 1.0  # in units of the level's
        for _ in range(levels):
            variance = annealed_variance(ratio * max(1.0, variance) ** 0.5, step, n)
        return variance - 1

    assert 0 < left_over(best) < min(left_over(best / 8), left_over(8 * best)) / 1.5


def test_the_weights_of_the_modes_are_recovered():
    schedule, n = GeometricVE(0.02, 8.0), 20_000
    x = start(schedule, uniform(39), (n,), 13)
    final = last(annealed_langevin(two_peaks().denoiser(schedule), schedule, x, uniform(39), 10, 0.8, generator(14)))
    assert abs(float((final < -0.4).double().mean()) - 0.302) < 0.02
    single = last(langevin(lambda u: two_peaks().score(u, 1.0, 0.02), x.clamp(-2, 2), 0.8 * 0.02**2, 400, generator(14)))
    assert abs(float((single < -0.4).double().mean()) - 0.302) > 0.05  # as many steps at the lowest level alone


def test_the_last_step_removes_the_noise_that_is_left():
    schedule, times, n = GeometricVE(0.3, 8.0), uniform(29), 20_000
    states = list(annealed_langevin(lambda x, t: torch.full_like(x, 2.0), schedule, start(schedule, times, (n,)), times, 10, 0.5, generator(15)))
    assert float(states[-2].var()) == pytest.approx(0.09 / (1 - 0.5 / 4), rel=5 * math.sqrt(2 / n)) and float((states[-1] - 2).abs().max()) == 0


# ---------------------------------------------------------------------------------------------- the step and the ladder


@pytest.mark.parametrize("ratio", [1.0005, 1.01, 1.1, 2.0, 30.0])
@pytest.mark.parametrize("n", [1, 3, 20, 1000])
def test_annealed_step_is_where_scipy_finds_the_lowest_variance(ratio, n):
    step = annealed_step(ratio, n)
    variance = lambda step: 1 / (1 - step / 4) + (1 - step / 2) ** (2 * n) * (ratio**2 - 1 / (1 - step / 4))
    steps = np.geomspace(1e-7, 3.999, 4001)
    coarse = steps[np.argmin(variance(steps))]
    found = scipy.optimize.minimize_scalar(variance, bounds=(coarse / 1.02, min(coarse * 1.02, 3.999)), method="bounded", options={"xatol": 1e-12})
    assert step == pytest.approx(found.x, rel=1e-4) and 0 < step <= 2
    assert annealed_variance(ratio, step, n) <= found.fun + 1e-12 and found.fun >= 1  # above 1 at every step: nearest to 1 is lowest


@pytest.mark.parametrize("dims", [5, 12, 64, 784, 3072, 196_608])
@pytest.mark.parametrize("overlap", [0.05, 0.5, 0.9, 0.99])
def test_ladder_ratio_solves_technique_2(dims, overlap):
    ratio, root = ladder_ratio(dims, overlap), math.sqrt(2 * dims)
    edge = lambda gamma: scipy.stats.norm.cdf(root * (gamma - 1) + 3 * gamma) - scipy.stats.norm.cdf(root * (gamma - 1) - 3 * gamma) - overlap
    assert ratio == pytest.approx(scipy.optimize.brentq(edge, 1 + 1e-9, 100.0, xtol=1e-14), rel=1e-9)
    if overlap == 0.5:
        assert ladder_ratio(dims) == ratio
    assert ladder_ratio(4 * dims, overlap) < ratio


def test_overlap_is_the_share_of_a_level_inside_the_shell_above():
    """Lengths of noise of level 1 in 3072 dimensions, drawn as the roots of chi-square numbers, and the shell of level gamma."""
    ratio, dims = ladder_ratio(3072), 3072
    length = np.sqrt(np.random.default_rng(16).chisquare(dims, 100_000))
    inside = np.abs(length - math.sqrt(dims) * ratio) < 3 * ratio / math.sqrt(2)
    assert inside.mean() == pytest.approx(0.5, abs=0.01)


PUBLISHED = {  # NCSNv2's settings: side, largest level, levels, steps a level, epsilon; the lowest level is 0.01
    "CIFAR-10": (32, 50, 232, 5, 6.2e-6), "CelebA": (64, 90, 500, 5, 3.3e-6), "LSUN church": (96, 140, 788, 4, 4.9e-6), "LSUN bedroom": (128, 190, 1086, 3, 1.8e-6),
    "FFHQ": (256, 348, 2311, 3, 0.9e-6),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_settings_of_ncsnv2_follow_from_its_techniques(name):
    """Its epsilons are, doubled and in units of sigma_L^2, `annealed_step` (of the church's, half); its ladders overlap by 0.57 (the paper: approximately 0.5)."""
    side, top, levels, n, epsilon = PUBLISHED[name]
    ratio, dims = (top / 0.01) ** (1 / (levels - 1)), 3 * side**2
    step = 2 * epsilon / 0.01**2
    assert ladder_ratio(dims, 0.567) == pytest.approx(ratio, rel=2e-4 * (ratio - 1) / 0.004)
    assert 1 < (ladder_ratio(dims) - 1) / (ratio - 1) < 1.08
    if name != "LSUN church":
        assert step == pytest.approx(annealed_step(ratio, n), rel=0.03)
    assert annealed_variance(ratio, step, n) - annealed_variance(ratio, annealed_step(ratio, n), n) < (2.5e-3 if name == "LSUN church" else 1e-6)


# ---------------------------------------------------------------------------------------------- errors


def walk(schedule=LinearVP(), times=uniform(4), n=5, step=0.1, x=torch.zeros(2), denoise=None):
    return last(annealed_langevin(denoise or two_peaks().denoiser(schedule), schedule, x, times, n, step))


@pytest.mark.parametrize(("wrong", "message"), [
    *((lambda step=step: walk(step=step), r"must lie in \(0, 4\)") for step in (0.0, -0.1, 4.0, math.nan)),
    *((lambda n=n: walk(n=n), "positive integer") for n in (0, 2.0)),
    (lambda: walk(times=f64([0.0, 1.0])), "strictly decreasing"), (lambda: walk(times=f64([0.5])), "strictly decreasing"), (lambda: walk(x=torch.tensor([1])), "floating tensor"),
    (lambda: walk(denoise=two_peaks().denoiser(CosineVP())), "another path"),
    *((lambda s=s: walk(schedule=s), "no signal at t = 1") for s in (CosineVP(), Straight())),
    *((lambda r=r: annealed_variance(r, 0.1, 3), "ratio") for r in (0.99, math.inf, math.nan)), *((lambda s=s: annealed_variance(1.5, s, 3), "step") for s in (0.0, 4.0, math.nan)),
    (lambda: annealed_variance(1.5, 0.1, 0), "positive integer"),
    *((lambda r=r: annealed_step(r, 3), "larger than 1") for r in (1.0, 0.5, math.inf, math.nan)), (lambda: annealed_step(1.5, 0), "positive integer"),
    *((lambda o=o: ladder_ratio(100, o), "overlap") for o in (0.0, -0.1, 0.995, 1.0, math.nan)), (lambda: ladder_ratio(0), "positive integer"),
    *((lambda d=d: ladder_ratio(d, 0.9), "by hand") for d in (1, 2, 3, 4)),
])
def test_what_cannot_be_meant_raises(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
