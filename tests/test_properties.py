"""Laws that hold on every path, for every target, shape and dtype: hypothesis draws the arguments, algebra or a finite difference gives the answer.

The examples are the same in every run (derandomized). Times stay in [0.02, 0.98], where no family divides by less than about 1e-4; the ends have
their own tests. Betas of random chains lie in [1e-3, 0.3].
"""

import copy
import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from paths import f64, generator, one_thread  # noqa: F401
from torch import nn

from diffusion_core import (
    DDPM,
    EDM,
    CosineVP,
    Denoiser,
    Empirical,
    Gaussian,
    GaussianMixture,
    GeometricVE,
    Learned,
    LinearVP,
    LossSecondMoment,
    MonotoneLogSNR,
    Shifted,
    SigmoidVP,
    Straight,
    SubVP,
    ZeroTerminalSNR,
    ancestral,
    annealed_langevin,
    asinh_grid,
    bits_per_dim,
    churned_heun,
    clipped,
    cosine_betas,
    ddim,
    ddim_inversion,
    denoising_loss,
    discretized_log_prob,
    divergence,
    dpmpp_2m,
    euler_maruyama,
    exponential_multistep,
    gaussian_kl,
    heun,
    hutchinson,
    jacobian,
    karras_grid,
    last,
    linear_betas,
    log_snr_grid,
    losses,
    per_sample,
    predictor_corrector,
    score_at,
    targets,
    transition_variance,
    transport,
    uniform,
    unipc,
)
from diffusion_core import metrics as m

