"""Every schedule under the same laws, against formulas typed from the papers, quadrature, finite differences and 100-digit arithmetic."""

import math

import mpmath
import numpy as np
import pytest
import torch
from paths import FLOORED, NO_SIGNAL_AT_1, PRESERVING, SCHEDULES, f64, generator, one_thread  # noqa: F401

from diffusion_core import GeometricVE, Learned, MonotoneLogSNR, Straight, SubVP

EPS = torch.finfo(torch.float64).eps
INSIDE = torch.linspace(0.02, 0.98, 49, dtype=torch.float64) + 1e-4
NEAR_ENDS = torch.cat([torch.logspace(-14, -1, 60, dtype=torch.float64), INSIDE, 1 - torch.logspace(-1, -12, 60, dtype=torch.float64)]).sort().values
every = pytest.mark.parametrize("name", SCHEDULES)


def betas_of(name):
    if not name.startswith("ddpm"):
        return None
    return getattr(SCHEDULES[name], "schedule", SCHEDULES[name]).betas.numpy()


# ---------------------------------------------------------------------------------------------- the ends


@every
@pytest.mark.parametrize("n", [None, 1, 3, 8, 1001])
def test_the_ends_are_exact(name, n):
    schedule = SCHEDULES[name]
    shape = () if n is None else (n,)
    (a0, s0), (a1, s1) = schedule(torch.zeros(shape, dtype=torch.float64)), schedule(torch.ones(shape, dtype=torch.float64))
    if name in FLOORED:
        assert bool((s0 > 0).all())
    else:
        assert bool((a0 == 1).all()) and bool((s0 == 0).all())
    if name in NO_SIGNAL_AT_1:
        assert bool((a1 == 0).all()) and bool(((s1 - 1).abs() <= EPS).all())
    else:
        assert bool((a1 > 0).all())


def test_documented_floors():
    assert GeometricVE(0.02, 3.0)(0.0)[1].item() == pytest.approx(0.02, rel=1e-15)
    assert GeometricVE(0.02, 3.0)(1.0)[1].item() == pytest.approx(3.0, rel=1e-15)
    learned = Learned(MonotoneLogSNR(-5.0, 13.3, generator=generator()))
    assert learned(0.0)[1].item() ** 2 == pytest.approx(1 / (1 + math.exp(13.3)), rel=1e-12)
    assert learned(0.0)[0].item() ** 2 == pytest.approx(1 / (1 + math.exp(-13.3)), rel=1e-14)
    assert learned(1.0)[0].item() ** 2 == pytest.approx(1 / (1 + math.exp(5.0)), rel=1e-12)


@every
def test_values_exist_on_the_closed_interval_and_are_monotone(name):
    schedule = SCHEDULES[name]
    t = torch.cat([f64([0.0, 5e-324, 1e-300, 1e-170, 1e-30]), NEAR_ENDS, f64([1 - EPS / 2, 1.0])])
    alpha, sigma = schedule(t)
    assert bool(alpha.isfinite().all()) and bool(sigma.isfinite().all())
    assert bool((alpha.diff() <= 0).all()) and bool((sigma.diff() >= 0).all())
    if name in PRESERVING:
        assert float((alpha**2 + sigma**2 - 1).abs().max()) < 4 * EPS
    if name not in FLOORED:
        assert bool((sigma[2:] > 0).all())


@every
def test_infinite_quantities_raise_and_finite_ones_do_not(name):
    schedule = SCHEDULES[name]
    low, high = schedule.log_snr_range()
    assert math.isinf(high) == (name not in FLOORED) and math.isinf(low) == (name in NO_SIGNAL_AT_1)
    for end, snr in ((0.0, high), (1.0, low)):
        for quantity in (schedule.log_snr, schedule.drift, schedule.diffusion2):
            if math.isinf(snr):
                with pytest.raises(ValueError, match=f"neither 0 nor infinite.*t = {end:g}"):
                    quantity(end)
                with pytest.raises(ValueError, match="neither 0 nor infinite"):
                    quantity(f64([0.5, end]))
            else:
                assert bool(quantity(end).isfinite())
    for t in (1e-300, 1e-12, 1 - 1e-12):
        assert all(bool(q(t).isfinite()) for q in (schedule.log_snr, schedule.drift, schedule.diffusion2))
    for s, t in ((0.0, 1.0), (0.0, 1e-200), (1e-300, 1e-200), (0.3, 1.0), (0.0, 0.5), (1 - 1e-12, 1.0)):
        assert all(bool(value.isfinite()) for value in (*schedule.transition(s, t), *schedule.posterior(s, t)))


