"""Targets are lines y = a x_0 + b eps; every one follows from every other through the image."""

import math

import pytest
import torch
from paths import FLOORED, NO_SIGNAL_AT_1, PRESERVING, SCHEDULES, f64, generator, one_thread  # noqa: F401

from diffusion_core import EDM, CosineVP, LinearVP, SigmoidVP, Straight, targets

TARGETS = {"x0": targets.x0, "eps": targets.eps, "score": targets.score, "v": targets.v, "velocity": targets.velocity, "edm": targets.edm(0.7)}
TIMES = f64([1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999])


def world(schedule, t):
    """x_0, eps and x_t, (T, 64) each."""
    x_0, eps = (torch.randn(len(t), 64, generator=generator(seed), dtype=torch.float64) for seed in (1, 2))
    alpha, sigma = (c[:, None] for c in schedule(t))
    return x_0, eps, alpha * x_0 + sigma * eps


def line(schedule, name, t, x_0, eps):
    a, b = (c[:, None] for c in TARGETS[name](schedule, t))
    return a * x_0 + b * eps


@pytest.mark.parametrize("schedule_name", SCHEDULES)
def test_every_pair_of_targets_round_trips(schedule_name):
    """first -> (x_0, eps) -> second -> (x_0, eps) -> first; the error is measured against what one rounding of x_t costs."""
    schedule, t = SCHEDULES[schedule_name], TIMES
    x_0, eps, x_t = world(schedule, t)
    alpha, sigma = (c[:, None] for c in schedule(t))
    lines = {name: [c[:, None] for c in target(schedule, t)] for name, target in TARGETS.items()}
    solutions = {name: [c[:, None] for c in targets.solution(schedule, target, t)] for name, target in TARGETS.items()}
    image_scale = 1 + sigma / alpha
    noise_scale = 1 + alpha / sigma * image_scale
    inside = (t >= 0.1) & (t <= 0.9) & (alpha[:, 0] > 1e-3) & (sigma[:, 0] > 1e-3)

    def image(name, y):
        c_x, c_y = solutions[name]
        return c_x * x_t + c_y * y

    def prediction(name, x_0_hat):
        a, b = lines[name]
        return a * x_0_hat + b * (x_t - alpha * x_0_hat) / sigma

    for first, (a, b) in lines.items():
        start = a * x_0 + b * eps
        for second in TARGETS:
            there = image(second, prediction(second, image(first, start)))
            back = prediction(first, there)
            assert float(((there - x_0).abs() / image_scale).max()) < 1e-10, (first, second)
            assert float(((back - start).abs() / (a.abs() * image_scale + b.abs() * noise_scale)).max()) < 1e-10, (first, second)
            torch.testing.assert_close(back[inside], start[inside], rtol=1e-10, atol=1e-10 * float(start[inside].abs().max()), msg=f"{first} -> {second}")


@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("name", TARGETS)
def test_targets_at_both_ends(schedule_name, name):
    """Either the image comes back, or a ValueError says why it cannot."""
    schedule = SCHEDULES[schedule_name]
    for end in (0.0, 1.0):
        t = f64([end])
        alpha, sigma = (float(c) for c in schedule(end))
        expected = None
        if name == "score" and sigma == 0:
            expected = "does not exist where sigma = 0"
        elif name in ("eps", "score") and alpha == 0:
            expected = "say nothing about the image"
        elif name == "velocity" and ((end == 0 and schedule_name in PRESERVING and schedule_name not in FLOORED) or (end == 1 and schedule_name.startswith("sigmoid"))):
            expected = "infinite"
        if expected:
            with pytest.raises(ValueError, match=expected):
                targets.solution(schedule, TARGETS[name], t)
            continue
        x_0, eps, x_t = world(schedule, t)
        c_x, c_y = (float(c) for c in targets.solution(schedule, TARGETS[name], t))
        got = c_x * x_t + c_y * line(schedule, name, t, x_0, eps)
        torch.testing.assert_close(got, x_0, rtol=0, atol=1e-11 * (1 + sigma / alpha) if alpha else 1e-12)


def test_image_target_needs_no_solving():
    for schedule in SCHEDULES.values():
        for t in (0.0, 0.5, 1.0, f64([0.0, 1.0])):
            c_x, c_y = targets.solution(schedule, targets.x0, t)
            assert bool((c_x == 0).all()) and bool((c_y == 1).all())


@pytest.mark.parametrize("name", [n for n in PRESERVING])
def test_v_identities(name):
    """Pitfall 16: x_0 = alpha x - sigma v, eps = sigma x + alpha v where alpha^2 + sigma^2 = 1; v = dx/dphi with phi = atan2(sigma, alpha)."""
    schedule, t = SCHEDULES[name], TIMES
    x_0, eps, x_t = world(schedule, t)
    alpha, sigma = (c[:, None] for c in schedule(t))
    v = line(schedule, "v", t, x_0, eps)
    torch.testing.assert_close(alpha * x_t - sigma * v, x_0, rtol=0, atol=1e-13)
    torch.testing.assert_close(sigma * x_t + alpha * v, eps, rtol=0, atol=1e-13)
    c_x, c_y = (c[:, None] for c in targets.solution(schedule, targets.v, t))
    torch.testing.assert_close(c_x, alpha, rtol=1e-13, atol=0)
    torch.testing.assert_close(c_y, -sigma, rtol=1e-13, atol=0)
    phi = torch.atan2(sigma, alpha)
    turned = lambda angle: torch.cos(angle) * x_0 + torch.sin(angle) * eps
    torch.testing.assert_close((turned(phi + 1e-5) - turned(phi - 1e-5)) / 2e-5, v, rtol=0, atol=1e-9)


