"""The denoising loss: its weights by brute force, its limits, its floor, and how times fall."""

import math
import re

import numpy as np
import pytest
import scipy.stats
import torch
from paths import FLOORED, SCHEDULES, Perfect, f64, generator, one_thread  # noqa: F401
from scipy.integrate import quad
from torch import nn

from diffusion_core import (
    DDPM,
    CosineVP,
    Denoiser,
    GeometricVE,
    LinearVP,
    SigmoidVP,
    Straight,
    denoising_loss,
    discrete_times,
    hybrid_loss,
    linear_betas,
    lognormal_times,
    losses,
    targets,
    two_peaks,
    uniform_times,
)

TARGETS = {"x0": targets.x0, "eps": targets.eps, "score": targets.score, "v": targets.v, "velocity": targets.velocity, "edm": targets.edm(0.7)}
WEIGHTS = {  # the weight of |x0_hat - x0|^2 as a function of the SNR
    "snr": (losses.snr, lambda snr: snr),
    "uniform": (losses.uniform, lambda snr: np.ones_like(snr)),
    "v": (losses.v_weight, lambda snr: snr + 1),
    "truncated": (losses.truncated_snr, lambda snr: np.maximum(snr, 1)),
    "min_snr": (losses.min_snr(5.0), lambda snr: np.minimum(snr, 5)),
    "edm": (losses.edm_weight(0.7), lambda snr: snr + 1 / 0.49),
}
TIMES = f64([1e-4, 0.01, 0.2, 0.5, 0.8, 0.99])


def inverse_line(schedule, target, t):
    """c_y^2 = (sigma / (alpha b - sigma a))^2, typed from the definition of a line."""
    alpha, sigma = (c.numpy() for c in schedule(t))
    a, b = (c.numpy() for c in TARGETS[target](schedule, t))
    return (sigma / (alpha * b - sigma * a)) ** 2


@pytest.mark.parametrize("schedule_name", SCHEDULES)
def test_weights_are_the_brute_force_coefficients(schedule_name):
    schedule = SCHEDULES[schedule_name]
    alpha, sigma = (c.numpy() for c in schedule(TIMES))
    for target in TARGETS:
        for weight, formula in WEIGHTS.values():
            want = formula(alpha**2 / sigma**2) * inverse_line(schedule, target, TIMES)
            np.testing.assert_allclose(weight(schedule, TIMES, TARGETS[target]).numpy(), want, rtol=1e-10)


def test_weights_on_the_image_are_the_weights_themselves():
    schedule = LinearVP()
    alpha, sigma = (c.numpy() for c in schedule(TIMES))
    snr = alpha**2 / sigma**2
    as_published = [(losses.min_snr(), np.minimum(snr, 5)), (losses.edm_weight(), snr + 1 / 0.5**2)]  # the constants of Hang et al. and Karras et al.
    for weight, want in [(weight, formula(snr)) for weight, formula in WEIGHTS.values()] + as_published:
        np.testing.assert_allclose(weight(schedule, TIMES).numpy(), want, rtol=1e-12)


INF = math.inf
LIMITS = {  # (at sigma = 0, at alpha = 0) on paths with alpha^2 + sigma^2 = 1 at the ends
    ("x0", "snr"): (INF, 0), ("x0", "uniform"): (1, 1), ("x0", "v"): (INF, 1), ("x0", "truncated"): (INF, 1), ("x0", "min_snr"): (5, 0), ("x0", "edm"): (INF, 1 / 0.49),
    ("eps", "snr"): (1, 1), ("eps", "uniform"): (0, INF), ("eps", "v"): (1, INF), ("eps", "truncated"): (1, INF), ("eps", "min_snr"): (0, 1), ("eps", "edm"): (1, INF),
    ("v", "snr"): (1, 0), ("v", "uniform"): (0, 1), ("v", "v"): (1, 1), ("v", "truncated"): (1, 1), ("v", "min_snr"): (0, 0), ("v", "edm"): (1, 1 / 0.49),
    ("edm", "snr"): (1, 0), ("edm", "uniform"): (0, 0.49), ("edm", "v"): (1, 0.49), ("edm", "truncated"): (1, 0.49), ("edm", "min_snr"): (0, 0), ("edm", "edm"): (1, 1),
    ("velocity", "snr"): (1, 0), ("velocity", "uniform"): (0, 1), ("velocity", "v"): (1, 1), ("velocity", "truncated"): (1, 1), ("velocity", "min_snr"): (0, 0), ("velocity", "edm"): (1, 1 / 0.49),
}


