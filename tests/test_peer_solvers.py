"""Equality of the solvers with diffusers' on the same grid, and where its algebra differs from this book's, how.

- Its schedulers hold sigma/alpha in float32; the tests put the grid in float64 in its place. `DPMSolverMultistepScheduler.step` computes in float32
  whatever it is given, `EDMDPMSolverMultistepScheduler` does not.
- Its UniPC is this book's polynomial, evaluated by a linear system, except for its first corrector and its second-order predictor, where it takes 1/2 in place of
  the exact weight ("simplified"): with solver_type="bh2" the latter is DPM-Solver++(2M).
- Its DEIS puts the polynomial on eps and in sigma/alpha in place of on the image and in the log-SNR.
- `ScoreSdeVeScheduler` corrects before it predicts, and its corrector's step is half of ours in name (eps s + sqrt(2 eps) z); the updates are the same.
"""

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    HeunDiscreteScheduler,
    ScoreSdeVeScheduler,
    UniPCMultistepScheduler,
)
from paths import f64, generator, one_thread  # noqa: F401

from diffusion_core import (
    EDM,
    Gaussian,
    GeometricVE,
    LinearVP,
    ddim,
    dpmpp_2m,
    exponential_multistep,
    heun,
    karras_grid,
    last,
    log_snr_grid,
    predictor_corrector,
    two_peaks,
    uniform,
    unipc,
)
from diffusion_core.samplers.solvers import multistep_weights


def wave(x, t):
    """A denoiser of nothing, so that any slip shows."""
    return 0.7 * torch.sin(2 * x) + 0.2 * x + 0.1


def start(shape=(3, 4)):
    return torch.randn(shape, generator=generator(1), dtype=torch.float64)


def with_grid(peer, schedule, times):
    """The peer with our noise levels sigma/alpha, in float64."""
    alpha, sigma = schedule(times)
    peer.set_timesteps(len(times) - 1)
    peer.sigmas = sigma / alpha
    return peer


def walked(peer, x):
    for index in peer.timesteps:
        x = peer.step(wave(x, None), index, x).prev_sample
    return x


def raw(peer):
    """EDM's schedulers precondition the network's output; here it is the image."""
    peer.precondition_outputs = lambda sample, output, sigma: output
    return peer


