"""Equality with a peer, Hugging Face's diffusers, on random inputs; and where its conventions differ from this book's, how.

- Its index t in 0..N-1 is this book's time (t + 1) / N: its alphas_cumprod[0] is after one step, its index -1 is the clean end.
- It computes betas and their products in float32. `in_float64` redoes its products from its own betas in float64, so that steps can be compared to 1e-10.
- "leading" spacing starts below N - 1, so that a short chain starts from an SNR at which it was not prepared; "trailing" is this book's `uniform(n)`.
- set_alpha_to_one=False ends a DDIM chain at the first knot, 1/N, instead of at 0.
- Its DDIM clips the image but keeps the network's own noise unless use_clipped_model_output=True; here the noise always follows from the clipped image.
- It clamps the posterior variance at 1e-20 before it takes logarithms; here the step to sigma = 0 draws no noise at all.
- It leaves out the noise at index 0, not at the last step: a strided chain with variance_type="fixed_large" ends at an index above 0 and
  hands out a noisy image. Here every chain ends noiseless.
"""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from paths import f64, generator, one_thread  # noqa: F401

from diffusion_core import (
    DDPM,
    EDM,
    Denoiser,
    Straight,
    ancestral,
    clipped,
    cosine_betas,
    ddim,
    karras_grid,
    last,
    linear_betas,
    posterior_variance,
    scaled_linear_betas,
    targets,
    transition_variance,
    uniform,
)

N = 1000
BETAS = {"linear": linear_betas(N), "scaled_linear": scaled_linear_betas(N, 1e-4, 0.02), "squaredcos_cap_v2": cosine_betas(N)}
PREDICTIONS = {"epsilon": targets.eps, "sample": targets.x0, "v_prediction": targets.v}
every = pytest.mark.parametrize("name", BETAS)


def in_float64(peer):
    peer.betas = peer.betas.double()
    peer.alphas = 1 - peer.betas
    peer.alphas_cumprod = torch.cumprod(peer.alphas, 0)
    peer.one = f64(1.0)
    return peer


def ddpm_peer(name, **how):
    return in_float64(DDPMScheduler(N, beta_schedule=name, clip_sample=False, **how))


def ddim_peer(name, **how):
    how = {"clip_sample": False, "timestep_spacing": "trailing"} | how
    return in_float64(DDIMScheduler(N, beta_schedule=name, **how))


class Wave(torch.nn.Module):
    """A network that is no denoiser of anything, so that any slip shows."""

    def forward(self, x, log_snr):
        return 0.7 * torch.sin(2 * x) + 0.2 * x + 0.1


def pair(seed=1, shape=(4, 3, 5, 5)):
    return (torch.randn(shape, generator=generator(seed + i), dtype=torch.float64) for i in (0, 1))


@every
def test_betas_and_their_products(name):
    peer = DDPMScheduler(N, beta_schedule=name)
    np.testing.assert_allclose(BETAS[name].numpy(), peer.betas.numpy(), rtol=2e-5, atol=2e-7)
    np.testing.assert_allclose(DDPM(BETAS[name]).alphas_bar.numpy(), peer.alphas_cumprod.numpy(), rtol=2e-3, atol=1e-5)
    exact = ddpm_peer(name)
    np.testing.assert_allclose(DDPM(exact.betas).alphas_bar.numpy(), exact.alphas_cumprod.numpy(), rtol=1e-12, atol=1e-14)


@every
def test_noising_and_v(name):
    peer, (x_0, eps) = ddpm_peer(name), pair()
    schedule, index = DDPM(peer.betas), torch.tensor([0, 7, 500, 999])
    t = (index + 1) / N
    alpha, sigma = (c[:, None, None, None] for c in schedule(t.double()))
    torch.testing.assert_close(alpha * x_0 + sigma * eps, peer.add_noise(x_0, eps, index), rtol=0, atol=1e-7)
    a, b = (c[:, None, None, None] for c in targets.v(schedule, f64(index.double() + 1) / N))
    torch.testing.assert_close(a * x_0 + b * eps, peer.get_velocity(x_0, eps, index), rtol=0, atol=1e-10)


