"""DDPM's betas as a path, and what a schedule may be asked: shapes, dtypes, noise, equality, derivatives, errors."""

import copy
import math

import numpy as np
import pytest
import torch
from paths import SCHEDULES, f64, generator, one_thread  # noqa: F401

from diffusion_core import (
    DDPM,
    EDM,
    CosineVP,
    GeometricVE,
    Learned,
    LinearVP,
    MonotoneLogSNR,
    Schedule,
    Shifted,
    SigmoidVP,
    SubVP,
    cosine_betas,
    linear_betas,
    per_sample,
    scaled_linear_betas,
)

every = pytest.mark.parametrize("name", SCHEDULES)


# ---------------------------------------------------------------------------------------------- DDPM


BETAS = {
    "linear": linear_betas(), "linear_100": linear_betas(100), "linear_unscaled_200": linear_betas(200, 1e-4, 0.02), "scaled": scaled_linear_betas(),
    "cosine": cosine_betas(), "cosine_50": cosine_betas(50), "one": f64([0.3]),
}


@pytest.mark.parametrize("name", BETAS)
def test_ddpm_knots_are_the_cumulative_product(name):
    betas = BETAS[name].numpy()
    product = np.cumprod(1 - betas)
    schedule, n = DDPM(betas.tolist()), len(betas)
    alpha, sigma = schedule(torch.arange(1, n + 1, dtype=torch.float64) / n)
    np.testing.assert_allclose(alpha.numpy() ** 2, product, atol=1e-14, rtol=1e-12)
    np.testing.assert_allclose(sigma.numpy() ** 2, 1 - product, atol=1e-14)
    np.testing.assert_allclose(schedule.alphas_bar.numpy(), product, atol=1e-14, rtol=1e-12)
    np.testing.assert_allclose(schedule.betas.numpy(), betas)


def test_betas_are_the_papers():
    np.testing.assert_allclose(linear_betas(1000).numpy(), np.linspace(1e-4, 0.02, 1000), rtol=1e-12)
    np.testing.assert_allclose(linear_betas(200).numpy(), np.linspace(5e-4, 0.1, 200), rtol=1e-12)
    np.testing.assert_allclose(scaled_linear_betas().numpy(), np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, rtol=1e-12)
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine_betas().numpy(), np.minimum(1 - f[1:] / f[:-1], 0.999), rtol=1e-9)
    assert cosine_betas()[-1] == 0.999 and cosine_betas(10, largest=0.9)[-1] == 0.9
    assert linear_betas(1000, 1e-4, 0.02)[0] == 1e-4


def test_total_noise_of_the_usual_choices():
    """Pitfall 12: 4.0e-5 at N = 1000; unscaled betas leave .132 at 200 and .048 at 300; scaled ones hardly depend on N."""
    left = lambda betas: float(DDPM(betas).alphas_bar[-1])
    assert left(linear_betas()) == pytest.approx(4.04e-5, rel=2e-3)
    assert left(linear_betas(200, 1e-4, 0.02)) == pytest.approx(0.132, abs=1e-3)
    assert left(linear_betas(300, 1e-4, 0.02)) == pytest.approx(0.048, abs=1e-3)
    assert left(linear_betas(200)) < 1e-4


@pytest.mark.parametrize("n", [49, 200, 1000, 4000])
def test_rates_at_a_knot_are_those_of_the_interval_that_begins_there(n):
    """Also where i / n * n rounds below i."""
    betas = linear_betas(n)
    drift = DDPM(betas).drift(torch.arange(1, n, dtype=torch.float64) / n)
    np.testing.assert_allclose(drift.numpy(), 0.5 * n * np.log1p(-betas.numpy()[1:]), rtol=1e-9)


def test_ddpm_posterior_is_equation_7_of_ho():
    betas = linear_betas(50).numpy()
    bar = np.r_[1.0, np.cumprod(1 - betas)]
    t = torch.arange(1, 51, dtype=torch.float64) / 50
    c_0, c_t, variance = DDPM(betas).posterior(torch.arange(50, dtype=torch.float64) / 50, t)
    np.testing.assert_allclose(c_0, np.sqrt(bar[:-1]) * betas / (1 - bar[1:]), rtol=1e-11)
    np.testing.assert_allclose(c_t, np.sqrt(1 - betas) * (1 - bar[:-1]) / (1 - bar[1:]), rtol=1e-11)
    np.testing.assert_allclose(variance, (1 - bar[:-1]) / (1 - bar[1:]) * betas, rtol=1e-11)