@pytest.mark.parametrize("steps", [3, 20])
@pytest.mark.parametrize("grid", ["karras", "log_snr"])
def test_edm_schedulers(steps, grid):
    schedule = EDM()
    times = karras_grid(schedule, steps) if grid == "karras" else log_snr_grid(schedule, steps)
    x = 80 * start()
    euler = with_grid(raw(EDMEulerScheduler()), schedule, times)
    theirs = x
    for index in euler.timesteps:
        theirs = euler.step(wave(theirs, None), index, theirs, s_churn=0.0).prev_sample
    torch.testing.assert_close(last(ddim(wave, schedule, x, times)), theirs, rtol=1e-6, atol=1e-6)
    multistep = with_grid(raw(EDMDPMSolverMultistepScheduler(solver_order=2, lower_order_final=False)), schedule, times)
    torch.testing.assert_close(last(dpmpp_2m(wave, schedule, x, times)), walked(multistep, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", [3, 20])
def test_dpm_solver_multistep(steps):
    """On a variance-preserving path, first and second order; the first is ddim."""
    schedule, x = LinearVP(), start()
    times = log_snr_grid(schedule, steps)
    for order, ours in ((1, ddim), (2, dpmpp_2m)):
        peer = with_grid(DPMSolverMultistepScheduler(prediction_type="sample", solver_order=order, lower_order_final=False), schedule, times)
        torch.testing.assert_close(last(ours(wave, schedule, x, times)), walked(peer, x), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("steps", [3, 20])
def test_heun(steps):
    """Its state is x / alpha, its index runs twice over the inner knots."""
    schedule, x = EDM(), 80 * start()
    times = karras_grid(schedule, steps)
    peer = HeunDiscreteScheduler(prediction_type="sample")
    peer.set_timesteps(steps)
    levels = 80 * times
    peer.sigmas = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    theirs, peer._step_index = x, 0
    for index in peer.timesteps:
        theirs = peer.step(wave(theirs, None), index, theirs).prev_sample
    assert len(peer.timesteps) == 2 * steps - 1
    torch.testing.assert_close(last(heun(wave, schedule, x, times)), theirs, rtol=1e-10, atol=1e-10)


def unipc_at(order, i, images, levels, **how):
    """Its scheduler about to step from knot i."""
    peer = UniPCMultistepScheduler(prediction_type="sample", solver_order=order, **how)
    peer.set_timesteps(len(levels) - 1)
    peer.sigmas, peer._step_index = levels, i
    peer.model_outputs, peer.timestep_list = images, list(range(order))
    return peer


@pytest.mark.parametrize("solver_type", ["bh1", "bh2"])
def test_unipc_predictor_and_corrector(solver_type):
    """One step of each from the same history: predictor 3, corrector UniC-2 and UniC-3 are the exact polynomial's."""
    schedule, i = LinearVP(), 4
    times = log_snr_grid(schedule, 9)[:-1]
    alpha, sigma = schedule(times)
    l, x = (alpha.log() - sigma.log()).numpy(), start()
    images = [start() + k * wave(start(), None) for k in range(4)]  # at knots 2, 3, 4 and 5
    keep = sigma[i + 1] / sigma[i]
    peer = unipc_at(3, i, images[:3], sigma / alpha, solver_type=solver_type)
    ours = keep * x + alpha[i + 1] * sum(w * d for w, d in zip(multistep_weights(l, 3)[i], images[2::-1]))
    torch.testing.assert_close(peer.multistep_uni_p_bh_update(None, sample=x, order=3), ours, rtol=1e-9, atol=1e-9)
    for order in (2, 3):
        peer = unipc_at(order, i + 1, images[3 - order : 3], sigma / alpha, solver_type=solver_type)
        theirs = peer.multistep_uni_c_bh_update(images[3], last_sample=x, this_sample=x, order=order)
        ours = keep * x + alpha[i + 1] * sum(w * d for w, d in zip(multistep_weights(l, order + 1, ahead=True)[i], images[::-1]))
        torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-9)


def test_unipc_simplified_predictor_is_2m():
    """Order 2 with bh2: its predictor takes 1/2, as dpmpp_2m does; ours integrates the line."""
    schedule, x = LinearVP(), start()
    times = log_snr_grid(schedule, 9)[3:6]
    alpha, sigma = schedule(times)
    images = [wave(x, None), wave(last(ddim(wave, schedule, x, times[:2])), None)]
    middle, end = list(dpmpp_2m(wave, schedule, x, times))[1:]
    peer = unipc_at(2, 1, images, sigma / alpha, solver_type="bh2")
    theirs = peer.multistep_uni_p_bh_update(None, sample=middle, order=2)
    torch.testing.assert_close(theirs, end, rtol=1e-10, atol=1e-10)
    exact = last(exponential_multistep(wave, schedule, x, times, order=2))
    assert 1e-3 < float((theirs - exact).abs().max()) < 0.5


def test_a_whole_chain_of_theirs_runs_beside_ours():
    """Theirs has the simplified first corrector and lower orders at the end; the two agree more closely than with 2M."""
    schedule = LinearVP()
    x, times = schedule.noise((64,), generator(1), dtype=torch.float64), log_snr_grid(schedule, 60)
    denoise = two_peaks().denoiser(schedule)
    peer = with_grid(UniPCMultistepScheduler(prediction_type="sample", solver_order=3, final_sigmas_type="zero"), schedule, times)
    theirs = x[:, None]
    for t, index in zip(times, peer.timesteps):
        theirs = peer.step(denoise(theirs[:, 0], t)[:, None], index, theirs).prev_sample
    ours, plain = last(unipc(denoise, schedule, x, times, 3, 4)), last(dpmpp_2m(denoise, schedule, x, times))
    gap = float((ours - theirs[:, 0]).abs().max())
    assert gap < 2e-3 and gap < 0.2 * float((plain - ours).abs().max())


def test_score_sde_predictor_and_corrector():
    """Reverse diffusion and Song's Langevin step on the VE path."""
    schedule, x, n = GeometricVE(0.05, 5.0), start((5, 3)), 9
    world = Gaussian(torch.zeros(3), 0.5)
    times, peer = uniform(n - 1), ScoreSdeVeScheduler(snr=0.16)
    peer.timesteps, peer.discrete_sigmas = times, schedule(times)[1].flip(0)
    ours = list(predictor_corrector(world.denoiser(schedule), schedule, x, times[:4], corrections=1, generator=generator(5)))
    theirs, g = x, generator(5)
    for t, s, state in zip(times[:3], times[1:4], ours[1:]):
        theirs = peer.step_pred(world.score(theirs, *schedule(t)), t, theirs, generator=g).prev_sample
        theirs = peer.step_correct(world.score(theirs, *schedule(s)), theirs, generator=g).prev_sample
        torch.testing.assert_close(state, theirs, rtol=1e-6, atol=1e-6)
