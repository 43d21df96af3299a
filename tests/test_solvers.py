"""Solvers of the probability flow: their order against scipy's solution, recursions on Gaussian data, weights by quadrature, the ends, errors."""

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from paths import BAD_STARTS, FLOORED, NO_SIGNAL_AT_1, SCHEDULES, Spy, f64, generator, numbers, one_thread  # noqa: F401
from scipy.integrate import quad, solve_ivp

from diffusion_core import (
    CosineVP,
    Gaussian,
    GeometricVE,
    LinearVP,
    Straight,
    ddim,
    dpmpp_2m,
    exponential_multistep,
    heun,
    last,
    log_snr_grid,
    two_peaks,
    uniform,
    unipc,
)
from diffusion_core.samplers.solvers import multistep_weights

every = pytest.mark.parametrize("name", SCHEDULES)
SOLVERS = {"heun": heun, "dpmpp_2m": dpmpp_2m, "multistep": exponential_multistep, "unipc": lambda *a: unipc(*a, order=2)}
SOLVERS |= {f"multistep_{p}": lambda *a, p=p: exponential_multistep(*a, order=p) for p in (1, 2, 4)}
SOLVERS |= {f"unipc_{p}_{c}": lambda *a, p=p, c=c: unipc(*a, order=p, corrector=c) for p, c in ((1, 1), (1, 2), (2, 3), (3, 3), (4, 5))}


def grid_from_signal(name, n=6):
    """A uniform grid, which starts a little below 1 where there is no signal at 1."""
    return 0.98 * uniform(n) if name in NO_SIGNAL_AT_1 else uniform(n)


# ---------------------------------------------------------------------------------------------- the order


WEIGHTS, MEANS, VARIANCES = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.09, 0.25])


def image_of(x, alpha, sigma):
    """E[x_0 | x_t = x] for two_peaks, typed again."""
    v = alpha**2 * VARIANCES + sigma**2
    d = x[:, None] - alpha * MEANS
    r = WEIGHTS * np.exp(-(d**2) / (2 * v)) / np.sqrt(v)
    return (r * (MEANS + alpha * VARIANCES * d / v)).sum(-1) / r.sum(-1)


def flow_solution(x, alpha, sigma):
    """scipy's solution of d(x/alpha) / d(sigma/alpha) = eps, which on x/alpha is the same equation on every path."""
    def slope(log_level, y):
        level = math.exp(log_level)
        return y - image_of(y, 1.0, level)

    ends = [math.log(s / a) for s, a in zip(sigma, alpha)]
    y = solve_ivp(slope, ends, x.numpy() / alpha[0], method="DOP853", rtol=1e-13, atol=1e-14).y[:, -1]
    return alpha[1] * y


@pytest.mark.parametrize("name", ["linear", "edm", "straight"])
@pytest.mark.parametrize(("solver", "order", "sizes"), [
    ("heun", 2, (80, 160, 320)), ("dpmpp_2m", 2, (80, 160, 320)), ("multistep_1", 1, (160, 320, 640)), ("multistep_2", 2, (80, 160, 320)), ("multistep", 3, (80, 160, 320)), ("multistep_4", 4, (80, 160, 320)),
    ("unipc", 2, (640, 1280, 2560)), ("unipc_1_1", 1, (160, 320, 640)), ("unipc_1_2", 2, (80, 160, 320)), ("unipc_2_3", 3, (80, 160, 320)), ("unipc_3_3", 3, (320, 640, 1280)), ("unipc_4_5", 5, (160, 320, 640)),
])
def test_error_falls_with_the_power_of_the_order(name, solver, order, sizes):
    """On a grid whose first steps shrink with n^-3, so that the start with one image costs nothing."""
    schedule, low, high = SCHEDULES[name], -2.0, 1.0
    ends = schedule.time(f64([low, high]))
    alpha, sigma = (c.tolist() for c in schedule(ends))
    x = sigma[0] * torch.linspace(-2.2, 2.0, 8, dtype=torch.float64)
    want = flow_solution(x, alpha, sigma)
    denoise = two_peaks().denoiser(schedule)

    def error(n):
        u = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        times = schedule.time(low + (high - low) * u**3)
        return np.sqrt(np.mean((last(SOLVERS[solver](denoise, schedule, x, times)).numpy() - want) ** 2))

    errors = [error(n) for n in sizes]
    slope = -np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert errors[-1] < 3e-3 and abs(slope - order) < 0.35, (errors, slope)