def test_which_rates_are_infinite():
    for name, schedule in SCHEDULES.items():
        if name in PRESERVING and name not in FLOORED:
            with pytest.raises(ValueError, match="rates.*infinite"):
                schedule.rates(0.0)
        else:
            assert all(bool(rate.isfinite()) for rate in schedule.rates(0.0))
        if name.startswith("sigmoid"):
            with pytest.raises(ValueError, match="rates.*t = 1"):
                schedule.rates(1.0)
        else:
            assert all(bool(rate.isfinite()) for rate in schedule.rates(1.0))
    assert [float(r) for r in SubVP().rates(0.0)] == pytest.approx([-0.05, 0.1], rel=1e-12)
    assert [float(r) for r in Straight().rates(1.0)] == [-1.0, 1.0]


def test_strict_log_snr():
    for schedule in SCHEDULES.values():
        assert bool((schedule.log_snr(NEAR_ENDS).diff() < 0).all())


# ---------------------------------------------------------------------------------------------- the inverse


@every
def test_time_inverts_log_snr(name):
    schedule = SCHEDULES[name]
    t = NEAR_ENDS if name not in FLOORED else NEAR_ENDS[NEAR_ENDS > 1e-10]
    lam = schedule.log_snr(t)
    slope = schedule.diffusion2(t) / schedule(t)[1] ** 2
    error = (schedule.time(lam) - t).abs()
    assert float((error / (EPS * (t + lam.abs().clamp(min=1) / slope))).max()) < 20


@every
def test_log_snr_inverts_time(name):
    schedule = SCHEDULES[name]
    low, high = schedule.log_snr_range()
    lam = torch.linspace(max(low, -30.0), min(high, 60.0), 999, dtype=torch.float64)[1:-1]
    t = schedule.time(lam)
    slope = schedule.diffusion2(t) / schedule(t)[1] ** 2
    error = (schedule.log_snr(t) - lam).abs()
    assert float((error / (EPS * (t * slope + lam.abs().clamp(min=1)))).max()) < 20


@every
def test_time_at_the_ends(name):
    schedule = SCHEDULES[name]
    low, high = schedule.log_snr_range()
    assert schedule.time(f64([high, low])).tolist() == [0.0, 1.0]
    for beyond in (high + 1e-3, low - 1e-3):
        if math.isfinite(beyond):
            with pytest.raises(ValueError, match="takes log-SNRs from"):
                schedule.time(beyond)
    with pytest.raises(ValueError):
        schedule.time(math.nan)


# ---------------------------------------------------------------------------------------------- formulas from the papers