# ---------------------------------------------------------------------------------------------- calls, shapes, dtypes


@every
def test_shapes_and_dtypes(name):
    schedule = SCHEDULES[name]
    for t, dtype in ((0.5, torch.float64), (f64(0.5), torch.float64), (torch.tensor([0.25, 0.5]), torch.float32), (torch.tensor([0.5], dtype=torch.bfloat16), torch.bfloat16), (torch.tensor([1, 1]), torch.float64)):
        shape = t.shape if isinstance(t, torch.Tensor) else ()
        for value in schedule(t):
            assert value.shape == shape and value.dtype == dtype
    t = torch.tensor([0.25, 0.5])
    for value in (schedule.log_snr(t), *schedule.rates(t), schedule.drift(t), schedule.diffusion2(t), schedule.time(schedule.log_snr(t)), *schedule.transition(0.1, t), *schedule.posterior(0.1, t), *schedule.transition(t / 2, t)):
        assert value.shape == (2,) and value.dtype == torch.float32
    assert schedule.transition(f64([0.1, 0.2]), 0.5)[1].shape == (2,)
    scalar, batch = schedule(0.37), schedule(f64([0.37, 0.9]))
    assert all(torch.equal(s, b[0]) for s, b in zip(scalar, batch))


@every
def test_float32_times_are_computed_in_float64(name):
    schedule, t = SCHEDULES[name], torch.tensor([1e-3, 0.4, 0.999])
    pairs = zip((*schedule(t), *schedule.rates(t), *schedule.posterior(t / 2, t)), (*schedule(t.double()), *schedule.rates(t.double()), *schedule.posterior(t.double() / 2, t.double())))
    assert all(torch.equal(single, double.float()) for single, double in pairs)


@every
@pytest.mark.parametrize("t", [-1e-9, 1 + 1e-9, math.nan, math.inf, torch.tensor([0.5, 1.5])])
def test_times_outside_the_unit_interval_raise(name, t):
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
        SCHEDULES[name](t)


@every
def test_other_wrong_calls_raise(name):
    schedule = SCHEDULES[name]
    with pytest.raises(ValueError, match="scalar or of shape"):
        schedule(torch.full((2, 1), 0.5))
    for s, t in ((0.5, 0.5), (0.6, 0.5), (f64([0.1, 0.7]), 0.5)):
        for law in (schedule.transition, schedule.posterior):
            with pytest.raises(ValueError, match="from s to a later t"):
                law(s, t)


@every
def test_noise_has_the_standard_deviation_of_the_path(name):
    schedule, n = SCHEDULES[name], 100_000
    x = schedule.noise((n,), generator(3), dtype=torch.float64)
    sigma = float(schedule(1.0)[1])
    assert abs(float(x.var()) / sigma**2 - 1) < 5 * math.sqrt(2 / n) and abs(float(x.mean())) < 5 * sigma / math.sqrt(n)
    assert torch.equal(x, schedule.noise((n,), generator(3), dtype=torch.float64))
    halfway = schedule.noise((n,), generator(3), dtype=torch.float64, t=f64(0.5))
    torch.testing.assert_close(halfway, x / sigma * schedule(0.5)[1])
    image = schedule.noise((2, 3, 4, 5))
    assert image.shape == (2, 3, 4, 5) and image.dtype == torch.float32 and not image.requires_grad


def test_same():
    for name, schedule in SCHEDULES.items():
        assert schedule.same(schedule) and schedule.same(copy.deepcopy(schedule))
        assert [other for other in SCHEDULES if schedule.same(SCHEDULES[other])] == [name]
    assert LinearVP().same(LinearVP(0.1, 20.0)) and not LinearVP().same(LinearVP(0.1, 20.1)) and not EDM(80).same(EDM(79))


def test_per_sample():
    x = torch.zeros(2, 3, 4)
    assert per_sample(0.5, x).shape == () and per_sample(torch.ones(2), x).shape == (2, 1, 1) and per_sample(f64(1.0), x).dtype == torch.float32
    for wrong in (torch.ones(3), torch.ones(2, 1), torch.ones(1)):
        with pytest.raises(ValueError, match="one coefficient a sample"):
            per_sample(wrong, x)