@pytest.mark.parametrize(("solver", "order"), [("multistep", 2), ("multistep_4", 2), ("unipc_3_3", 3), ("unipc_2_3", 3)])
def test_a_start_in_large_steps_costs_order(solver, order):
    """The first step knows one image: an error of h^2, and with a corrector of h^3, that no later step repairs."""
    schedule = LinearVP()
    ends = schedule.time(f64([-2.5, 2.5]))
    alpha, sigma = (c.tolist() for c in schedule(ends))
    x = sigma[0] * torch.linspace(-2.2, 2.0, 8, dtype=torch.float64)
    want, errors, sizes = flow_solution(x, alpha, sigma), [], (80, 160, 320)
    for n in sizes:
        times = schedule.time(torch.linspace(-2.5, 2.5, n + 1, dtype=torch.float64))
        errors.append(np.abs(last(SOLVERS[solver](two_peaks().denoiser(schedule), schedule, x, times)).numpy() - want).mean())
    assert abs(-np.polyfit(np.log(sizes), np.log(errors), 1)[0] - order) < 0.35, errors


# ---------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("ahead", [False, True])
def test_weights_by_quadrature(order, ahead):
    l = np.array([-4.0, -3.9, -2.0, -1.2, 0.3, 0.4, 3.1])
    weights = multistep_weights(l, order, ahead)
    assert weights.shape == (6, order)
    for i in range(6):
        knots = [l[k] for k in range(i + ahead, i + ahead - order, -1) if k >= 0]
        for j in range(order):
            if j < len(knots):
                lagrange = lambda u: np.prod([(u - other) / (knots[j] - other) for k, other in enumerate(knots) if k != j])
                want = quad(lambda u: math.exp(u - l[i + 1]) * lagrange(u), l[i], l[i + 1], epsabs=1e-13, epsrel=1e-13)[0]
                assert weights[i, j] == pytest.approx(want, rel=1e-10, abs=1e-12)
            else:
                assert weights[i, j] == 0


def test_weights_of_small_and_large_steps():
    """Small: the classical Adams weights, to first order in h. Large: order 1 is 1 - e^-h."""
    h = 1e-7
    l = h * np.arange(6)
    for order, adams in ((2, [3, -1]), (3, [23 / 6, -16 / 6, 5 / 6]), (4, [55 / 12, -59 / 12, 37 / 12, -9 / 12])):
        np.testing.assert_allclose(multistep_weights(l, order)[-1] / h, np.array(adams) / 2, rtol=1e-5)
    np.testing.assert_allclose(multistep_weights(l, 3, True)[-1] / h, [5 / 12, 8 / 12, -1 / 12], rtol=1e-5)
    big = np.array([-30.0, -5.0, 25.0])
    np.testing.assert_allclose(multistep_weights(big, 1)[:, 0], -np.expm1(-np.diff(big)), rtol=1e-12)
    np.testing.assert_allclose(multistep_weights(big, 2).sum(1), -np.expm1(-np.diff(big)), rtol=1e-10)


def test_weights_restart_at_infinite_ends():
    weights = multistep_weights(np.array([-np.inf, -1.0, 0.5, 2.0, np.inf]), 3)
    assert weights[0].tolist() == [1, 0, 0] and weights[3].tolist() == [1, 0, 0]
    assert weights[1].tolist() == pytest.approx([-math.expm1(-1.5), 0, 0]) and weights[2, 1] < 0 == weights[2, 2]
    assert multistep_weights(np.array([-np.inf, np.inf]), 2).tolist() == [[1, 0]]


# ---------------------------------------------------------------------------------------------- recursions


class Line:
    """A denoiser a(t) x + b(t) that is the exact one of N(0.7, 0.3), and its numbers without torch."""

    mean, variance = 0.7, 0.3

    def __call__(self, x, alpha, sigma):
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return gain * x + (1 - gain * alpha) * self.mean