def alpha_sigma_in_mpmath(name):
    """The path in mpmath, from the papers' formulas."""
    mp = mpmath.mp

    def of_integral(integral):
        return lambda t: (mp.exp(-integral(t) / 2), mp.sqrt(1 - mp.exp(-integral(t))))

    def linear(low, high):
        return lambda t: low * t + (high - low) * t**2 / 2

    def sigmoid(start, end, tau):
        def gamma(t):
            s = lambda u: 1 / (1 + mp.exp(-u / tau))
            return (s(end) - s(start + t * (end - start))) / (s(end) - s(start))
        return lambda t: (mp.sqrt(gamma(t)), mp.sqrt(1 - gamma(t)))

    def cosine(t, s=mp.mpf(0.008)):
        f = lambda u: mp.cos((u + s) / (1 + s) * mp.pi / 2)
        alpha = f(t) / f(0)
        return alpha, mp.sqrt(1 - alpha**2)

    def ddpm(betas):
        def path(t):
            knot = min(int(mp.floor(t * len(betas))), len(betas) - 1)
            log = mp.fsum(mp.log(1 - mp.mpf(b)) for b in betas[:knot]) + (t * len(betas) - knot) * mp.log(1 - mp.mpf(betas[knot]))
            return mp.exp(log / 2), mp.sqrt(-mp.expm1(log))
        return path

    def subvp(t):
        integral = linear(mp.mpf(0.1), 20)(t)
        return mp.exp(-integral / 2), 1 - mp.exp(-integral)

    def shifted(path, shift):
        """The log-SNR moved by -2 log(shift), scaled back to alpha^2 + sigma^2 = 1 or to alpha + sigma = 1."""
        def moved(t):
            ratio = shift * path(t)[1] / path(t)[0]
            return (1 / (1 + ratio), ratio / (1 + ratio)) if name.startswith("straight") else (1 / mp.sqrt(1 + ratio**2), ratio / mp.sqrt(1 + ratio**2))
        return moved

    def zero_terminal(path):
        """Lin et al. 2024, algorithm 1, with t = 0 in the place of the first knot."""
        def rescaled(t):
            first, alpha, last = (path(mp.mpf(u))[0] for u in (0, t, 1))
            alpha = first * (alpha - last) / (first - last)
            return alpha, mp.sqrt(1 - alpha**2)
        return rescaled

    table = {
        "cosine_shifted": shifted(cosine, 4), "straight_shifted": shifted(lambda t: (1 - t, t), 3),
        "linear_zero_terminal": zero_terminal(of_integral(linear(mp.mpf(0.1), 20))),
        "linear": of_integral(linear(mp.mpf(0.1), 20)), "linear_strong": of_integral(linear(mp.mpf(0.5), 120)), "cosine": cosine, "subvp": subvp,
        "sigmoid": sigmoid(-3, 3, 1), "sigmoid_sharp": sigmoid(-3, 3, mp.mpf(0.1)), "geometric": lambda t: (mp.mpf(1), mp.mpf(0.01) ** (1 - t) * mp.mpf(50) ** t),
        "edm": lambda t: (mp.mpf(1), 80 * t), "straight": lambda t: (1 - t, t),
    }
    if name in table:
        return table[name]
    path = ddpm(betas_of(name).tolist())
    return zero_terminal(path) if name == "ddpm_zero_terminal_1000" else path


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "learned"])
@pytest.mark.parametrize(("dtype", "ulps"), [(torch.float32, 1.01), (torch.float64, 60.0)])
def test_alpha_and_sigma_keep_their_digits_near_both_ends(name, dtype, ulps):
    unit = torch.finfo(dtype).eps
    ulps *= 20 if name == "ddpm_cosine_1000" and dtype == torch.float64 else 1  # alpha falls by e^3.5 in its last thousandth of t
    t = torch.tensor([1e-30, 1e-12, 1e-7, 1e-4, 0.013, 0.5, 0.987, 1 - 1e-4, 1 - 2 * unit, 1 - unit / 2], dtype=dtype)
    alpha, sigma = SCHEDULES[name](t)
    assert alpha.dtype == sigma.dtype == dtype
    with mpmath.workdps(100):
        path = alpha_sigma_in_mpmath(name)
        for i, time in enumerate(t.tolist()):
            want_alpha, want_sigma = path(mpmath.mpf(time))
            assert abs(alpha[i].item() / want_alpha - 1) <= ulps * unit, ("alpha", time)
            assert abs(sigma[i].item() / want_sigma - 1) <= ulps * unit, ("sigma", time)