def test_velocity_is_the_time_derivative_of_the_path():
    for name in ("linear", "cosine", "sigmoid", "subvp", "geometric", "edm", "straight", "learned"):
        schedule, t, h = SCHEDULES[name], f64([0.2, 0.5, 0.8]), 1e-5
        x_0, eps, _ = world(schedule, t)
        at = lambda u: schedule(u)[0][:, None] * x_0 + schedule(u)[1][:, None] * eps
        velocity = line(schedule, "velocity", t, x_0, eps)
        torch.testing.assert_close((at(t + h) - at(t - h)) / (2 * h), velocity, rtol=1e-6, atol=1e-6 * float(velocity.abs().max()))


def test_velocity_of_the_straight_path_is_noise_minus_image():
    t = f64([0.0, 0.3, 1.0])
    x_0, eps, x_t = world(Straight(), t)
    assert torch.equal(line(Straight(), "velocity", t, x_0, eps), eps - x_0)
    c_x, c_y = targets.solution(Straight(), targets.velocity, t)
    torch.testing.assert_close(c_x, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(c_y, -t)


def test_score_target_is_the_conditional_score():
    """Autograd of log N(x; alpha x_0, sigma^2)."""
    schedule, t = LinearVP(), f64([0.4])
    x_0, eps, x_t = world(schedule, t)
    alpha, sigma = schedule(t)
    x = x_t.clone().requires_grad_()
    (want,) = torch.autograd.grad((-((x - alpha * x_0) ** 2) / (2 * sigma**2)).sum(), x)
    torch.testing.assert_close(line(schedule, "score", t, x_0, eps), want)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
def test_edm_target_is_the_papers_preconditioning(sigma_data):
    """Pitfall 41: D = c_skip x + c_out F, table 1 of Karras et al. 2022; the target has unit variance."""
    t = f64([1e-6, 0.002, 0.1, 0.7, 1.0])
    sigma = 80 * t
    c_x, c_y = targets.solution(EDM(80.0), targets.edm(sigma_data), t)
    torch.testing.assert_close(c_x, sigma_data**2 / (sigma**2 + sigma_data**2), rtol=1e-12, atol=0)
    torch.testing.assert_close(c_y, sigma * sigma_data / torch.sqrt(sigma**2 + sigma_data**2), rtol=1e-12, atol=0)
    a, b = targets.edm(sigma_data)(EDM(80.0), t)
    torch.testing.assert_close((a * sigma_data) ** 2 + b**2, torch.ones(5, dtype=torch.float64), rtol=1e-12, atol=0)
    skip, out = targets.solution(EDM(80.0), targets.edm(sigma_data), 0.0)
    assert float(skip) == pytest.approx(1.0) and float(out) == 0.0


def test_edm_target_on_other_paths_is_the_line_of_x_over_alpha():
    schedule, t, sigma_data = LinearVP(), TIMES, 0.6
    alpha, sigma = schedule(t)
    ratio = sigma / alpha
    c_x, c_y = targets.solution(schedule, targets.edm(sigma_data), t)
    torch.testing.assert_close(c_x, sigma_data**2 / (ratio**2 + sigma_data**2) / alpha, rtol=1e-12, atol=0)
    torch.testing.assert_close(c_y, ratio * sigma_data / torch.sqrt(ratio**2 + sigma_data**2), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", TARGETS)
def test_determinant_is_alpha_b_minus_sigma_a(name):
    for schedule in SCHEDULES.values():
        t = f64([0.01, 0.5, 0.99])
        alpha, sigma = schedule(t)
        a, b = TARGETS[name](schedule, t)
        factor, m, n = targets.determinant(schedule, TARGETS[name], t)
        torch.testing.assert_close((factor * alpha**m * sigma**n), (alpha * b - sigma * a), rtol=1e-12, atol=0)


def test_errors_name_the_way_out():
    for schedule in (CosineVP(), SigmoidVP(), Straight()):
        for target in (targets.eps, targets.score):
            with pytest.raises(ValueError, match="predict x0, v or the velocity"):
                targets.solution(schedule, target, f64([0.5, 1.0]))
    with pytest.raises(ValueError, match="keep t above 0"):
        targets.score(LinearVP(), 0.0)
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="sigma_data"):
            targets.edm(wrong)


def test_schedules_without_signal_are_the_ones_named():
    assert {name for name, s in SCHEDULES.items() if float(s(1.0)[0]) == 0} == set(NO_SIGNAL_AT_1)