def by_hand(method, schedule, times, x):
    """The methods as the papers print them, in 40 digits: EDM's variables cancel where alpha is small."""
    alpha, sigma = ([mpmath.mpf(value) for value in c.tolist()] for c in schedule(times))
    image, n, history = Line(), len(times) - 1, []
    for i in range(n):
        (a, s), (a_s, s_s) = (alpha[i], sigma[i]), (alpha[i + 1], sigma[i + 1])
        if method == "heun":  # EDM's algorithm 1
            y, level, to = x / a, s / a, s_s / a_s
            d = (y - image(x, a, s)) / level
            ahead = y + (to - level) * d
            if to > 0:
                d = 0.5 * d + 0.5 * (ahead - image(a_s * ahead, a_s, s_s)) / to
                ahead = y + (to - level) * d
            x = a_s * ahead
        else:  # DPM-Solver++(2M), algorithm 2
            history.append(image(x, a, s))
            if s_s == 0:
                x = history[-1]
                continue
            h = mpmath.log(a_s / s_s) - mpmath.log(a / s) if a > 0 else mpmath.inf
            guess = history[-1]
            if len(history) > 1 and alpha[i - 1] > 0:
                r = (mpmath.log(a / s) - mpmath.log(alpha[i - 1] / sigma[i - 1])) / h
                guess = (1 + 1 / (2 * r)) * history[-1] - 1 / (2 * r) * history[-2]
            x = s_s / s * x - a_s * (mpmath.exp(-h) - 1) * guess
    if sigma[-1] > 0 and float(times[-1]) == 0:
        x = image(x, alpha[-1], sigma[-1])
    return x


@every
@pytest.mark.parametrize("method", ["heun", "dpmpp_2m"])
@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_recursions_on_gaussian_data(name, method, steps):
    schedule = SCHEDULES[name]
    times = grid_from_signal(name, steps) if method == "heun" else uniform(steps)
    x = float(schedule(times[0])[1]) * f64([-1.0, 0.0, 2.0])
    got = last(SOLVERS[method](Gaussian(Line.mean, Line.variance).denoiser(schedule), schedule, x, times))
    with mpmath.workdps(40):
        want = [float(by_hand(method, schedule, times, mpmath.mpf(value))) for value in x.tolist()]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-9, atol=1e-10)


@every
@pytest.mark.parametrize(("order", "corrector"), [(1, 0), (2, 0), (3, 0), (4, 0), (1, 2), (2, 2), (3, 3), (3, 4)])
def test_multistep_recursion_on_gaussian_data(name, order, corrector):
    """Polynomials by numpy's polyfit through the knots, integrals by scipy's quad."""
    schedule, times, image = SCHEDULES[name], uniform(6), Line()
    alpha, sigma = numbers(schedule, times)
    start = float(schedule(times[0])[1]) * f64([-1.0, 2.0])
    with np.errstate(divide="ignore"):
        l = np.log(alpha) - np.log(sigma)

    def step(x, i, knots, images):
        use = [(u, d) for u, d in zip(knots, images) if np.isfinite(u)]
        if not np.isfinite(l[i + 1] - l[i]):
            return sigma[i + 1] / sigma[i] * x + alpha[i + 1] * images[-1]
        out = []
        for k in range(len(x)):
            centered = np.array([u for u, _ in use]) - l[i + 1]
            fit = np.linalg.solve(np.vander(centered), np.array([d[k] for _, d in use]))
            out.append(quad(lambda u: math.exp(u) * np.polyval(fit, u), l[i] - l[i + 1], 0, epsabs=1e-13, epsrel=1e-12)[0])
        return sigma[i + 1] / sigma[i] * x + alpha[i + 1] * np.array(out)

    x, images = start.numpy(), [image(start.numpy(), alpha[0], sigma[0])]
    for i in range(6):
        origin, first = x, max(0, i + 1 - order)
        x = step(origin, i, l[first : i + 1], images[first:])
        if i < 5:
            images.append(image(x, alpha[i + 1], sigma[i + 1]))
            if corrector and np.isfinite(l[i]):
                first = max(0, i + 2 - corrector)
                x = step(origin, i, l[first : i + 2], images[first:])
    if sigma[-1] > 0:
        x = image(x, alpha[-1], sigma[-1])
    denoise = Gaussian(Line.mean, Line.variance).denoiser(schedule)
    states = unipc(denoise, schedule, start, times, order, corrector) if corrector else exponential_multistep(denoise, schedule, start, times, order)
    np.testing.assert_allclose(last(states).numpy(), x, rtol=1e-6, atol=1e-7)


