"""From a network to E[x_0 | x_t]: what the network is given, what comes out, and the same denoiser on other paths."""

import copy
import math

import pytest
import torch
from paths import FLOORED, SCHEDULES, Perfect, f64, generator, one_thread  # noqa: F401
from torch import nn

from diffusion_core import (
    EDM,
    CosineVP,
    Denoiser,
    Gaussian,
    GeometricVE,
    Learned,
    LinearVP,
    MonotoneLogSNR,
    Straight,
    SubVP,
    clipped,
    ddim,
    last,
    ring,
    score_at,
    targets,
    transport,
    uniform,
)

TARGETS = {"x0": targets.x0, "eps": targets.eps, "score": targets.score, "v": targets.v, "velocity": targets.velocity, "edm": targets.edm(0.7)}


class Spy(nn.Module):
    """Notes its input, answers with a fixed linear map of it."""

    def forward(self, x, log_snr, **cond):
        self.x, self.log_snr, self.cond = x, log_snr, cond
        return 0.3 * x + 0.1


@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_perfect_network_is_the_exact_denoiser(schedule_name, target):
    schedule, world, sigma_data = SCHEDULES[schedule_name], ring(), 0.7
    denoise = Denoiser(Perfect(world, schedule, TARGETS[target], sigma_data), schedule, TARGETS[target], sigma_data)
    t = schedule.time(f64([5.0, 1.0, -3.0]))
    alpha, sigma = (c for c in schedule(t))
    x = alpha[:, None] * world.sample(3, generator(1), dtype=torch.float64) + sigma[:, None] * torch.randn(3, 2, generator=generator(2), dtype=torch.float64)
    torch.testing.assert_close(denoise(x, t), world.posterior_mean(x, alpha, sigma), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("schedule_name", SCHEDULES)
def test_what_the_network_is_given(schedule_name):
    schedule, spy = SCHEDULES[schedule_name], Spy()
    denoise, n, sigma_data = Denoiser(spy, schedule, targets.x0, sigma_data=0.5), 50_000, 0.5
    for t in (0.03, 0.5, 1.0):
        alpha, sigma = (float(c) for c in schedule(t))
        x = alpha * sigma_data * torch.randn(n, generator=generator(1), dtype=torch.float64) + sigma * torch.randn(n, generator=generator(2), dtype=torch.float64)
        label = torch.arange(n)
        denoise(x, t, label=label)
        assert abs(float(spy.x.var()) - 1) < 5 * math.sqrt(2 / n)
        assert spy.log_snr.shape == (n,) and spy.cond["label"] is label
        want = math.log(alpha**2 / sigma**2) if alpha > 0 else -math.inf
        assert float(spy.log_snr[0]) == pytest.approx(min(max(want, -20.0), 20.0), rel=1e-10)


def test_the_networks_input_is_finite_at_both_ends():
    for name, schedule in SCHEDULES.items():
        spy = Spy()
        denoise = Denoiser(spy, schedule, targets.x0)
        t = f64([0.0, 1.0])
        x = torch.ones(2, 3, dtype=torch.float64)
        out = denoise(x, t)
        assert bool(out.isfinite().all()) and bool(spy.x.isfinite().all()) and bool(spy.log_snr.isfinite().all())
        torch.testing.assert_close(out, (0.3 * spy.x + 0.1), rtol=0, atol=0)
        if name not in FLOORED:
            assert float(spy.log_snr[0]) == 20.0
        if float(schedule(1.0)[0]) == 0:
            assert float(spy.log_snr[1]) == -20.0


def test_at_no_noise_every_other_target_returns_what_is_seen():
    x = torch.randn(2, 3, generator=generator(1), dtype=torch.float64)
    for target in (targets.eps, targets.v, targets.edm(1.0)):
        torch.testing.assert_close(Denoiser(Spy(), CosineVP(), target)(x, 0.0), x, rtol=1e-14, atol=0)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_preconditioning(sigma_data):
    """D(x) = c_skip x + c_out F(c_in x), Karras et al. 2022, table 1; here the network also hears -2 ln sigma, where the paper has ln(sigma) / 4."""
    spy, x = Spy(), torch.randn(4, 3, generator=generator(1), dtype=torch.float64)
    sigma = f64([0.01, 0.5, 3.0, 80.0])
    out = Denoiser(spy, EDM(80.0), targets.edm(sigma_data), sigma_data)(x, sigma / 80)
    s = sigma[:, None]
    root = torch.sqrt(s**2 + sigma_data**2)
    torch.testing.assert_close(spy.x, x / root, rtol=1e-12, atol=0)
    torch.testing.assert_close(spy.log_snr, -2 * sigma.log(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out, sigma_data**2 / root**2 * x + s * sigma_data / root * (0.3 * x / root + 0.1), rtol=1e-12, atol=1e-14)


def test_shapes_and_dtypes():
    denoise = Denoiser(Spy(), LinearVP(), targets.eps)
    for shape in ((4,), (4, 2), (4, 3, 5, 5)):
        x = torch.randn(shape, generator=generator(1))
        for t in (0.5, torch.tensor(0.5), torch.full((4,), 0.5), torch.full((4,), 0.5, dtype=torch.float64)):
            assert denoise(x, t).shape == shape and denoise(x, t).dtype == torch.float32 and denoise.net.log_snr.dtype == torch.float32
            torch.testing.assert_close(denoise(x, t), denoise(x, 0.5), rtol=0, atol=0)
    with pytest.raises(ValueError, match="one coefficient a sample"):
        denoise(torch.zeros(4, 2), torch.full((3,), 0.5))


def test_float32_near_the_clean_end():
    """At sigma = 1e-4 a float32 denoiser of the noise is off by float32's rounding and not more."""
    schedule = LinearVP()
    t = float(schedule.time(-2 * math.log(1e-4)))
    x = torch.randn(8, 2, generator=generator(1), dtype=torch.float64)
    denoise = Denoiser(Spy(), schedule, targets.eps)
    assert float((denoise(x.float(), t).double() - denoise(x, t)).abs().max()) < 1e-6


def test_derivatives_reach_the_input_the_network_and_the_path():
    schedule = Learned(MonotoneLogSNR(generator=generator(1)))
    denoise = Denoiser(nn.Bilinear(1, 1, 1), schedule, targets.v)
    denoise.net.forward = lambda x, c: nn.Bilinear.forward(denoise.net, x[:, None].float(), c[:, None].float())[:, 0].double()
    x = torch.randn(5, generator=generator(2), dtype=torch.float64, requires_grad=True)
    denoise(x, torch.full((5,), 0.4)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in (x, *denoise.parameters()))
    assert any(name.startswith("schedule.") for name in denoise.state_dict())
    assert copy.deepcopy(denoise).schedule.same(schedule)


def test_clipped_clamps_the_image_and_knows_the_path():
    schedule = LinearVP()
    denoise = clipped(Denoiser(Spy(), schedule, targets.eps), -0.2, 0.3)
    x = 5 * torch.randn(50, 2, generator=generator(1))
    out = denoise(x, 0.5)
    assert float(out.min()) == pytest.approx(-0.2) and float(out.max()) == pytest.approx(0.3) and denoise.schedule is schedule
    with pytest.raises(ValueError, match="low < high"):
        clipped(denoise, 1.0, 1.0)
    with pytest.raises(ValueError, match="another path"):
        last(ddim(denoise, CosineVP(), x, uniform(2)))


@pytest.mark.parametrize("source", ["linear", "cosine", "subvp", "straight", "edm", "ddpm_linear_1000", "learned"])
@pytest.mark.parametrize("target", ["linear", "cosine", "subvp", "straight", "edm", "ddpm_linear_1000", "learned"])
def test_transport_is_the_exact_denoiser_of_the_other_path(source, target):
    world, source, target = ring(), SCHEDULES[source], SCHEDULES[target]
    denoise = transport(world.denoiser(source), source, target)
    t = target.time(f64([6.0, 0.5, -4.0]))
    x = 1.3 * torch.randn(3, 2, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(denoise(x, t), world.denoiser(target)(x, t), rtol=1e-7, atol=1e-7)
    assert denoise.schedule is target


def test_transport_where_the_source_never_goes():
    world = Gaussian([0.0], 1.0)
    denoise = transport(world.denoiser(GeometricVE(0.01, 2.0)), GeometricVE(0.01, 2.0), EDM(80.0))
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="takes log-SNRs from"):
        denoise(x, 1.0)
    with pytest.raises(ValueError, match="neither 0 nor infinite"):
        transport(world.denoiser(LinearVP()), LinearVP(), Straight())(x, 1.0)
    with pytest.raises(ValueError, match="another path"):
        transport(world.denoiser(LinearVP()), SubVP(), EDM())


@pytest.mark.parametrize("name", SCHEDULES)
def test_score_at_is_the_score_of_the_noised_data(name):
    schedule, world = SCHEDULES[name], ring()
    for t in (0.3, f64(0.7), f64([0.1, 0.5, 0.9]), 1.0):
        alpha, sigma = schedule(t)
        x = torch.randn(3, 2, generator=generator(1), dtype=torch.float64)
        got = score_at(world.denoiser(schedule), schedule, t)(x)
        torch.testing.assert_close(got, world.score(x, alpha, sigma), rtol=1e-6, atol=1e-7 / float(f64(sigma).min()) ** 2)
    if name in FLOORED:
        alpha, sigma = schedule(0.0)
        torch.testing.assert_close(score_at(world.denoiser(schedule), schedule, 0.0)(x), world.score(x, alpha, sigma), rtol=1e-6, atol=1e-3)
    else:
        for t in (0.0, f64([0.5, 0.0, 0.1])):
            with pytest.raises(ValueError, match="no score where sigma = 0"):
                score_at(world.denoiser(schedule), schedule, t)


def test_score_at_of_a_network():
    """In its input and its weights, with conditions, in its dtype; of images; and not on another path."""
    schedule, spy = CosineVP(), Spy()
    denoise = Denoiser(spy, schedule, targets.eps)
    x = torch.randn(3, 1, 2, 2, generator=generator(1)).requires_grad_()
    score = score_at(denoise, schedule, f64([0.2, 0.5, 0.8]))
    got = score(x, label=5)
    assert got.dtype == torch.float32 and spy.cond == {"label": 5} and spy.log_snr.shape == (3,)
    sigma = schedule(f64([0.2, 0.5, 0.8]))[1].float().reshape(3, 1, 1, 1)
    torch.testing.assert_close(got, -denoise.predict(x, f64([0.2, 0.5, 0.8])) / sigma, rtol=1e-4, atol=1e-4)  # s = -eps / sigma, pitfall 23
    assert torch.autograd.grad(got.sum(), x)[0].shape == x.shape
    with pytest.raises(ValueError, match="another path"):
        score_at(denoise, LinearVP(), 0.5)


def test_wrong_denoisers_raise():
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="sigma_data"):
            Denoiser(Spy(), LinearVP(), targets.eps, wrong)
    with pytest.raises(ValueError, match="must be a Schedule"):
        Denoiser(Spy(), lambda t: (t, t), targets.eps)
    with pytest.raises(ValueError, match="made for sigma_data = 0.5 and the denoiser for 1.0"):
        Denoiser(Spy(), EDM(), targets.edm(0.5))
    with pytest.raises(ValueError, match="predict x0, v or the velocity"):
        Denoiser(Spy(), CosineVP(), targets.eps)(torch.zeros(2, 2), 1.0)