@pytest.mark.parametrize(("target", "weight"), LIMITS)
def test_weights_have_their_limits_at_the_ends(target, weight):
    clean, noise = LIMITS[target, weight]
    paths = (Straight(),) if target == "velocity" else (CosineVP(), SigmoidVP(), Straight())
    for schedule in paths:
        got = WEIGHTS[weight][0](schedule, f64([0.0, 1.0]), TARGETS[target])
        assert got.tolist() == pytest.approx([clean, noise], rel=1e-12)


def test_score_weights_at_no_signal():
    """The score target has c_y = sigma^2 / alpha: only weights that vanish with the SNR stay finite."""
    assert float(losses.snr(Straight(), 1.0, targets.score)) == 1.0 and float(losses.min_snr()(Straight(), 1.0, targets.score)) == 1.0
    assert math.isinf(float(losses.uniform(Straight(), 1.0, targets.score)))


@pytest.mark.parametrize("schedule_name", [n for n in SCHEDULES if not n.startswith("ddpm")])
def test_vlb_is_minus_half_the_slope_of_the_snr(schedule_name):
    schedule, t, h = SCHEDULES[schedule_name], f64([0.05, 0.3, 0.6, 0.9]), 2e-4
    snr = lambda u: torch.exp(schedule.log_snr(u)).numpy()
    slope = (8 * (snr(t + h) - snr(t - h)) - (snr(t + 2 * h) - snr(t - 2 * h))) / (12 * h)
    for target in TARGETS:
        np.testing.assert_allclose(losses.vlb(schedule, t, TARGETS[target]).numpy(), -0.5 * slope * inverse_line(schedule, target, t), rtol=1e-6)


@pytest.mark.parametrize("schedule_name", SCHEDULES)
def test_vlb_integrates_to_half_the_drop_of_the_snr(schedule_name):
    """Pitfall 8: a step of the discrete bound weighs (SNR_s - SNR_t) / 2, which is the integral of the continuous weight."""
    schedule = SCHEDULES[schedule_name]
    s, t = (0.4, 0.6) if schedule_name != "ddpm_cosine_10" else (0.4, 0.5)
    knots = [i / 49 for i in range(20, 30)] if schedule_name == "ddpm_linear_49" else None
    area, _ = quad(lambda u: float(losses.vlb(schedule, u)), s, t, epsrel=1e-10, limit=500, points=knots) if "1000" not in schedule_name else (cellwise(schedule, s, t, 1000), None)
    snr = lambda u: math.exp(float(schedule.log_snr(u)))
    assert area == pytest.approx(0.5 * (snr(s) - snr(t)), rel=1e-8)


def cellwise(schedule, s, t, n):
    """Five-point Gauss-Legendre in every cell between knots, where the rates jump."""
    nodes, weights = np.polynomial.legendre.leggauss(5)
    left = np.arange(round(s * n), round(t * n))
    u = f64((left[:, None] + 0.5 + 0.5 * nodes) / n).flatten()
    return float((losses.vlb(schedule, u).reshape(-1, 5).numpy() * weights).sum() / (2 * n))