@every
def test_order_one_is_ddim(name):
    schedule, denoise, times = SCHEDULES[name], two_peaks().denoiser(SCHEDULES[name]), uniform(9)
    x = schedule.noise((8,), generator(1), dtype=torch.float64)
    for a, b in zip(exponential_multistep(denoise, schedule, x, times, order=1), ddim(denoise, schedule, x, times), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_order_two_is_2m_up_to_third_order_in_the_step():
    """The two differ by their integrals of a line: (1 - e^-h) / 2 in place of 1 - (1 - e^-h) / h."""
    schedule, x, gaps = LinearVP(), f64([-1.0, 0.3, 1.4]), []
    for h in (0.1, 0.05, 0.025):
        times = schedule.time(torch.arange(3, dtype=torch.float64) * 2 * h)
        runs = [last(s(two_peaks().denoiser(schedule), schedule, x, times)) for s in (dpmpp_2m, SOLVERS["multistep_2"])]
        gaps.append(float((runs[0] - runs[1]).abs().max()))
    assert all(abs(math.log2(a / b) - 3) < 0.4 for a, b in pairwise(gaps)), gaps


@pytest.mark.parametrize("steps", [1, 4, 10, 11, 30])
def test_the_order_that_unipc_takes_by_itself(steps):
    """2 up to 10 steps, whose last is then ddim's, and 3 for more."""
    schedule, denoise = LinearVP(), two_peaks().denoiser(LinearVP())
    x = schedule.noise((8,), generator(1), dtype=torch.float64, t=0.9)
    times = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)
    states, full = list(unipc(denoise, schedule, x, times)), list(unipc(denoise, schedule, x, times, 2 if steps <= 10 else 3))
    torch.testing.assert_close(torch.stack(states[:-1]), torch.stack(full[:-1]), rtol=1e-14, atol=1e-14)
    if steps > 10:
        torch.testing.assert_close(states[-1], full[-1], rtol=1e-14, atol=1e-14)
    else:
        seen = []

        def noting(x, t):
            seen.append(denoise(x, t))
            return seen[-1]

        states = list(unipc(noting, schedule, x, times))
        (a_t, s_t), (a_s, s_s) = ((float(c) for c in schedule(t)) for t in times[-2:])
        torch.testing.assert_close(states[-1], s_s / s_t * states[-2] + (a_s - a_t * s_s / s_t) * seen[-1], rtol=1e-10, atol=1e-10)


# ---------------------------------------------------------------------------------------------- calls and ends


@every
@pytest.mark.parametrize("solver", SOLVERS)
def test_states_calls_and_the_last_step(name, solver):
    schedule, floored = SCHEDULES[name], name in FLOORED
    spy = Spy(two_peaks().denoiser(schedule))
    times = grid_from_signal(name) if solver == "heun" else uniform(6)
    start = schedule.noise((4,), generator(1), dtype=torch.float64)
    kept = start.clone()
    states = list(SOLVERS[solver](spy, schedule, start, times))
    assert len(states) == 7 + floored and torch.equal(states[0], kept) and torch.equal(start, kept)
    if solver == "heun":
        pairs = [t for pair in pairwise(times.tolist()) for t in pair]
        assert spy.times == (pairs + [0.0] if floored else pairs[:-1])
    else:
        assert spy.times == times[: 7 if floored else 6].tolist()
    assert all(s.shape == (4,) and s.dtype == torch.float64 and bool(s.isfinite().all()) for s in states)
    if not solver.startswith("unipc") or floored:
        torch.testing.assert_close(states[-1], spy.denoise(states[-2], spy.times[-1]), rtol=1e-12, atol=0)


@every
@pytest.mark.parametrize("solver", [s for s in SOLVERS if s.startswith("unipc")])
def test_unipc_ends_with_the_image_of_the_predicted_state(name, solver):
    schedule, seen = SCHEDULES[name], []

    def denoise(x, t):
        seen.append(two_peaks().denoiser(schedule)(x, t))
        return seen[-1]

    end = last(SOLVERS[solver](denoise, schedule, schedule.noise((4,), generator(1), dtype=torch.float64), uniform(6)))
    torch.testing.assert_close(end, seen[-1], rtol=0, atol=0)


