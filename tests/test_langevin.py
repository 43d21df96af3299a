"""Langevin dynamics: the unadjusted chain against its exact recursion, the adjusted one against detailed balance and exact laws."""

import math
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from paths import f64, generator, one_thread  # noqa: F401

from diffusion_core import Gaussian, langevin, last, mala, ring, score_of, two_peaks

MODULE = sys.modules["diffusion_core.samplers.langevin"]  # the package gives its name to the function
WEIGHTS, MEANS, STDS = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.3, 0.5])


def density(x):
    return (WEIGHTS * scipy.stats.norm.pdf(np.asarray(x)[..., None], MEANS, STDS)).sum(-1)


def cdf(x):
    return (WEIGHTS * scipy.stats.norm.cdf(np.asarray(x)[..., None], MEANS, STDS)).sum(-1)


# ---------------------------------------------------------------------------------------------- unadjusted


@pytest.mark.parametrize("shape", [(5,), (1,), (5, 2), (5, 1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_by_hand(shape, dtype):
    """x + eps / 2 s + sqrt(eps) z: pitfall 28."""
    x, score, step = torch.randn(shape, generator=generator(1), dtype=dtype), lambda u: torch.cos(u), 0.37
    states = list(langevin(score, x, step, 3, generator(2)))
    assert len(states) == 4 and states[0] is x
    g, want = generator(2), x
    for state in states[1:]:
        want = want + step / 2 * torch.cos(want) + math.sqrt(step) * torch.randn(shape, generator=g, dtype=dtype)
        assert state.dtype == dtype and state.shape == shape
        torch.testing.assert_close(state, want)


def recursion(mean, variance, target_mean, s2, step, n):
    """Mean and variance of the chain on N(target_mean, s2) after n steps: it is linear, x <- a x + (1 - a) m + sqrt(step) z."""
    a = 1 - step / (2 * s2)
    for _ in range(n):
        mean, variance = a * mean + (1 - a) * target_mean, a**2 * variance + step
    return mean, variance


@pytest.mark.parametrize("s2", [1.0, 0.3])
@pytest.mark.parametrize("share", [0.05, 1.0, 2.0, 3.2])
def test_moments_on_a_gaussian_follow_the_exact_recursion_to_the_biased_variance(s2, share):
    """The step is `share` of s^2; the variance settles at s^2 / (1 - step / 4 s^2)."""
    n, step, m = 50_000, share * s2, 0.7
    x = 2 + 0.5 * torch.randn(n, generator=generator(3), dtype=torch.float64)
    states = list(langevin(Gaussian(m, s2).score, x, step, 12, generator(4)))
    for k in (1, 2, 12):
        mean, variance = recursion(float(x.mean()), float(x.var()), m, s2, step, k)
        assert abs(float(states[k].mean()) - mean) < 5 * math.sqrt(variance / n)
        assert abs(float(states[k].var()) / variance - 1) < 5 * math.sqrt(2 / n)
    settled = s2 / (1 - step / (4 * s2))
    assert recursion(0.0, 1.0, m, s2, step, 2000)[1] == pytest.approx(settled, rel=1e-9)
    start = m + math.sqrt(settled) * torch.randn(n, generator=generator(5), dtype=torch.float64)
    assert abs(float(last(langevin(Gaussian(m, s2).score, start, step, 5, generator(6))).var()) / settled - 1) < 5 * math.sqrt(2 / n)


def test_from_four_times_the_variance_on_it_grows_without_end():
    n, s2 = 20_000, 0.5
    x = torch.zeros(n, dtype=torch.float64)
    variances = [float(state.var()) for state in langevin(Gaussian(0.0, s2).score, x, 4 * s2, 40, generator(7))]
    assert abs(variances[40] / (40 * 4 * s2) - 1) < 5 * math.sqrt(2 / n)  # the noise adds up: one step a step
    assert float(last(langevin(Gaussian(0.0, s2).score, x, 4.4 * s2, 80, generator(8))).var()) > 1e5


def test_each_chain_may_have_its_own_step():
    score, x = two_peaks().score, f64([0.1, -1.0, 2.0])
    steps = [0.01, 0.1, 0.4]
    together = last(langevin(score, x, f64(steps), 1, generator(9)))
    z = torch.randn(3, generator=generator(9), dtype=torch.float64)
    torch.testing.assert_close(together, x + f64(steps) / 2 * score(x) + f64(steps).sqrt() * z)
    plane = last(langevin(torch.neg, torch.ones(3, 2, 2, dtype=torch.float64), torch.tensor(steps), 1, generator(9)))
    z = torch.randn(3, 2, 2, generator=generator(9), dtype=torch.float64)
    torch.testing.assert_close(plane, 1 - f64(steps)[:, None, None] / 2 + f64(steps).sqrt()[:, None, None] * z, rtol=1e-6, atol=1e-6)


def test_steps_are_differentiable():
    x, theta = f64([1.0, -2.0]).requires_grad_(), f64(0.6).requires_grad_()
    final = last(langevin(lambda u: -theta * u, x, 0.2, 4, generator(10)))
    torch.testing.assert_close(torch.autograd.grad(final.sum(), x, retain_graph=True)[0], f64([0.94**4] * 2))
    assert torch.autograd.grad(final.sum(), theta)[0].isfinite()


# ---------------------------------------------------------------------------------------------- Metropolis-adjusted: detailed balance

SCORES = {
    "exact": lambda x: two_peaks().score(x), "wrong": lambda x: 1.0 - 2 * x, "reversed": lambda x: -two_peaks().score(x), "none": torch.zeros_like, "bent": lambda x: torch.sin(3 * x),
}
DRAWS = 20_000


def acceptance(x, y, step, score, monkeypatch):
    """The probability that the chain at x accepts the proposal y, to 1 / DRAWS: all uniform numbers at once, and the one noise that proposes y."""
    start = torch.full((DRAWS,), x, dtype=torch.float64)
    noise = (y - x - step / 2 * float(score(f64([x])))) / math.sqrt(step)
    with monkeypatch.context() as patch:
        patch.setattr(MODULE, "normal_like", lambda x, generator: torch.full_like(x, noise))
        patch.setattr(torch, "rand", lambda n, **_: (torch.arange(n, dtype=torch.float64) + 0.5) / n)
        chains = mala(two_peaks().log_prob, start, step, 1, score=score)
        final = last(chains)
    moved = torch.isclose(final, f64(y), rtol=0, atol=1e-12)
    assert bool((moved | (final == x)).all()) and torch.equal(chains.acceptance, moved.float())
    return float(moved.double().mean())


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("step", [0.05, 0.6, 5.0])
def test_detailed_balance_at_pairs_of_points(name, step, monkeypatch):
    """p(x) q(y|x) a(x, y) = p(y) q(x|y) a(y, x) for every pair, and one of the two is always accepted."""
    score = SCORES[name]

    def proposal(y, x):
        return scipy.stats.norm.pdf(y, x + step / 2 * float(score(f64([x]))), math.sqrt(step))

    partial = 0
    for x, y in ((-1.6, -1.3), (0.2, 0.9), (1.9, 0.6), (-0.4, 0.4), (-1.2, 1.0), (0.95, 1.05), (1.3, 1.6)):
        there, back = acceptance(x, y, step, score, monkeypatch), acceptance(y, x, step, score, monkeypatch)
        flows = density(x) * proposal(y, x) * there, density(y) * proposal(x, y) * back
        slack = 1.5 / DRAWS * max(density(x) * proposal(y, x), density(y) * proposal(x, y)) + 1e-7 * max(flows)
        assert abs(flows[0] - flows[1]) <= slack and max(there, back) == 1
        partial += 0.01 < min(there, back) < 0.99
    assert partial >= 1


def test_detailed_balance_with_a_step_for_each_chain_in_the_plane(monkeypatch):
    """Ratios of two proposals by scipy's normal law in two dimensions, read off the accepted uniform numbers."""
    world, steps = ring(), f64([0.003, 0.02, 0.1])
    x = f64([[1.4, 0.1], [0.1, -1.3], [1.0, 0.9]])
    score = lambda u: world.score(u) + 0.5 * u.flip(-1)
    z = f64([[0.9, 0.4], [-1.1, 0.7], [0.3, -0.8]])
    y = x + steps[:, None] / 2 * score(x) + steps.sqrt()[:, None] * z
    q = lambda to, at: f64([scipy.stats.multivariate_normal.logpdf(b, a + e / 2 * s, float(e) * np.eye(2)) for b, a, s, e in zip(to.numpy(), at.numpy(), score(at).numpy(), steps.numpy())])
    ratio = (world.log_prob(y) + q(x, y) - world.log_prob(x) - q(y, x)).exp().clamp(max=1)
    rows = torch.arange(3).repeat_interleave(DRAWS)
    monkeypatch.setattr(MODULE, "normal_like", lambda x, generator: z[rows])
    monkeypatch.setattr(torch, "rand", lambda n, **_: (torch.arange(n, dtype=torch.float64) % DRAWS + 0.5) / DRAWS)
    chains = mala(world.log_prob, x[rows], steps[rows], 1, score=score)
    moved = (last(chains) != x[rows]).all(1)
    assert torch.equal(moved.float(), chains.acceptance)
    assert float((moved.double().reshape(3, DRAWS).mean(1) - ratio).abs().max()) < 1.5 / DRAWS and 0.05 < float(ratio.min()) < 0.95


# ---------------------------------------------------------------------------------------------- Metropolis-adjusted: laws


def distance(x):
    """Kolmogorov's distance to two_peaks in units of 1 / sqrt(n): above 2 once in 1500 times."""
    return scipy.stats.kstest(x.numpy(), cdf).statistic * math.sqrt(len(x))


@pytest.mark.parametrize("name", SCORES)
def test_the_law_stays_what_it_is_for_every_step_and_score(name):
    x = two_peaks().sample(60_000, generator(11), torch.float64)
    steps = f64([0.02, 0.4, 2.5]).repeat(20_000)
    chains = mala(two_peaks().log_prob, x, steps, 8, generator(12), SCORES[name])
    final = last(chains)
    assert all(distance(final[steps == step]) < 2 for step in steps.unique())
    assert float((final != x).double().mean()) > 0.25
    if name == "exact":
        assert distance(last(langevin(two_peaks().score, x, 0.4, 8, generator(12)))) > 10  # what the unadjusted chain does


def test_a_far_start_arrives_at_the_law():
    x = torch.full((20_000,), 3.0, dtype=torch.float64)
    final = last(mala(Gaussian(-0.5, 0.7).log_prob, x, 0.8, 60, generator(13)))
    assert scipy.stats.kstest(final.numpy(), "norm", (-0.5, math.sqrt(0.7))).pvalue > 1e-3


def test_a_density_with_edges():
    """Uniform on [0, 1]: log p = -inf outside. A NaN is rejected like it."""
    for outside in (-math.inf, math.nan):
        log_prob = lambda x: torch.where((x >= 0) & (x <= 1), 0.0, outside)
        final = last(mala(log_prob, torch.full((20_000,), 0.5), 0.1, 100, generator(14), torch.zeros_like))
        assert 0 <= float(final.min()) and float(final.max()) <= 1
        assert scipy.stats.kstest(final.double().numpy(), "uniform").pvalue > 1e-3


def test_a_uniform_number_of_zero_does_not_accept_everything(monkeypatch):
    """torch.rand gives 0 once in 2^24 draws; log 0 lies below every ratio."""
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.zeros(n))
    x = torch.zeros(1000, dtype=torch.float64)
    chains = mala(Gaussian(0.0, 1.0).log_prob, x, 1.0, 1, generator(15), torch.zeros_like)
    assert torch.equal(last(chains), x) and float(chains.acceptance.max()) == 0


def test_small_steps_in_float32_lose_no_digits():
    """With steps of 1e-10 the ratio is 1; x - y, divided by 1e-5, would not know."""
    x = torch.randn(40, 1000, generator=generator(16))
    chains = mala(lambda u: -0.5 * u.square().sum(1), x, 1e-10, 20, generator(17))
    last(chains)
    assert float(chains.acceptance.mean()) > 0.99


# ---------------------------------------------------------------------------------------------- Metropolis-adjusted: the walk


@pytest.mark.parametrize("shape", [(1,), (6,), (6, 2), (6, 1, 2, 2)])
def test_states_counts_and_calls(shape):
    calls = {"log_prob": 0, "score": 0}

    def log_prob(x):
        calls["log_prob"] += 1
        return -0.5 * x.square().reshape(len(x), -1).sum(1)

    def score(x):
        calls["score"] += 1
        return -x

    x = torch.randn(shape, generator=generator(18))
    kept = x.clone()
    chains = mala(log_prob, x, 1.5, 9, generator(19), score)
    assert bool(chains.acceptance.isnan().all()) and chains.acceptance.shape == shape[:1]
    first = next(chains)
    assert torch.equal(first, kept) and bool(chains.acceptance.isnan().all())
    states, moved = [first], torch.zeros(shape[0])
    for k, state in enumerate(chains, 1):
        moved += (state != states[-1]).reshape(shape[0], -1).all(1)
        states.append(state)
        torch.testing.assert_close(chains.acceptance, moved / k)
    assert len(states) == 10 and torch.equal(x, kept) and calls == {"log_prob": 10, "score": 10}
    assert all(s.shape == shape and s.dtype == torch.float32 and not s.requires_grad for s in states)
    assert bool(torch.cat([(a == b).flatten() for a, b in zip(states[1:], states)]).any()) and 0 < float(chains.acceptance.mean()) <= 1
    again = list(mala(log_prob, x, 1.5, 9, generator(19), score))
    assert all(torch.equal(a, b) for a, b in zip(states, again))


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_score_comes_from_the_log_density_where_none_is_given(mode):
    theta = f64(2.0).requires_grad_()
    log_prob = lambda x: two_peaks().log_prob(x) * theta / 2
    x = two_peaks().sample(30, generator(20), torch.float64).requires_grad_()
    want = list(mala(two_peaks().log_prob, x, 0.2, 5, generator(21), two_peaks().score))
    with mode():
        got = list(mala(log_prob, x, 0.2, 5, generator(21)))
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b)
        assert not a.requires_grad
    torch.testing.assert_close(score_of(log_prob)(x), two_peaks().score(x))


def test_small_steps_are_accepted_more_often():
    x = two_peaks().sample(4000, generator(22), torch.float64)
    chains = mala(two_peaks().log_prob, x, f64([1e-4, 0.05, 0.3, 3.0]).repeat(1000), 10, generator(23))
    last(chains)
    rates = chains.acceptance.reshape(1000, 4).mean(0)
    assert bool((rates.diff() < 0).all()) and float(rates[0]) > 0.999


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("x", "step", "n", "message"), [
    *((torch.zeros(2), step, 3, "step must be positive and finite") for step in (0.0, -0.1, math.nan, math.inf, f64([0.1, 0.0]))),
    (torch.zeros(2), f64([0.1, 0.2, 0.3]), 3, "one coefficient a sample"), (torch.zeros(2), 0.1, 0, "positive integer"), (torch.zeros(2), 0.1, 2.0, "positive integer"),
    (torch.zeros(2, dtype=torch.int64), 0.1, 3, "floating tensor"), (0.5, 0.1, 3, "floating tensor"), (torch.tensor(0.5), 0.1, 3, "floating tensor"),
])
def test_bad_starts_and_steps_raise(x, step, n, message):
    with pytest.raises(ValueError, match=message):
        last(langevin(torch.neg, x, step, n))
    with pytest.raises(ValueError, match=message):
        mala(lambda u: -0.5 * u**2, x, step, n)  # at once, not at the first state


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda: last(langevin(lambda u: u[:1], torch.zeros(2), 0.1, 3)), "must return the shape of x"), (lambda: last(langevin(lambda u: 1.0, torch.zeros(2), 0.1, 3)), "got float"),
    (lambda: mala(lambda u: -0.5 * u**2, torch.zeros(2, 2), 0.1, 3), r"shape \(2,\), got \(2, 2\)"), (lambda: mala(lambda u: 1.0, torch.zeros(2), 0.1, 3), "got float"),
    (lambda: mala(torch.log, f64([0.5, 0.0]), 0.1, 3), "start where the density is not 0"), (lambda: mala(torch.log, f64([0.5, -1.0]), 0.1, 3), "one finite number for each start"),
    (lambda: mala(lambda u: -u**2, torch.zeros(2), 0.1, 3, score=lambda u: u.sum()), "must return the shape of x"),
    (lambda: mala(lambda u: u.detach(), torch.zeros(2), 0.1, 3), "no differentiable path"),
])
def test_what_cannot_be_meant_raises(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