def test_discrete_bound_in_the_units_of_the_noise():
    """Pitfall 8: beta^2 / (2 tau^2 (1 - beta) (1 - alpha_bar)) with tau^2 the posterior variance is half the drop of the SNR times 1/SNR; pitfall 9: .60 at t = 2, .010 at 1000."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - betas)
    before = np.r_[1.0, bar[:-1]]
    posterior = betas * (1 - before) / (1 - bar)
    papers = betas[1:] ** 2 / (2 * posterior[1:] * (1 - betas[1:]) * (1 - bar[1:]))
    schedule = DDPM(betas)
    t = torch.arange(2, 1001, dtype=torch.float64) / 1000
    drop = 0.5 * (torch.exp(schedule.log_snr(t - 1e-3)) - torch.exp(schedule.log_snr(t)))
    ours = drop.numpy() * losses.uniform(schedule, t, targets.eps).numpy()
    np.testing.assert_allclose(ours, papers, rtol=1e-9)
    assert ours[0] == pytest.approx(0.60, abs=0.005) and ours[-1] == pytest.approx(0.010, abs=0.0005)


def test_vlb_at_no_signal():
    """SNR' = 0 where alpha = 0 and its rate is finite; where a rate is infinite the schedule says so."""
    for schedule in (CosineVP(), Straight()):
        for target in (targets.x0, targets.v, targets.velocity):
            assert float(losses.vlb(schedule, 1.0, target)) == 0.0
        assert math.isinf(float(losses.vlb(schedule, 1.0, targets.eps)))
    with pytest.raises(ValueError, match="rates"):
        losses.vlb(SigmoidVP(), 1.0)
    with pytest.raises(ValueError, match="rates"):
        losses.vlb(LinearVP(), 0.0)


# ---------------------------------------------------------------------------------------------- the loss


class Affine(nn.Module):
    def forward(self, x, log_snr, shift=0.0):
        return 0.4 * x + 0.01 * log_snr.reshape(-1, *[1] * (x.ndim - 1)) + shift


@pytest.mark.parametrize("target", TARGETS)
def test_loss_by_hand(target):
    schedule, sigma_data = CosineVP(), 0.7
    denoise = Denoiser(Affine(), schedule, TARGETS[target], sigma_data)
    x_0, t = torch.randn(6, 3, 2, generator=generator(1), dtype=torch.float64), torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    eps = torch.randn(6, 3, 2, generator=generator(2), dtype=torch.float64)
    alpha, sigma = (c[:, None, None] for c in schedule(t))
    a, b = (c[:, None, None] for c in TARGETS[target](schedule, t))
    x_t = alpha * x_0 + sigma * eps
    raw = 0.4 * x_t / torch.sqrt(alpha**2 * sigma_data**2 + sigma**2) + 0.01 * torch.log(alpha**2 / sigma**2) + 0.2
    plain = ((raw - (a * x_0 + b * eps)) ** 2).mean((1, 2))
    torch.testing.assert_close(denoising_loss(denoise, x_0, t, None, generator(2), shift=0.2), plain, rtol=1e-12, atol=0)
    image = (b * x_t - sigma * raw) / (alpha * b - sigma * a)
    error = ((image - x_0) ** 2).mean((1, 2))
    snr = (alpha / sigma).flatten() ** 2
    for name, (weight, formula) in WEIGHTS.items():
        got = denoising_loss(denoise, x_0, t, weight, generator(2), shift=0.2)
        torch.testing.assert_close(got, f64(formula(snr.numpy())) * error, rtol=1e-10, atol=0, msg=name)