@every
@pytest.mark.parametrize("index", [999, 500, 10, 1, 0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_posterior_mean_of_one_ddpm_step(name, index, prediction):
    peer, (x, output) = ddpm_peer(name, prediction_type=prediction), pair()
    schedule = DDPM(peer.betas)
    s, t = f64(index) / N, f64(index + 1) / N
    c_x, c_y = targets.solution(schedule, PREDICTIONS[prediction], t)
    c_0, c_t, variance = schedule.posterior(s, t)
    image = c_x * x + c_y * output
    z = torch.randn(x.shape, generator=generator(9), dtype=torch.float64)
    want = peer.step(output, index, x, generator=generator(9)).prev_sample
    scale = max(1.0, float(image.abs().max()))
    assert float((c_0 * image + c_t * x + variance.sqrt() * z - want).abs().max()) < 1e-10 * scale
    assert float(variance) == pytest.approx(float(peer._get_variance(index, variance_type="fixed_small")), rel=1e-10, abs=1.01e-20)
    assert float(schedule.transition(s, t)[1]) == pytest.approx(float(peer._get_variance(index, variance_type="fixed_large")), rel=1e-10)


@every
@pytest.mark.parametrize(("kind", "variance"), [("fixed_small", posterior_variance), ("fixed_large", transition_variance)])
@pytest.mark.parametrize("steps", [1000, 50])
def test_whole_ddpm_chains(name, kind, variance, steps):
    """All knots, and a strided chain, whose betas both sides take from the products."""
    peer, (x, _) = ddpm_peer(name, variance_type=kind, prediction_type="v_prediction", timestep_spacing="trailing"), pair(shape=(2, 3))
    peer.set_timesteps(steps)
    schedule, theirs, g = DDPM(peer.betas), [x], generator(5)
    for index in peer.timesteps:
        theirs.append(peer.step(Wave()(theirs[-1], None), index, theirs[-1], generator=g).prev_sample)
    ours = list(ancestral(Denoiser(Wave(), schedule, targets.v), schedule, x, uniform(steps), variance, generator(5)))
    torch.testing.assert_close(torch.stack(ours[:-1]), torch.stack(theirs[:-1]), rtol=1e-8, atol=1e-8)
    left = theirs[-1] - ours[-1]
    if kind == "fixed_large" and steps < N:
        g = generator(5)
        z = [torch.randn(2, 3, generator=g, dtype=torch.float64) for _ in range(steps)][-1]
        left -= (1 - schedule.alphas_bar[N // steps - 1]).sqrt() * z
    assert float(left.abs().max()) < 1e-8


@every
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_whole_ddim_chains(name, eta, prediction):
    peer, (x, _) = ddim_peer(name, prediction_type=prediction), pair(shape=(2, 3))
    peer.set_timesteps(20)
    assert ((peer.timesteps + 1) / N).tolist() == pytest.approx(uniform(20)[:-1].tolist())
    schedule = DDPM(peer.betas)
    ours = list(ddim(Denoiser(Wave(), schedule, PREDICTIONS[prediction]), schedule, x, uniform(20), eta, generator(5)))
    theirs, g = x, generator(5)
    for i, index in enumerate(peer.timesteps):
        theirs = peer.step(Wave()(theirs, None), index, theirs, eta, generator=g).prev_sample
        scale = max(1.0, float(theirs.abs().max()))
        assert float((ours[i + 1] - theirs).abs().max()) < 1e-8 * scale


@every
def test_leading_spacing_is_a_grid_that_starts_late(name):
    peer, (x, _) = ddim_peer(name, timestep_spacing="leading", prediction_type="v_prediction"), pair(shape=(2, 3))
    peer.set_timesteps(10)
    times = torch.cat([(peer.timesteps.double() + 1) / N, f64([0.0])])
    assert float(times[0]) == 0.901
    theirs = x
    for index in peer.timesteps:
        theirs = peer.step(Wave()(theirs, None), index, theirs).prev_sample
    schedule = DDPM(peer.betas)
    torch.testing.assert_close(last(ddim(Denoiser(Wave(), schedule, targets.v), schedule, x, times)), theirs, rtol=1e-9, atol=1e-9)


@every
def test_final_alpha_is_where_the_grid_ends(name):
    peer, (x, _) = ddim_peer(name, set_alpha_to_one=False, prediction_type="v_prediction"), pair(shape=(2, 3))
    peer.final_alpha_cumprod = peer.alphas_cumprod[0]
    peer.set_timesteps(10)
    theirs = x
    for index in peer.timesteps:
        theirs = peer.step(Wave()(theirs, None), index, theirs).prev_sample
    schedule = DDPM(peer.betas)
    times = torch.cat([uniform(10)[:-1], f64([1 / N])])
    torch.testing.assert_close(last(ddim(Denoiser(Wave(), schedule, targets.v), schedule, x, times)), theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("follows", [True, False])
def test_clipping(follows):
    """Ours is theirs with use_clipped_model_output; without it their direction no longer points back to x_t."""
    peer, (x, _) = ddim_peer("linear", clip_sample=True), pair(shape=(2, 3))
    peer.set_timesteps(20)
    schedule, theirs = DDPM(peer.betas), 3 * x
    for index in peer.timesteps:
        theirs = peer.step(Wave()(theirs, None), index, theirs, use_clipped_model_output=follows).prev_sample
    ours = last(ddim(clipped(Denoiser(Wave(), schedule, targets.eps)), schedule, 3 * x, uniform(20)))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-8) == follows
    peer = in_float64(DDPMScheduler(N, clip_sample=True, timestep_spacing="trailing"))
    peer.set_timesteps(20)
    theirs, g = 3 * x, generator(5)
    for index in peer.timesteps:
        theirs = peer.step(Wave()(theirs, None), index, theirs, generator=g).prev_sample
    ours = last(ancestral(clipped(Denoiser(Wave(), schedule, targets.eps)), schedule, 3 * x, uniform(20), generator=generator(5)))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


def test_edm_grid_and_preconditioning():
    peer = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0)
    peer.set_timesteps(18)
    np.testing.assert_allclose(80 * karras_grid(EDM(80.0), 18).numpy(), peer.sigmas.numpy(), rtol=1e-5)
    x, raw = pair(shape=(4, 3))
    for t in (1e-3, 0.01, 1.0):
        want = peer.precondition_outputs(x, raw, f64(80 * t))
        c_x, c_y = targets.solution(EDM(80.0), targets.edm(0.5), t)
        torch.testing.assert_close(c_x * x + c_y * raw, want, rtol=1e-12, atol=1e-12)
        spy = {}
        net = torch.nn.Module()
        net.forward = lambda u, c: spy.setdefault("x", u)
        Denoiser(net, EDM(80.0), targets.edm(0.5), 0.5).predict(x, t)
        torch.testing.assert_close(spy["x"], peer.precondition_inputs(x, 80 * t), rtol=1e-6, atol=1e-7)


def test_flow_matching_euler_is_ddim_on_the_straight_path():
    """The same direction of time: sigma = t, t = 1 is noise; the velocity is eps - x_0."""
    peer, (x, _) = FlowMatchEulerDiscreteScheduler(N, shift=1.0), pair(shape=(2, 3))
    grid = uniform(10)
    peer.set_timesteps(sigmas=grid[:-1].numpy())
    theirs = x
    for index in peer.timesteps:
        theirs = peer.step(Wave()(theirs, None), index, theirs).prev_sample
    denoise = Denoiser(Wave(), Straight(), targets.velocity)
    scaled = lambda y, t: y - float(t) * Wave()(y, None)
    ours = last(ddim(scaled, Straight(), x, grid))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    c_x, c_y = targets.solution(Straight(), denoise.target, 0.3)
    assert (float(c_x), float(c_y)) == pytest.approx((1.0, -0.3))
