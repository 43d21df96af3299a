"""Samplers as calls: grids, what is called, drawn and yielded, the ends, variances, clipping, errors."""

import math

import numpy as np
import pytest
import torch
from paths import BAD_STARTS, FLOORED, NO_SIGNAL_AT_1, SCHEDULES, WALKS, Spy, f64, generator, numbers, one_thread  # noqa: F401

from diffusion_core import (
    EDM,
    CosineVP,
    Denoiser,
    Gaussian,
    GeometricVE,
    LinearVP,
    Straight,
    ancestral,
    asinh_grid,
    clipped,
    ddim,
    karras_grid,
    last,
    log_snr_grid,
    posterior_variance,
    targets,
    two_peaks,
    uniform,
)

every = pytest.mark.parametrize("name", SCHEDULES)


# ---------------------------------------------------------------------------------------------- grids


def test_uniform_grid():
    assert uniform(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0] and uniform(4).dtype == torch.float64
    assert uniform(1).tolist() == [1.0, 0.0]


@every
def test_log_snr_grid(name):
    schedule = SCHEDULES[name]
    low, high = schedule.log_snr_range()
    low, high = low if name not in NO_SIGNAL_AT_1 else -10, high if name in FLOORED else 10
    grid = log_snr_grid(schedule, 9)
    assert grid.shape == (9 if name in FLOORED else 10,) and float(grid[-1]) == 0 and bool((grid.diff() < 0).all())
    assert (float(grid[0]) == 1) == (name not in NO_SIGNAL_AT_1)
    inner = grid[:9]
    np.testing.assert_allclose(schedule.log_snr(inner).numpy(), np.linspace(low, high, 9), atol=1e-9)
    inner = log_snr_grid(schedule, 5, -4.0, 3.0)
    np.testing.assert_allclose(schedule.log_snr(inner[:-1]).numpy(), np.linspace(-4, 3, 5), atol=1e-11)
    assert len(inner) == 6 and float(inner[-1]) == 0