def test_l_simple_is_the_plain_loss_of_the_noise():
    schedule = LinearVP()
    denoise = Denoiser(Affine(), schedule, targets.eps)
    x_0, t = torch.randn(5, 2, generator=generator(1), dtype=torch.float64), f64([0.1, 0.3, 0.5, 0.7, 0.9])
    plain, weighted = (denoising_loss(denoise, x_0, t, w, generator(3)) for w in (None, losses.snr))
    torch.testing.assert_close(plain, weighted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule_name", ["linear", "straight", "edm"])
def test_loss_of_the_exact_denoiser_is_its_floor(target, schedule_name):
    """The floor is E Var[x_0 | x_t] in the target's units, an integral over x_t; it is not zero (pitfall 19)."""
    schedule, world, n = SCHEDULES[schedule_name], two_peaks(), 20_000
    t = float(schedule.time(0.4))
    denoise = Denoiser(Perfect(world, schedule, TARGETS[target], 0.7), schedule, TARGETS[target], 0.7)
    alpha, sigma = (float(c) for c in schedule(t))
    grid = torch.linspace(-3.5 * alpha - 9 * sigma, 4 * alpha + 9 * sigma, 2001, dtype=torch.float64)
    floor = float(torch.trapezoid(world.log_prob(grid, alpha, sigma).exp() * world.posterior_cov(grid, alpha, sigma), grid))
    x_0 = world.sample(n, generator(1), dtype=torch.float64)
    for weight, scale in ((None, 1 / float(inverse_line(schedule, target, f64(t)))), (losses.uniform, 1.0), (losses.snr, math.exp(0.4))):
        loss = denoising_loss(denoise, x_0, t, weight, generator(2))
        assert abs(float(loss.mean()) - scale * floor) < 5 * float(loss.std()) / math.sqrt(n)


def test_an_oracle_can_be_scored_as_it_is():
    world, schedule = two_peaks(), LinearVP()
    loss = denoising_loss(world.denoiser(schedule), world.sample(8, generator(1)), torch.full((8,), 0.5), losses.snr, generator(2))
    assert loss.shape == (8,) and loss.dtype == torch.float32


def test_loss_shapes_dtypes_and_randomness():
    denoise = Denoiser(Affine(), LinearVP(), targets.v)
    for shape in ((4,), (4, 2), (4, 1, 8, 8)):
        x_0 = torch.zeros(shape)
        for t in (0.5, torch.full((4,), 0.5), torch.full((4,), 0.5, dtype=torch.float64)):
            loss = denoising_loss(denoise, x_0, t, losses.min_snr(), generator(1))
            assert loss.shape == (4,) and loss.dtype == torch.float32
            assert torch.equal(loss, denoising_loss(denoise, x_0, t, losses.min_snr(), generator(1)))
    with pytest.raises(ValueError, match="one coefficient a sample"):
        denoising_loss(denoise, torch.zeros(4, 2), torch.full((3,), 0.5))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        denoising_loss(denoise, torch.zeros(4, 2), 1.5)


# ---------------------------------------------------------------------------------------------- times


def test_uniform_times_are_stratified_and_uniform():
    g = generator(1)
    batch = uniform_times(LinearVP(), 64, g)
    cells = ((batch - 0.001) / 0.999 * 64).sort().values
    assert batch.shape == (64,) and batch.dtype == torch.float64 and torch.equal(cells.floor(), torch.arange(64.0, dtype=torch.float64))
    assert float((cells - cells.floor()).std()) < 1e-9 and not torch.equal(batch, batch.sort().values)
    firsts = [float(uniform_times(LinearVP(), 8, g)[0]) for _ in range(3000)]
    assert scipy.stats.kstest(firsts, scipy.stats.uniform(0.001, 0.999).cdf).pvalue > 1e-3
    assert min(firsts) >= 0.001 and max(firsts) < 1


def test_discrete_times_are_the_knots_both_ends_included():
    t = discrete_times(10)(LinearVP(), 20_000, generator(2))
    values, counts = torch.unique(t, return_counts=True)
    assert values.tolist() == [i / 10 for i in range(1, 11)]
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert bool((discrete_times(1)(LinearVP(), 5) == 1).all())


@pytest.mark.parametrize("schedule_name", ["edm", "linear", "straight", "subvp", "ddpm_linear_1000"])
def test_lognormal_times_have_a_normal_log_noise(schedule_name):
    schedule = SCHEDULES[schedule_name]
    t = lognormal_times(-1.2, 1.2)(schedule, 5000, generator(3))
    assert t.shape == (5000,) and bool(((t > 0) & (t < 1)).all())
    assert scipy.stats.kstest((-0.5 * schedule.log_snr(t)).numpy(), scipy.stats.norm(-1.2, 1.2).cdf).pvalue > 1e-3


def test_lognormal_times_are_cut_to_the_path():
    t = lognormal_times(0.0, 3.0)(GeometricVE(0.5, 2.0), 2000, generator(4))
    share = scipy.stats.norm.cdf(math.log(0.5), 0, 3)
    assert float(t.min()) == 0 and float(t.max()) == 1
    for end in (0.0, 1.0):
        assert abs(float((t == end).double().mean()) - share) < 5 * math.sqrt(share * (1 - share) / 2000)


@pytest.mark.parametrize("schedule_name", SCHEDULES)
def test_drawn_times_are_times_that_every_loss_can_use(schedule_name):
    schedule = SCHEDULES[schedule_name]
    for draw in (uniform_times, discrete_times(7), lognormal_times()):
        t = draw(schedule, 100, generator(5))
        assert torch.equal(t, draw(schedule, 100, generator(5)))
        assert bool((t > 0).all()) or schedule_name in FLOORED
        assert bool(losses.min_snr()(schedule, t, targets.eps).isfinite().all())


def test_wrong_settings_raise():
    for make, message in (
        (lambda: losses.min_snr(0.0), "gamma"), (lambda: losses.min_snr(math.nan), "gamma"), (lambda: losses.edm_weight(0.0), "sigma_data"), (lambda: discrete_times(0), "positive integer"),
        (lambda: discrete_times(2.5), "positive integer"), (lambda: lognormal_times(0.0, 0.0), "std"), (lambda: lognormal_times(0.0, math.inf), "std .* finite"),
        (lambda: lognormal_times(math.nan), "mean finite, got 1.2 and nan"), (lambda: losses.edm_weight(math.inf), "finite"), (lambda: hybrid_loss(10, scale=math.inf), "infinite, got inf"),
        (lambda: denoising_loss(Denoiser(Affine(), LinearVP(), targets.score), torch.zeros(2, 2), 0.0), "keep t above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("shape", [(4, 1), (1,), (3,), (1, 4)])
def test_a_weight_of_another_shape_does_not_spread_over_the_losses(shape):
    x0, t = torch.zeros(4, 2), torch.full((4,), 0.5)
    denoiser = Denoiser(Affine(), LinearVP(), targets.eps)
    with pytest.raises(ValueError, match=rf"one number a sample, shape \(4,\), got {re.escape(str(shape))}"):
        denoising_loss(denoiser, x0, t, lambda schedule, t, target: torch.ones(shape))
    for shape in ((), (4,)):
        loss = denoising_loss(denoiser, x0, t, lambda schedule, t, target: torch.full(shape, 2.0), generator(0))
        assert torch.equal(loss, 2 * denoising_loss(denoiser, x0, t, None, generator(0)))


@pytest.mark.parametrize("maker", [losses.min_snr, losses.edm_weight])
def test_a_weight_that_was_not_made_says_so(maker):
    with pytest.raises(ValueError, match=r"call it, such as losses.min_snr\(5.0\)"):
        denoising_loss(Denoiser(Affine(), LinearVP(), targets.eps), torch.zeros(4, 2), 0.5, maker)


def test_total_of_the_bound_over_the_whole_chain():
    """The discrete weights telescope: from the fifth knot to the last, half the drop of the SNR."""
    schedule = DDPM(linear_betas(100))
    t = torch.arange(1, 101, dtype=torch.float64) / 100
    snr = torch.exp(schedule.log_snr(t))
    assert cellwise(schedule, 0.05, 1.0, 100) == pytest.approx(0.5 * float(snr[4] - snr[-1]), rel=1e-8)