settings.register_profile("laws", derandomize=True, deadline=None, max_examples=30, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
laws = settings(settings.get_profile("laws"))
few = settings(laws, max_examples=12)


def number(low, high):
    return st.floats(low, high, allow_nan=False)


betas = st.lists(number(1e-3, 0.3), min_size=1, max_size=30)
linear = st.builds(lambda low, more: LinearVP(low, low + more), number(0.05, 2.0), number(0.0, 20.0))
cosine = st.builds(CosineVP, number(1e-3, 0.1))
sigmoid = st.builds(SigmoidVP, number(-4.0, -0.5), number(0.5, 4.0), number(0.5, 2.0))
chain = st.builds(DDPM, betas)
learned = st.builds(lambda low, high, n, seed: Learned(MonotoneLogSNR(low, high, n, generator(seed))).requires_grad_(False), number(-8.0, -2.0), number(1.0, 10.0), st.integers(1, 8), st.integers(0, 9))
smooth_preserving = st.one_of(linear, cosine, sigmoid, learned)
exploding = st.one_of(st.builds(lambda low, ratio: GeometricVE(low, low * ratio), number(1e-2, 0.5), number(2.0, 1000.0)), st.builds(EDM, number(1.0, 100.0)))
shifted = st.builds(Shifted, st.one_of(linear, cosine, st.builds(Straight), exploding), number(0.2, 5.0))
zero_terminal = st.builds(ZeroTerminalSNR, st.one_of(linear, cosine))
smooth = st.one_of(smooth_preserving, st.builds(SubVP, number(0.1, 1.0), number(1.0, 20.0)), exploding, st.builds(Straight), shifted, zero_terminal)
schedules = st.one_of(smooth, chain)
preserving = st.one_of(smooth_preserving, chain, zero_terminal, st.builds(Shifted, st.one_of(linear, cosine), number(0.2, 5.0)))
reaching = st.one_of(linear, chain, exploding, learned)  # alpha(1) > 0: a grid may start at t = 1

FAMILIES = {
    "linear": linear, "cosine": cosine, "sigmoid": sigmoid, "learned": learned, "sub-VP": st.builds(SubVP, number(0.1, 1.0), number(1.0, 20.0)),
    "geometric": st.builds(lambda low, ratio: GeometricVE(low, low * ratio), number(1e-2, 0.5), number(2.0, 1000.0)), "EDM": st.builds(EDM, number(1.0, 100.0)),
    "straight": st.builds(Straight), "shifted VP": st.builds(Shifted, st.one_of(linear, cosine), number(0.2, 5.0)),
    "shifted straight": st.builds(Shifted, st.builds(Straight), number(0.2, 5.0)), "zero terminal": zero_terminal, "chain": chain,
}
families = pytest.mark.parametrize("family", FAMILIES)  # for the laws of the paths themselves, so that none is left out by chance

time = number(0.02, 0.98)
TARGETS = {"x0": targets.x0, "eps": targets.eps, "score": targets.score, "v": targets.v, "velocity": targets.velocity, "edm": targets.edm(0.7)}
target_names = st.sampled_from(sorted(TARGETS))
shapes = st.lists(st.integers(1, 4), min_size=0, max_size=4).map(tuple)  # of one sample: from a number to four axes
batches = st.integers(1, 5)
seeds = st.integers(0, 10_000)


def apart(s, t):
    return tuple(sorted((s, t))) if abs(s - t) > 0.01 else assume(False)


def randn(shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def close(got, want, rtol=1e-7, atol=1e-9):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol, check_dtype=False)


def steps_of(schedule, seed, n, to_zero=True):
    """A random grid: n times in (0.05, 0.95), and 0."""
    inner = (0.05 + 0.9 * torch.rand(n, generator=generator(seed), dtype=torch.float64)).unique().flip(0)
    return torch.cat([inner, f64([0.0])]) if to_zero else inner


# ---------------------------------------------------------------------------------------------- paths


@families
@few
@given(st.data(), time, time)
def test_noise_grows_relative_to_the_signal(family, data, s, t):
    schedule = data.draw(FAMILIES[family])
    s, t = apart(s, t)
    assert float(schedule.log_snr(t)) < float(schedule.log_snr(s))
    (alpha, sigma), (alpha_s, _) = schedule(t), schedule(s)
    assert 0 < float(sigma) and 0 < float(alpha) <= float(alpha_s) * (1 + 1e-12)
    close(schedule.log_snr(t), 2 * (alpha / sigma).log(), atol=1e-8)


@families
@few
@given(st.data(), time)
def test_time_inverts_the_log_snr(family, data, t):
    schedule = data.draw(FAMILIES[family])
    close(schedule.time(schedule.log_snr(t)), f64(t), atol=1e-8)


@families
@few
@given(st.data(), time, time, time)
def test_transitions_compose(family, data, s, u, t):
    schedule = data.draw(FAMILIES[family])
    s, u, t = sorted((s, u, t))
    assume(u - s > 0.01 and t - u > 0.01)
    (a_us, v_us), (a_tu, v_tu), (a_ts, v_ts) = schedule.transition(s, u), schedule.transition(u, t), schedule.transition(s, t)
    close(a_us * a_tu, a_ts)
    close(v_tu + a_tu**2 * v_us, v_ts)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule(s), schedule(t)
    close(a_ts * alpha_s, alpha_t)
    close(v_ts + (a_ts * sigma_s) ** 2, sigma_t**2)


def log_normal(x, mean, variance):
    return -0.5 * ((x - mean) ** 2 / variance + variance.log())


@families
@few
@given(st.data(), time, time, number(-3, 3), number(-3, 3), number(-3, 3))
def test_posterior_is_bayes_rule(family, data, s, t, x0, z_s, z_t):
    schedule = data.draw(FAMILIES[family])
    s, t = apart(s, t)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule(s), schedule(t)
    x_s, x_t = alpha_s * x0 + sigma_s * z_s, alpha_t * x0 + sigma_t * z_t
    ratio, variance = schedule.transition(s, t)
    c_0, c_t, tau2 = schedule.posterior(s, t)
    joint = log_normal(x_t, ratio * x_s, variance) + log_normal(x_s, alpha_s * x0, sigma_s**2)
    close(log_normal(x_s, c_0 * x0 + c_t * x_t, tau2) + log_normal(x_t, alpha_t * x0, sigma_t**2), joint, rtol=1e-6, atol=1e-6)


@laws
@given(preserving, st.lists(number(0, 1), min_size=1, max_size=20))
def test_preserving_paths_preserve(schedule, times):
    alpha, sigma = schedule(f64(times))
    close(alpha**2 + sigma**2, torch.ones(len(times)), atol=1e-12)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"chain"}))