@pytest.mark.parametrize("name", ["linear", "straight", "edm", "subvp"])
@pytest.mark.parametrize("rho", [3.0, 7.0])
def test_karras_grid_is_equation_5(name, rho):
    schedule, n = SCHEDULES[name], 12
    grid = karras_grid(schedule, n, 0.002, 80.0, rho)
    alpha, sigma = numbers(schedule, grid[:-1])
    want = (80 ** (1 / rho) + np.arange(n) / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    np.testing.assert_allclose(sigma / alpha, want, rtol=1e-9)
    assert len(grid) == n + 1 and float(grid[-1]) == 0
    if name == "edm":
        assert float(grid[0]) == 1.0


@pytest.mark.parametrize("name", ["linear", "straight", "edm", "subvp"])
@pytest.mark.parametrize("knee", [0.5, 5.0])
def test_asinh_grid(name, knee):
    """Even in asinh(knee alpha / sigma): in alpha / sigma far above the knee, in the log-SNR far below."""
    schedule = SCHEDULES[name]
    grid = asinh_grid(schedule, 12, 0.02, 50.0, knee)
    alpha, sigma = numbers(schedule, grid[:-1])
    np.testing.assert_allclose(np.arcsinh(knee * alpha / sigma), np.linspace(np.arcsinh(knee / 50), np.arcsinh(knee / 0.02), 12), rtol=1e-8)
    assert len(grid) == 13 and float(grid[-1]) == 0 and bool((grid.diff() < 0).all())
    if name == "edm":
        torch.testing.assert_close(asinh_grid(schedule, 9, knee=1e-9), _even_in_inverse_noise(9), rtol=1e-9, atol=0)
        torch.testing.assert_close(asinh_grid(schedule, 9, knee=1e9), log_snr_grid(schedule, 9, -2 * math.log(80), -2 * math.log(0.002)), rtol=1e-9, atol=0)


def _even_in_inverse_noise(n):
    return torch.cat([1 / torch.linspace(1 / 80, 1 / 0.002, n, dtype=torch.float64) / 80, f64([0.0])])


def test_karras_grid_from_top_to_floor_ends_once():
    grid = karras_grid(GeometricVE(0.01, 50.0), 8, 0.01, 50.0)
    assert len(grid) == 8 and float(grid[0]) == 1.0 and float(grid[-1]) == 0.0
    assert len(karras_grid(EDM(), 1)) == 2
    assert len(asinh_grid(GeometricVE(0.01, 50.0), 8, 0.01, 50.0)) == 8 and len(asinh_grid(EDM(), 1)) == 2


# ---------------------------------------------------------------------------------------------- what is called, what is drawn, what is yielded


@every
@pytest.mark.parametrize("walk", WALKS)
def test_states_calls_and_the_last_step(name, walk):
    schedule = SCHEDULES[name]
    spy, times, g = Spy(two_peaks().denoiser(schedule)), uniform(6), generator(2)
    start = schedule.noise((4,), generator(1), dtype=torch.float64)
    kept = start.clone()
    states = list(WALKS[walk](spy, schedule, start, times, generator=g))
    floored = name in FLOORED
    assert len(states) == 7 + floored and torch.equal(states[0], kept) and torch.equal(start, kept)
    assert spy.times == times[: 7 if floored else 6].tolist()
    assert all(float(schedule(t)[1]) > 0 for t in spy.times)
    assert all(s.shape == (4,) and s.dtype == torch.float64 and bool(s.isfinite().all()) and not s.requires_grad for s in states)
    assert torch.equal(states[-1], spy.denoise(states[-2], spy.times[-1]))
    if walk == "ddim":
        assert torch.equal(g.get_state(), generator(2).get_state())
    again = list(WALKS[walk](spy, schedule, start, times, generator=generator(2)))
    assert all(torch.equal(a, b) for a, b in zip(states, again))


@pytest.mark.parametrize("walk", WALKS)
def test_the_last_step_draws_nothing(walk):
    schedule, g = LinearVP(), generator(3)
    before = g.get_state()
    last(WALKS[walk](two_peaks().denoiser(schedule), schedule, torch.zeros(3), f64([0.3, 0.0]), generator=g))
    assert torch.equal(before, g.get_state())


def test_a_grid_that_stops_early_is_left_noisy():
    schedule = GeometricVE()
    spy = Spy(two_peaks().denoiser(schedule))
    assert len(list(ddim(spy, schedule, torch.zeros(2), f64([1.0, 0.5, 0.1])))) == 3 and spy.times == [1.0, 0.5]


@every
def test_float32_images(name):
    schedule = SCHEDULES[name]
    world = Gaussian(torch.zeros(1, 2, 2), 0.25)
    x = schedule.noise((3, 1, 2, 2), generator(1))
    for walk in WALKS.values():
        single, double = (last(walk(world.denoiser(schedule), schedule, x.to(dtype), uniform(5), generator=generator(4))) for dtype in (torch.float32, torch.float64))
        assert single.shape == (3, 1, 2, 2) and single.dtype == torch.float32
    exact = last(ddim(world.denoiser(schedule), schedule, x.double(), uniform(5)))
    assert float((last(ddim(world.denoiser(schedule), schedule, x, uniform(5))).double() - exact).abs().max()) < 1e-4


# ---------------------------------------------------------------------------------------------- variances, clipping, errors


def test_variances_of_every_shape():
    schedule, x, times = LinearVP(), torch.zeros(3, 3), f64([0.8, 0.4])
    denoise = Gaussian(torch.zeros(3), 1.0).denoiser(schedule)
    z = torch.randn(3, 3, generator=generator(1))
    per_row, per_pixel = f64([0.0, 1.0, 4.0]), torch.rand(3, 3, generator=generator(2), dtype=torch.float64)
    for tau2, scale in ((f64(0.25), 0.5), (per_row, per_row.sqrt().float()[:, None]), (per_pixel, per_pixel.sqrt().float())):
        got = last(ancestral(denoise, schedule, x, times, lambda *_: tau2, generator(1)))
        torch.testing.assert_close(got, scale * z)


def test_variance_is_asked_with_the_state_and_both_times():
    seen = []

    def spy(schedule, x, s, t):
        seen.append((x.clone(), float(s), float(t)))
        return posterior_variance(schedule, x, s, t)

    schedule = LinearVP()
    states = list(ancestral(two_peaks().denoiser(schedule), schedule, torch.ones(2), uniform(3), spy, generator(1)))
    assert [(s, t) for _, s, t in seen] == [(uniform(3)[1].item(), 1.0), (uniform(3)[2].item(), uniform(3)[1].item())]
    assert all(torch.equal(x, state) for (x, _, _), state in zip(seen, states))


def test_clipping_clips_the_image_and_not_the_state():
    """Pitfall 18: the noise follows from the clipped image."""
    schedule, x, times = LinearVP(), f64([3.0]), f64([0.6, 0.3])
    denoise = clipped(Gaussian(5.0, 1.0).denoiser(schedule))
    (a_t, s_t), (a_s, s_s) = ((float(c) for c in schedule(u)) for u in times)
    got = last(ddim(denoise, schedule, x, times))
    assert got.item() == pytest.approx(a_s * 1.0 + s_s * (3.0 - a_t * 1.0) / s_t, rel=1e-12)


def test_last():
    assert last(iter([1, 2, 3])) == 3
    with pytest.raises(ValueError, match="no state"):
        last([])


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize(("x", "times", "message"), BAD_STARTS)
def test_bad_starts_and_grids_raise(walk, x, times, message):
    with pytest.raises(ValueError, match=message):
        last(WALKS[walk](two_peaks().denoiser(LinearVP()), LinearVP(), x, times))


def test_other_bad_calls_raise():
    denoise, x = two_peaks().denoiser(LinearVP()), torch.zeros(2)
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="eta must lie"):
            last(ddim(denoise, LinearVP(), x, uniform(3), eta))
    for walk in WALKS.values():
        with pytest.raises(ValueError, match="made for another path"):
            last(walk(denoise, CosineVP(), x, uniform(3)))
    with pytest.raises(ValueError, match="predict x0, v or the velocity"):
        last(ddim(Denoiser(Echo(), Straight(), targets.eps), Straight(), x, uniform(3)))
    for make, message in (
        (lambda: uniform(0), "positive integer"), (lambda: uniform(2.0), "positive integer"), (lambda: log_snr_grid(LinearVP(), 3, 5.0, 1.0), "lo < hi"), (lambda: log_snr_grid(LinearVP(), 3, -20.0, 5.0), "takes log-SNRs from"),
        (lambda: karras_grid(LinearVP(), 5, 80.0, 0.002), "sigma_min < sigma_max"), (lambda: karras_grid(GeometricVE(), 5), "takes log-SNRs from"), (lambda: karras_grid(EDM(), 5, rho=0.0), "rho"),
        (lambda: karras_grid(EDM(), 0), "positive integer"),
        (lambda: asinh_grid(EDM(), 5, 80.0, 0.002), "sigma_min < sigma_max"), (lambda: asinh_grid(EDM(), 5, knee=0.0), "knee > 0"), (lambda: asinh_grid(EDM(), 5, knee=math.inf), "knee > 0"), (lambda: asinh_grid(EDM(), 0), "positive integer"),
        (lambda: asinh_grid(GeometricVE(), 5), "takes log-SNRs from"),
        *((lambda grid=grid, low=low: grid(EDM(), 5, low, 80.0), "0 < sigma_min") for grid in (karras_grid, asinh_grid) for low in (0.0, -0.5, math.nan)),
        (lambda: karras_grid(EDM(), 5, rho=-7.0), "rho > 0"), (lambda: asinh_grid(EDM(), 5, knee=-5.0), "knee > 0"), (lambda: asinh_grid(EDM(), 5, sigma_max=math.inf), "sigma_max"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


class Echo(torch.nn.Module):
    def forward(self, x, log_snr):
        return x