def test_a_learned_path_is_differentiable_in_its_parameters():
    schedule = Learned(MonotoneLogSNR(generator=generator()))
    t = f64([0.3, 0.6])
    for quantity in (lambda: schedule(t)[0], lambda: schedule(t)[1], lambda: schedule.diffusion2(t), lambda: schedule.posterior(t / 2, t).variance):
        gradients = torch.autograd.grad(quantity().sum(), list(schedule.parameters()))
        assert all(bool(g.isfinite().all()) for g in gradients) and any(bool((g != 0).any()) for g in gradients)


def test_times_are_differentiable():
    for schedule in SCHEDULES.values():
        t = f64(0.437).requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(schedule(t)[1], t)[0], schedule.rates(0.437)[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: LinearVP(0.0, 20.0), "beta_min"), (lambda: LinearVP(2.0, 1.0), "beta_min"), (lambda: LinearVP(0.1, math.inf), "beta_min"), (lambda: SubVP(-1.0, 1.0), "beta_min"),
    (lambda: CosineVP(0.0), "offset s"), (lambda: SigmoidVP(3.0, -3.0), "start < end"), (lambda: SigmoidVP(-3.0, 3.0, 0.0), "tau"), (lambda: SigmoidVP(math.nan, 3.0), "start"),
    (lambda: GeometricVE(0.0, 1.0), "sigma_min"), (lambda: GeometricVE(2.0, 1.0), "sigma_min"), (lambda: EDM(0.0), "sigma_max"), (lambda: EDM(math.nan), "sigma_max"),
    (lambda: DDPM([0.1, 1.0]), "inside"), (lambda: DDPM([0.0, 0.1]), "inside"), (lambda: DDPM([]), "sequence"), (lambda: DDPM([[0.1]]), "sequence"), (lambda: DDPM([0.1, math.nan]), "inside"),
    (lambda: linear_betas(20), "more than 20"), (lambda: linear_betas(0), "positive integer"), (lambda: linear_betas(10.0), "positive integer"), (lambda: scaled_linear_betas(10, 0.0), "inside"),
    (lambda: cosine_betas(10, largest=1.0), "largest"), (lambda: cosine_betas(-1), "positive integer"), (lambda: Learned(lambda t: t), "decrease"), (lambda: Learned(lambda t: 1 / (0.5 - t)), "decrease"),
    (lambda: MonotoneLogSNR(1.0, 0.0), "lowest < highest"), (lambda: scaled_linear_betas(10, 0.1, 1.0), "inside"), (lambda: scaled_linear_betas(10, 0.1, 0.0), "inside"),
    (lambda: linear_betas(30, 0.1, 1.0), "leave"), (lambda: linear_betas(30, 1.0, 0.1), "leave"), (lambda: linear_betas(30, 0.1, 0.0), "leave"), (lambda: cosine_betas(10, largest=0.0), "largest"),
    (lambda: GeometricVE(-1.0, 1.0), "sigma_min"), (lambda: GeometricVE(1.0, float("inf")), "sigma_min"), (lambda: EDM(-1.0), "sigma_max"), (lambda: EDM(float("inf")), "sigma_max"),
    (lambda: CosineVP(-0.5), "offset s"), (lambda: CosineVP(float("inf")), "offset s"), (lambda: SigmoidVP(tau=-1.0), "tau"), (lambda: SigmoidVP(tau=float("inf")), "tau"),
    (lambda: SigmoidVP(-3.0, float("inf")), "start"), (lambda: Shifted(CosineVP(), 0.0), "shift"), (lambda: Shifted(CosineVP(), -1.0), "shift"), (lambda: Shifted(CosineVP(), float("inf")), "shift"),
])
def test_what_cannot_be_a_path_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_of_ones_own_needs_three_formulas():
    class Quadratic(Schedule):
        def _alpha(self, t):
            return 1 - t**2

        def _sigma2(self, t):
            return t**2

        def _time(self, log_snr):
            ratio = torch.exp(-0.5 * log_snr)
            return 2 * ratio / (1 + torch.sqrt(1 + 4 * ratio**2))

    t = f64([0.2, 0.5])
    torch.testing.assert_close(Quadratic().time(Quadratic().log_snr(t)), t)
    torch.testing.assert_close(Quadratic().drift(t), -2 * t / (1 - t**2))