@few
@given(st.data(), time)
def test_rates_and_the_sde_are_derivatives(family, data, t):
    """Central differences; the SDE's variance obeys d(sigma^2)/dt = 2 f sigma^2 + g^2."""
    schedule = data.draw(FAMILIES[family])
    h = 1e-5
    (a_plus, s_plus), (a_minus, s_minus), sigma = schedule(t + h), schedule(t - h), schedule(t)[1]
    d_alpha, d_sigma = schedule.rates(t)
    close(d_alpha, (a_plus - a_minus) / (2 * h), rtol=1e-5, atol=1e-5)
    close(d_sigma, (s_plus - s_minus) / (2 * h), rtol=1e-5, atol=1e-5)
    f, g2 = schedule.drift(t), schedule.diffusion2(t)
    close(f, (a_plus.log() - a_minus.log()) / (2 * h), rtol=1e-5, atol=1e-5)
    close(2 * f * sigma**2 + g2, (s_plus**2 - s_minus**2) / (2 * h), rtol=1e-5, atol=1e-4)
    assert float(g2) > 0


@laws
@given(schedules, st.lists(time, min_size=1, max_size=6), st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
def test_the_dtype_of_t_is_that_of_the_answer_and_rounds_last(schedule, times, dtype):
    t = torch.tensor(times, dtype=dtype)
    for single, exact in zip(schedule(t), schedule(t.double())):
        assert single.dtype == dtype and single.shape == t.shape
        assert torch.equal(single, exact.to(dtype))


@laws
@given(schedules, batches, shapes, time, seeds)
def test_noise_is_sigma_times_the_generators(schedule, n, shape, t, seed):
    x = schedule.noise((n, *shape), generator(seed), torch.float64, t=t)
    close(x, schedule(t)[1] * randn((n, *shape), seed))


@few
@given(schedules)
def test_a_copy_is_the_same_path_and_a_shifted_one_is_not(schedule):
    assert schedule.same(copy.deepcopy(schedule))
    if not isinstance(schedule, SubVP):
        moved = Shifted(schedule, 1.1)
        assert not schedule.same(moved) and not moved.same(Shifted(schedule, 1.2))
        close(moved.log_snr(0.4), schedule.log_snr(0.4) - 2 * math.log(1.1), atol=1e-8)


@few
@given(st.integers(25, 300), number(1e-3, 0.05))
def test_betas_at_any_number_of_steps(n, s):
    """Linear ones add up to 10.05, the integral of LinearVP; cosine ones meet their path at every knot below the cap of the last."""
    close(linear_betas(n).sum(), f64((0.1 + 20.0) / 2))
    t = torch.arange(1, n, dtype=torch.float64) / n
    close(DDPM(cosine_betas(n, s))(t)[0], CosineVP(s)(t)[0], rtol=1e-8)


# ---------------------------------------------------------------------------------------------- targets, denoisers, losses


class Known(nn.Module):
    """Predicts the target of a known image and noise, and keeps what it was asked."""

    def __init__(self, y):
        super().__init__()
        self.y = y

    def forward(self, x, c):
        self.asked = x, c
        return self.y.to(x.dtype)


def example(schedule, target, n, shape, times, seed):
    """x0, eps, x_t and y for one time a sample, in float64."""
    t = f64(times * n)[:n]
    x0, eps = randn((n, *shape), seed), randn((n, *shape), seed + 1)
    alpha, sigma, a, b = (per_sample(c, x0) for c in (*schedule(t), *target(schedule, t)))
    return t, x0, eps, alpha * x0 + sigma * eps, a * x0 + b * eps


@laws
@given(smooth, time, number(-2, 2), number(-2, 2))
def test_targets_are_what_the_papers_say(schedule, t, x0, eps):
    """The line a x0 + b eps against each paper's own formula, at one image and noise."""
    (alpha, sigma), h = schedule(t), 1e-5
    x = alpha * x0 + sigma * eps
    moved = [c[0] * x0 + c[1] * eps for c in (schedule(t + h), schedule(t - h))]
    level, d = sigma / alpha, 0.7
    c_skip, c_out = d**2 / (level**2 + d**2), level * d / (level**2 + d**2).sqrt()
    papers = {
        "x0": f64(x0), "eps": f64(eps), "score": -(x - alpha * x0) / sigma**2, "v": alpha * eps - sigma * x0,
        "velocity": (moved[0] - moved[1]) / (2 * h), "edm": (x0 - c_skip * x / alpha) / c_out,
    }
    for name, want in papers.items():
        a, b = TARGETS[name](schedule, t)
        close(a * x0 + b * eps, want, rtol=1e-4, atol=1e-4)


@laws
@given(smooth, target_names, batches, shapes, st.lists(time, min_size=1, max_size=5), seeds)
def test_an_exact_prediction_is_the_exact_image(schedule, name, n, shape, times, seed):
    t, x0, _, x, y = example(schedule, TARGETS[name], n, shape, times, seed)
    sigma_data = 0.7 if name == "edm" else 1.3
    net = Known(y)
    denoiser = Denoiser(net, schedule, TARGETS[name], sigma_data)
    close(denoiser(x, t), x0, rtol=1e-6, atol=1e-6)
    asked, c = net.asked
    alpha, sigma = schedule(t)
    close(asked * per_sample(((alpha * sigma_data) ** 2 + sigma**2).sqrt(), x), x)
    close(c, schedule.log_snr(t).clamp(-20, 20), atol=1e-8)


@laws
@given(smooth, target_names, target_names, shapes, st.lists(time, min_size=1, max_size=3), seeds)
def test_any_target_follows_from_any_other(schedule, one, other, shape, times, seed):
    t, x0, eps, x, y = example(schedule, TARGETS[one], 3, shape, times, seed)
    c_x, c_y = (per_sample(c, x) for c in targets.solution(schedule, TARGETS[one], t))
    alpha, sigma, a, b = (per_sample(c, x) for c in (*schedule(t), *TARGETS[other](schedule, t)))
    image = c_x * x + c_y * y
    want = example(schedule, TARGETS[other], 3, shape, times, seed)[-1]
    close(a * image + b * (x - alpha * image) / sigma, want, rtol=1e-5, atol=1e-5 * float(want.abs().max() + 1))


@few
@given(st.one_of(linear, cosine), st.sampled_from(["x0", "v", "eps"]), batches, shapes, number(0.2, 0.8), seeds, st.sampled_from([(torch.float32, 1e-4), (torch.bfloat16, 0.2)]))
def test_a_denoiser_answers_in_the_dtype_and_shape_of_x(schedule, name, n, shape, t, seed, dtype):
    kind, tolerance = dtype
    _, x0, _, x, y = example(schedule, TARGETS[name], n, shape, [t], seed)
    got = Denoiser(Known(y), schedule, TARGETS[name])(x.to(kind), t)
    assert got.dtype == kind and got.shape == x.shape
    scale = float(x.abs().max() + y.abs().max()) / float(schedule(t)[0])
    assert float((got.double() - x0).abs().max()) < tolerance * scale


WEIGHTS = [losses.uniform, losses.snr, losses.v_weight, losses.min_snr(3.0), losses.min_snr(0.5)]


@laws
@given(smooth, target_names, st.sampled_from(WEIGHTS), time)
def test_a_weight_is_one_number_on_the_image_whatever_the_target(schedule, name, weight, t):
    c_y = targets.solution(schedule, TARGETS[name], t)[1]
    close(weight(schedule, t, TARGETS[name]), weight(schedule, t, targets.x0) * c_y**2, rtol=1e-6)


@laws
@given(smooth, time)
def test_weights_are_what_their_names_say(schedule, t):
    snr = float(schedule.log_snr(t).exp())
    for weight, want in ((losses.uniform, 1.0), (losses.snr, snr), (losses.min_snr(3.0), min(snr, 3.0))):
        assert float(weight(schedule, t, targets.x0)) == pytest.approx(want, rel=1e-8)


@laws
@given(smooth, target_names, st.sampled_from([None, *WEIGHTS]), batches, shapes, time, seeds)
def test_the_loss_is_the_weighted_square_of_the_images_error(schedule, name, weight, n, shape, t, seed):
    """The noise is drawn again from the same seed, and the image is solved for by hand."""
    x0, guess, eps = randn((n, *shape), seed), randn((n, *shape), seed + 5), randn((n, *shape), seed + 9)
    denoiser = Denoiser(Known(guess), schedule, TARGETS[name], 0.7 if name == "edm" else 1.0)
    got = denoising_loss(denoiser, x0, t, weight, generator(seed + 9))
    (alpha, sigma), (a, b) = schedule(t), TARGETS[name](schedule, t)
    error = (guess - a * x0 - b * eps).square().reshape(n, -1).mean(1)
    image = (b * (alpha * x0 + sigma * eps) - sigma * guess) / (alpha * b - sigma * a)
    want = error if weight is None else weight(schedule, t, targets.x0) * (image - x0).square().reshape(n, -1).mean(1)
    close(got, want, rtol=1e-5, atol=1e-8 * float(want.max() + 1))


@few
@given(st.integers(1, 20), seeds)
def test_importance_weights_keep_the_mean(n, seed):
    times = LossSecondMoment(n, history=2)
    i = torch.arange(1, n + 1, dtype=torch.float64) / n
    for k in range(2):
        times.update(i, 0.1 + torch.rand(n, generator=generator(seed + k), dtype=torch.float64))
    p, w = times.probabilities, times.weights(i)
    close(p.sum(), f64(1.0))
    values = randn((n,), seed)
    close((p * w * values).sum(), values.mean())


# ---------------------------------------------------------------------------------------------- exact worlds


@st.composite
def mixtures(draw):
    k, d, seed = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(seeds)
    root = randn((k, d, d), seed)
    covariances = root @ root.mT + 0.1 * torch.eye(d, dtype=torch.float64)
    kind = draw(st.sampled_from(["number", "isotropic", "diagonal", "full"]))
    chosen = {"number": f64(0.4), "isotropic": covariances[:, 0, 0], "diagonal": covariances.diagonal(dim1=1, dim2=2), "full": covariances}[kind]
    return GaussianMixture(2 * randn((k, d), seed + 1), chosen, torch.rand(k, generator=generator(seed + 2)) + 0.1)


@laws
@given(mixtures(), schedules, time, seeds)
def test_tweedie_to_second_order_and_the_score_is_the_gradient(world, schedule, t, seed):
    alpha, sigma = schedule(t)
    x = alpha * world.sample(4, generator(seed), torch.float64) + sigma * randn((4, *world.event), seed)
    score, eye = world.score(x, alpha, sigma), torch.eye(x.shape[1], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    close(score, torch.autograd.grad(world.log_prob(leaf, alpha, sigma).sum(), leaf)[0], rtol=1e-6, atol=1e-7)
    close(alpha * world.posterior_mean(x, alpha, sigma), x + sigma**2 * score, rtol=1e-6, atol=1e-6)
    hessian = world.hessian(x, alpha, sigma)
    close(hessian, jacobian(lambda y: world.score(y, alpha, sigma), x), rtol=1e-6, atol=1e-6)
    close(alpha**2 * world.posterior_cov(x, alpha, sigma), sigma**2 * (eye + sigma**2 * hessian), rtol=1e-5, atol=1e-5)
    close(score_at(world.denoiser(schedule), schedule, t)(x), score, rtol=1e-6, atol=1e-6)


@laws
@given(number(-2, 2), number(0.1, 3), schedules, time, seeds)
def test_one_gaussian_in_closed_form(mean, variance, schedule, t, seed):
    """The least loss of a denoiser is the posterior's variance, s^2 sigma^2 / (alpha^2 s^2 + sigma^2), wherever x is."""
    world, (alpha, sigma) = Gaussian([mean], variance), schedule(t)
    x, noised = randn((3, 1), seed), alpha**2 * variance + sigma**2
    close(world.posterior_mean(x, alpha, sigma), (mean * sigma**2 + alpha * variance * x) / noised)
    close(world.posterior_cov(x, alpha, sigma).flatten(), (variance * sigma**2 / noised).expand(3))
    close(world.log_prob(x, alpha, sigma), (log_normal(x, alpha * mean, noised) - 0.5 * math.log(2 * math.pi)).flatten())


@few
@given(seeds, st.integers(1, 6), st.integers(1, 3), schedules, time)
def test_an_empirical_measure_is_the_mixture_of_its_points(seed, n, d, schedule, t):
    data, (alpha, sigma) = randn((n, d), seed), schedule(t)
    x = alpha * randn((3, d), seed + 1) + sigma * randn((3, d), seed + 2)
    near = GaussianMixture(data, 1e-12)
    for ask in ("log_prob", "score", "posterior_mean", "posterior_cov"):
        close(getattr(Empirical(data), ask)(x, alpha, sigma), getattr(near, ask)(x, alpha, sigma), rtol=1e-4, atol=1e-4)


@few
@given(mixtures(), st.one_of(linear, cosine, st.builds(EDM, number(20.0, 100.0))), st.one_of(linear, st.builds(Straight), st.builds(SubVP)), number(0.2, 0.7), seeds)
def test_transport_is_the_same_denoiser_and_comes_back(world, source, target, t, seed):
    low, high = source.log_snr_range()
    assume(low + 0.01 < float(target.log_snr(t)) < high - 0.01)
    alpha, sigma = target(t)
    x = alpha * world.sample(4, generator(seed), torch.float64) + sigma * randn((4, *world.event), seed)
    there = transport(world.denoiser(source), source, target)
    close(there(x, t), world.posterior_mean(x, alpha, sigma), rtol=1e-6, atol=1e-6)
    u = source.time(target.log_snr(t))
    y = x * source(u)[0] / alpha
    close(transport(there, target, source)(y, u), world.denoiser(source)(y, u), rtol=1e-5, atol=1e-5)
    close(clipped(there, -1e9, 1e9)(x, t), there(x, t))
    assert float(clipped(there, -0.1, 0.1)(x, t).abs().max()) <= 0.1


# ---------------------------------------------------------------------------------------------- samplers


SOLVERS = {
    "ddim": ddim, "heun": heun, "dpmpp_2m": dpmpp_2m, "unipc": unipc, "second": lambda *a: exponential_multistep(*a, order=2),
    "third": exponential_multistep, "churn_0": lambda *a: churned_heun(*a, s_churn=0.0),
}
NOISY = {
    "ancestral": ancestral, "ancestral_beta": lambda *a, **k: ancestral(*a, variance=transition_variance, **k), "ddim_eta": lambda *a, **k: ddim(*a, eta=0.7, **k),
    "euler_maruyama": euler_maruyama, "predictor_corrector": predictor_corrector, "annealed_langevin": annealed_langevin,
    "churned_heun": lambda *a, **k: churned_heun(*a, s_churn=3.0, s_tmax=0.5, **k),
}
solvers, noisy = st.sampled_from(sorted(SOLVERS)), st.sampled_from(sorted(NOISY))


@laws
@given(solvers, smooth, shapes, st.integers(2, 6), number(-2, 2), seeds)
def test_a_point_mass_is_reached_along_the_straight_line(name, schedule, shape, n, point, seed):
    """A constant image makes x / sigma affine in alpha / sigma: every solver is exact on every grid, at each of its times."""
    times = steps_of(schedule, seed, n)
    x = randn((2, *shape), seed) + point
    (alpha, sigma), states = schedule(times), list(SOLVERS[name](lambda x, t: torch.full_like(x, point), schedule, x, times))
    for state, a, s in zip(states[: len(times)], alpha, sigma):
        close(state, a * point + s / sigma[0] * (x - alpha[0] * point), rtol=1e-6, atol=1e-6 * float(1 + x.abs().max()))
    close(states[-1], torch.full_like(x, point), rtol=1e-9, atol=1e-9)


@laws
@given(smooth, number(0.2, 2), st.integers(2, 8), seeds)
def test_ddim_of_a_gaussian_is_a_product_of_factors_and_ancestral_contracts_by_the_posterior(schedule, variance, n, seed):
    """x0-hat = k x, so that a step multiplies; with the same noise the difference of two ancestral chains does."""
    times, world = steps_of(schedule, seed, n), Gaussian([0.0], variance)
    alpha, sigma = schedule(times)
    k = alpha * variance / (alpha**2 * variance + sigma**2)
    x, y = randn((3, 1), seed), randn((3, 1), seed + 1)
    euler = math.prod(float(alpha[i + 1] * k[i] + sigma[i + 1] / sigma[i] * (1 - alpha[i] * k[i])) for i in range(len(times) - 1))
    floor = float(k[-1]) if float(sigma[-1]) > 0 else 1.0
    close(last(ddim(world.denoiser(schedule), schedule, x, times)), euler * floor * x, rtol=1e-6)
    ratio = alpha[:-1] / alpha[1:]
    between = sigma[:-1] ** 2 - ratio**2 * sigma[1:] ** 2
    mean = (alpha[1:] * between * k[:-1] + ratio * sigma[1:] ** 2) / sigma[:-1] ** 2
    one, two = (last(ancestral(world.denoiser(schedule), schedule, z, times, generator=generator(3))) for z in (x, y))
    close(one - two, float(mean.prod()) * floor * (x - y), rtol=1e-5, atol=1e-9)


@few
@given(solvers, st.one_of(linear, exploding, st.builds(Straight)), number(0.3, 2), number(0.3, 0.6), seeds)
def test_solvers_follow_the_flow_of_a_gaussian(name, schedule, variance, start, seed):
    """The flow keeps x in units of its standard deviation. Sixty steps of even log-SNR, from t = start to a tenth of it."""
    ends = schedule.log_snr(f64([start, start / 10]))
    times = schedule.time(torch.linspace(float(ends[0]), float(ends[1]), 61, dtype=torch.float64))
    alpha, sigma = schedule(times[[0, -1]])
    spread = (alpha**2 * variance + sigma**2).sqrt()
    x = spread[0] * randn((3, 1), seed)
    got = last(SOLVERS[name](Gaussian([0.0], variance).denoiser(schedule), schedule, x, times))
    close(got, spread[1] / spread[0] * x, rtol=3e-2 if name == "ddim" else 3e-3, atol=1e-6)


@laws
@given(smooth, shapes, st.integers(2, 5), seeds)
def test_heun_is_karras_algorithm_one(schedule, shape, n, seed):
    """In y = x / alpha and its noise level, with the slope at both ends of each step; the step to no noise is Euler's."""
    times, x = steps_of(schedule, seed, n), randn((2, *shape), seed)
    assume(float(schedule(0.0)[1]) == 0)
    alpha, sigma = schedule(times)
    y, level = x / alpha[0], sigma / alpha
    for i in range(len(times) - 1):
        slope = (y - toward(alpha[i] * y, times[i])) / level[i]
        euler, h = y + (level[i + 1] - level[i]) * slope, level[i + 1] - level[i]
        end = (euler - toward(alpha[i + 1] * euler, times[i + 1])) / level[i + 1] if level[i + 1] > 0 else slope
        y = y + h * (slope + end) / 2
    close(last(heun(toward, schedule, x, times)), y, rtol=1e-5, atol=1e-6 * float(1 + (x / alpha[0]).abs().max()))


def any_sampler(name, schedule, denoise, x, times, seed):
    return last(SOLVERS[name](denoise, schedule, x, times)) if name in SOLVERS else last(NOISY[name](denoise, schedule, x, times, generator=generator(seed)))


def toward(x, t):
    """A smooth denoiser that treats each coordinate alone."""
    return torch.tanh(x) * (1 - 0.3 * float(t))


@laws
@given(st.one_of(solvers, noisy), reaching, st.integers(1, 4), shapes, st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), seeds)
def test_samplers_keep_shape_dtype_and_their_input(name, schedule, n, shape, dtype, seed):
    x = schedule.noise((n, *shape), generator(seed), dtype)
    before, times = x.clone(), steps_of(schedule, seed, 3)
    got = any_sampler(name, schedule, toward, x, times, seed)
    assert got.shape == x.shape and got.dtype == dtype and bool(got.isfinite().all())
    assert torch.equal(x, before)
    assert torch.equal(got, any_sampler(name, schedule, toward, x, times, seed))


@laws
@given(solvers, smooth, mixtures(), st.integers(2, 5), seeds)
def test_a_batch_is_its_samples(name, schedule, world, n, seed):
    """Each alone gives the same, and the order does not matter."""
    times, denoise = steps_of(schedule, seed, 3), world.denoiser(schedule)
    x = schedule.noise((n, *world.event), generator(seed), torch.float64, t=float(times[0]))
    together = any_sampler(name, schedule, denoise, x, times, seed)
    close(torch.cat([any_sampler(name, schedule, denoise, row[None], times, seed) for row in x]), together, rtol=1e-9, atol=1e-9)
    order = torch.randperm(n, generator=generator(seed))
    close(any_sampler(name, schedule, denoise, x[order], times, seed), together[order], rtol=1e-9, atol=1e-9)


@few
@given(smooth, number(-2, 2), st.integers(2, 6), shapes, seeds)
def test_inversion_undoes_ddim_where_the_image_is_known(schedule, point, n, shape, seed):
    times, x = steps_of(schedule, seed, n, to_zero=False), randn((2, *shape), seed)
    assume(len(times) > 1)
    known = lambda x, t: torch.full_like(x, point)
    close(last(ddim_inversion(known, schedule, last(ddim(known, schedule, x, times)), times)), x, rtol=1e-6, atol=1e-6)


@laws
@given(reaching, st.integers(2, 30), number(-6, -1), number(0.5, 6), number(1, 10))
def test_grids_fall_from_their_noise_to_zero(schedule, n, lo, hi, rho):
    low, high = schedule.log_snr_range()
    lo, hi = max(lo, low + 1e-6), min(hi, high - 1e-6)
    assume(lo + 0.1 < hi)
    sigma = [math.exp(-hi / 2), math.exp(-lo / 2)]
    even, karras, asinh = log_snr_grid(schedule, n, lo, hi), karras_grid(schedule, n, *sigma, rho=rho), asinh_grid(schedule, n, *sigma)
    for times in (even, karras, asinh, uniform(n)):
        assert len(times) == n + 1 and float(times[-1]) == 0 and float(times[0]) <= 1 and bool((times.diff() < 0).all())
    for times in (even, karras, asinh):
        close(schedule.log_snr(times[[0, -2]]), f64([lo, hi]), atol=1e-5)
    close(schedule.log_snr(even[:-1]).diff(), torch.full((n - 1,), (hi - lo) / (n - 1)), rtol=1e-5, atol=1e-5)
    level = torch.exp(-schedule.log_snr(karras[:-1]) / 2) ** (1 / rho)
    close(level.diff(), (level[-1] - level[0]).expand(n - 1) / (n - 1), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------- likelihood, derivatives, distances


@laws
@given(number(-50, 50), number(-50, 50), st.integers(1, 1000), st.integers(2, 256))
def test_bits_a_dimension_are_linear_in_nats_and_shifted_by_the_bin(a, b, dims, levels):
    close(bits_per_dim(a + b, dims), bits_per_dim(a, dims) + bits_per_dim(b, dims))
    close(bits_per_dim(a, 2 * dims), bits_per_dim(a, dims) / 2)
    close(bits_per_dim(a, dims, levels) - bits_per_dim(a, dims), f64(math.log2(levels) - 1))


@laws
@given(batches, shapes, number(0.1, 3), number(0.1, 3), number(0.2, 4), seeds)
def test_kl_of_gaussians(n, shape, v, w, scale, seed):
    """Zero at home, positive elsewhere, the same after a change of units, and the sum over coordinates."""
    p, q = randn((n, *shape), seed), randn((n, *shape), seed + 1)
    got = gaussian_kl(p, v, q, w)
    assert float(got.min()) >= 0 and float(gaussian_kl(p, v, p, v).abs().max()) < 1e-12
    close(gaussian_kl(scale * p, scale**2 * v, scale * q, scale**2 * w), got)
    by_hand = 0.5 * (v / w - 1 - math.log(v / w) + (p - q) ** 2 / w)
    close(got, by_hand.reshape(n, -1).sum(1))


@laws
@given(st.integers(2, 40), number(-1.5, 1.5), number(1e-2, 2))
def test_a_gaussian_in_bins_is_a_probability(levels, mean, std):
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    log_p = discretized_log_prob(values[:, None], torch.full((levels, 1), mean, dtype=torch.float64), std, levels)
    close(log_p.exp().sum(), f64(1.0), atol=1e-9)


@laws
@given(batches, st.integers(1, 4), seeds)
def test_derivatives_of_a_linear_field(n, d, seed):
    matrix, x = randn((d, d), seed), randn((n, d), seed + 1)
    field = lambda y: y @ matrix.T
    close(jacobian(field, x), matrix.expand(n, d, d))
    close(divergence(field, x)[1], matrix.trace().expand(n))
    basis = torch.eye(d, dtype=torch.float64)[:, None].expand(d, n, d)
    close(d * hutchinson(field, x, basis)[1], matrix.trace().expand(n))


@few
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 3), number(-3, 3), number(0.2, 4), seeds)
def test_distances_of_samples(n, k, d, shift, scale, seed):
    """Symmetric, blind to a common shift, in the units of the data, zero at home; on a line a shift is its own size."""
    x, y = randn((n, d), seed), randn((k, d), seed + 1)
    for distance in (m.energy_distance, lambda a, b: m.sliced_wasserstein(a, b, 16, generator=generator(0))):
        got = distance(x, y)
        assert got == pytest.approx(distance(y, x), rel=1e-9, abs=1e-12) and got >= 0
        assert got == pytest.approx(distance(x + shift, y + shift), rel=1e-6, abs=1e-9)
        assert distance(scale * x, scale * y) == pytest.approx(scale * got, rel=1e-6, abs=1e-9)
        assert distance(x, x) == pytest.approx(0.0, abs=1e-9)
    line = x[:, :1]
    assert m.sliced_wasserstein(line, line + shift, 8, generator=generator(0)) == pytest.approx(abs(shift), abs=1e-9)