@pytest.mark.parametrize("name", NO_SIGNAL_AT_1)
@pytest.mark.parametrize("solver", [s for s in SOLVERS if s != "heun"])
def test_the_first_two_steps_from_no_signal(name, solver):
    """From alpha = 0 the first step is ddim's and is not corrected; the second knows one image only."""
    schedule, x = SCHEDULES[name], f64([-1.0, 0.5])
    denoise, times = two_peaks().denoiser(schedule), f64([1.0, 0.6, 0.3])
    states, simple = (list(s(denoise, schedule, x, times)) for s in (SOLVERS[solver], ddim))
    torch.testing.assert_close(states[1], simple[1], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(states[2], simple[2], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_grid_that_stops_early_is_left_noisy(solver):
    schedule = GeometricVE()
    spy = Spy(two_peaks().denoiser(schedule))
    states = list(SOLVERS[solver](spy, schedule, torch.zeros(2), f64([1.0, 0.5, 0.1])))
    assert len(states) == 3 and spy.times == ([1.0, 0.5, 0.5, 0.1] if solver == "heun" else [1.0, 0.5])


@every
@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_images_and_gradients(name, solver):
    schedule, world = SCHEDULES[name], Gaussian(torch.zeros(1, 2, 2), 0.25)
    x, times = schedule.noise((3, 1, 2, 2), generator(1)), grid_from_signal(name, 5)
    single, double = (last(SOLVERS[solver](world.denoiser(schedule), schedule, x.to(dtype), times)) for dtype in (torch.float32, torch.float64))
    assert single.shape == (3, 1, 2, 2) and single.dtype == torch.float32
    assert float((single.double() - double).abs().max()) < 2e-4
    start = x.double().requires_grad_()
    slope = torch.autograd.grad(last(SOLVERS[solver](world.denoiser(schedule), schedule, start, times)).sum(), start)[0]
    bumped = last(SOLVERS[solver](world.denoiser(schedule), schedule, x.double() + 1.0, times))
    torch.testing.assert_close(slope, bumped - double, rtol=1e-6, atol=1e-8)


def test_a_mixture_is_sampled():
    """In 30 steps from noise to data every solver is several times better than ddim."""
    schedule = LinearVP()
    x, denoise = schedule.noise((200,), generator(1), dtype=torch.float64), two_peaks().denoiser(schedule)
    fine = last(unipc(denoise, schedule, x, log_snr_grid(schedule, 600), 3, 3))
    grid = log_snr_grid(schedule, 30)
    errors = {name: float((last(s(denoise, schedule, x, grid)) - fine).square().mean().sqrt()) for name, s in (SOLVERS | {"ddim": ddim}).items()}
    assert errors["ddim"] > 5 * errors["heun"] and errors["ddim"] > 6 * errors["dpmpp_2m"] and errors["ddim"] > 30 * errors["unipc_3_3"], errors


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("x", "times", "message"), BAD_STARTS)
def test_bad_starts_and_grids_raise(solver, x, times, message):
    with pytest.raises(ValueError, match=message):
        last(SOLVERS[solver](two_peaks().denoiser(LinearVP()), LinearVP(), x, times))


def test_other_bad_calls_raise():
    denoise, x = two_peaks().denoiser(LinearVP()), torch.zeros(2)
    for order in (0, 5, 2.0, -1):
        with pytest.raises(ValueError, match="1 to 4 denoised images"):
            last(exponential_multistep(denoise, LinearVP(), x, uniform(3), order))
        with pytest.raises(ValueError, match="1 to 4 denoised images"):
            last(unipc(denoise, LinearVP(), x, uniform(3), order))
    for corrector in (0, 6, 2.0):
        with pytest.raises(ValueError, match="1 to 5 denoised images"):
            last(unipc(denoise, LinearVP(), x, uniform(3), 2, corrector))
    for solver in SOLVERS.values():
        with pytest.raises(ValueError, match="made for another path"):
            last(solver(denoise, CosineVP(), x, uniform(3)))
    for name in NO_SIGNAL_AT_1:
        with pytest.raises(ValueError, match="no signal at t = 1"):
            last(heun(two_peaks().denoiser(SCHEDULES[name]), SCHEDULES[name], x, uniform(3)))
    assert len(list(heun(two_peaks().denoiser(Straight()), Straight(), x, 0.9 * uniform(3)))) == 4
    for solver in (unipc, *SOLVERS.values()):
        with pytest.raises(ValueError, match="strictly decreasing"):
            last(solver(denoise, LinearVP(), x, f64(0.5)))