def textbook_drift_diffusion2(name):
    """(f, g^2) as the papers print them, numpy."""
    log_odds = lambda u: 1 / (1 + np.exp(-u))
    betas = betas_of(name)

    def preserving(beta):
        return lambda t: (-beta(t) / 2, beta(t))

    def sigmoid(start, end):
        slope = lambda u: log_odds(u) * (1 - log_odds(u))
        return preserving(lambda t: (end - start) * slope(start + (end - start) * t) / (log_odds(end) - log_odds(start + (end - start) * t)))

    cosine = lambda t: np.pi / 1.008 * np.tan((t + 0.008) / 1.008 * np.pi / 2)

    def cosine_shifted(t):
        """s^2 d(sigma^2 / alpha^2) over 1 + s^2 sigma^2 / alpha^2, from alpha^2 = 1 / (1 + SNR^-1)."""
        alpha2 = (np.cos((t + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2
        return 16 * cosine(t) / (alpha2 + 16 * (1 - alpha2))

    def straight_shifted(t):
        """The straight path at the time 3t / (1 + 2t) (Esser et al. 2024, section 5.3.2)."""
        moved, speed = 3 * t / (1 + 2 * t), 3 / (1 + 2 * t) ** 2
        return -speed / (1 - moved), 2 * moved * speed / (1 - moved)

    def zero_terminal(beta, alpha):
        """d log(alpha - alpha_1): beta alpha / (alpha - alpha_1)."""
        return preserving(lambda t: beta(t) * alpha(t) / (alpha(t) - alpha(np.ones(1))))

    def of_betas(t):
        return -len(betas) * np.log1p(-betas[np.floor(t * len(betas)).astype(int).clip(max=len(betas) - 1)])

    def alpha_of_betas(t):
        whole = np.floor(t * len(betas)).astype(int)
        logs = np.concatenate([[0], np.cumsum(np.log1p(-betas))])
        return np.exp((logs[whole] - (t * len(betas) - whole) * of_betas(t) / len(betas)) / 2)

    def subvp(t):
        beta, integral = 0.1 + 19.9 * t, 0.1 * t + 9.95 * t**2
        return -beta / 2, beta * (1 - np.exp(-2 * integral))

    def learned(t):
        lam = lambda u: SCHEDULES[name].net(f64(u)).numpy()
        slope = stencil(lam, t, 1e-3)
        beta = -slope * log_odds(-lam(t))
        return -beta / 2, beta

    return {
        "linear": preserving(lambda t: 0.1 + 19.9 * t), "linear_strong": preserving(lambda t: 0.5 + 119.5 * t), "subvp": subvp, "learned": learned,
        "cosine": preserving(cosine), "sigmoid": sigmoid(-3, 3), "sigmoid_sharp": sigmoid(-30, 30),
        "geometric": lambda t: (0 * t, (0.01 * 5000**t * np.sqrt(2 * np.log(5000))) ** 2), "edm": lambda t: (0 * t, 2 * 80**2 * t),
        "straight": lambda t: (-1 / (1 - t), 2 * t / (1 - t)), "straight_shifted": straight_shifted, "cosine_shifted": preserving(cosine_shifted),
        "linear_zero_terminal": zero_terminal(lambda t: 0.1 + 19.9 * t, lambda t: np.exp(-(0.1 * t + 9.95 * t**2) / 2)),
        "ddpm_zero_terminal_1000": zero_terminal(of_betas, alpha_of_betas),
    }.get(name) or preserving(of_betas)


def stencil(function, t, h):
    """The five-point derivative, error O(h^4)."""
    return (8 * (function(t + h) - function(t - h)) - (function(t + 2 * h) - function(t - 2 * h))) / (12 * h)


@every
def test_drift_and_diffusion_are_the_textbook_ones(name):
    t = INSIDE[INSIDE < 0.7] if name == "sigmoid_sharp" else INSIDE  # further on the printed formula itself cancels
    f, g2 = textbook_drift_diffusion2(name)(t.numpy())
    rtol = 1e-8 if name in ("learned", "sigmoid_sharp") else 1e-10
    np.testing.assert_allclose(SCHEDULES[name].drift(t).numpy(), f, rtol=rtol, atol=1e-13)
    np.testing.assert_allclose(SCHEDULES[name].diffusion2(t).numpy(), g2, rtol=rtol, atol=1e-13)


@every
def test_rates_are_finite_differences(name):
    schedule, betas = SCHEDULES[name], betas_of(name)
    t, h = INSIDE.numpy(), 1e-4
    if betas is not None:
        t, h = (np.floor(t * len(betas)) + 0.5) / len(betas), 0.004 / len(betas)
    rates = schedule.rates(f64(t))
    for i in (0, 1):
        want = stencil(lambda u: schedule(f64(u))[i].numpy(), t, h)
        np.testing.assert_allclose(rates[i].numpy(), want, rtol=2e-8, atol=2e-9 * max(1.0, np.abs(want).max()))


# ---------------------------------------------------------------------------------------------- the chain


@every
def test_a_transition_of_transitions_is_a_transition(name):
    schedule = SCHEDULES[name]
    r, s, t = f64([0.0, 0.1, 0.31, 1e-6]), f64([0.3, 0.100001, 0.6, 2e-6]), f64([1.0, 0.4, 0.600002, 0.9])
    (a1, v1), (a2, v2), (a, v) = schedule.transition(r, s), schedule.transition(s, t), schedule.transition(r, t)
    torch.testing.assert_close(a1 * a2, a, rtol=1e-12, atol=0)
    torch.testing.assert_close(a2**2 * v1 + v2, v, rtol=1e-12, atol=0)
    alpha, sigma = schedule(t)
    alpha_r, sigma_r = schedule(r)
    torch.testing.assert_close(a * alpha_r, alpha, rtol=1e-12, atol=0)
    torch.testing.assert_close(a**2 * sigma_r**2 + v, sigma**2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [n for n in SCHEDULES if not n.startswith("ddpm")])
def test_a_short_transition_is_a_step_of_the_sde(name):
    """sigma^2_{t|s} -> g^2 (t - s) as s -> t."""
    schedule, t = SCHEDULES[name], f64([0.2, 0.5, 0.8])
    step = 2.0**-32
    torch.testing.assert_close(schedule.transition(t - step, t)[1] / step, schedule.diffusion2(t - step / 2), rtol=2e-5, atol=0)


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "learned"])
def test_the_variance_of_a_transition_is_off_by_some_roundings_of_sigma_t(name):
    """Against 100 digits, for long and short steps: no worse for a short one, and then relative to the whole variance, not to the small difference."""
    schedule, t = SCHEDULES[name], [0.013, 0.5, 0.987]
    for s in (0.0, *(1 - 2.0**-power for power in (1, 10, 20, 30))):
        variance = schedule.transition(f64([s * u for u in t]), f64(t))[1]
        with mpmath.workdps(100):
            path = alpha_sigma_in_mpmath(name)
            for got, u in zip(variance.tolist(), t):
                (alpha_s, sigma_s), (alpha_t, sigma_t) = path(mpmath.mpf(s * u)), path(mpmath.mpf(u))
                want = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
                assert abs(got - want) <= 100 * EPS * sigma_t**2, (s, u)


@every
@pytest.mark.parametrize(("s", "t"), [(0.3, 0.7), (0.6, 0.95), (0.05, 0.1)])
def test_posterior_is_bayes_rule_by_quadrature(name, s, t):
    schedule, x_0 = SCHEDULES[name], 0.7
    (alpha_s, sigma_s), (alpha_ts, variance_ts) = ([float(v) for v in pair] for pair in (schedule(s), schedule.transition(s, t)))
    x_t = alpha_s * alpha_ts * x_0 + 0.8 * float(schedule(t)[1])
    c_0, c_t, variance = (float(v) for v in schedule.posterior(s, t))
    grid = np.linspace(alpha_s * x_0 - 14 * sigma_s, alpha_s * x_0 + 14 * sigma_s, 200_001)
    log = -((grid - alpha_s * x_0) ** 2) / (2 * sigma_s**2) - (x_t - alpha_ts * grid) ** 2 / (2 * variance_ts)
    p = np.exp(log - log.max())
    p /= p.sum()
    mean = (p * grid).sum()
    assert c_0 * x_0 + c_t * x_t == pytest.approx(mean, rel=1e-9, abs=1e-9 * sigma_s)
    assert variance == pytest.approx((p * (grid - mean) ** 2).sum(), rel=1e-8)


@every
def test_posterior_from_the_clean_end_is_the_image(name):
    if name not in FLOORED:
        for t in (1e-9, 0.4, 1.0):
            assert [float(v) for v in SCHEDULES[name].posterior(0.0, t)] == [1.0, 0.0, 0.0]


@every
def test_euler_maruyama_of_the_sde_has_the_marginals(name):
    """Mean and variance of the discretised SDE, exactly propagated, tend to the transition at first order."""
    schedule, betas = SCHEDULES[name], betas_of(name)
    n = 10 if betas is None else len(betas)
    first, last = round(0.2 * n), round(0.8 * n)
    want = [float(v) for v in schedule.transition(first / n, last / n)]

    def moments(per_cell):
        knots = torch.arange(first * per_cell, last * per_cell, dtype=torch.float64) / (n * per_cell)
        growth = (1 + schedule.drift(knots) / (n * per_cell)).tolist()
        kick = (schedule.diffusion2(knots) / (n * per_cell)).tolist()
        mean, variance = 1.0, 0.0
        for a, b in zip(growth, kick):
            mean, variance = a * mean, a * a * variance + b
        return np.array([mean, variance])

    cells = max(1, 2000 // n)
    one, two, four = moments(cells), moments(2 * cells), moments(4 * cells)
    np.testing.assert_allclose((8 * four - 6 * two + one) / 3, want, rtol=1e-4)
    assert np.all(np.abs(four / want - 1) < 0.6 * np.abs(two / want - 1) + 1e-12)
