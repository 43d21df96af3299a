"""Reverse variances, the loss that learns them, importance-sampled times and the walk from data to noise: closed forms, finite differences, enumeration."""

import math

import numpy as np
import pytest
import torch
from paths import f64, generator, one_thread  # noqa: F401
from torch import nn

from diffusion_core import (
    DDPM,
    EDM,
    MLP,
    CosineVP,
    Denoiser,
    Empirical,
    Gaussian,
    GeometricVE,
    LearnedVariance,
    LinearVP,
    LossSecondMoment,
    Straight,
    UNet,
    analytic_variance,
    ancestral,
    ddim,
    ddim_inversion,
    denoising_loss,
    discrete_times,
    fit,
    hybrid_loss,
    last,
    linear_betas,
    posterior_variance,
    targets,
    transition_variance,
    two_peaks,
    uniform,
    vlb,
)
from diffusion_core.variance import range_variance

V, N = 0.3, 8
CHAIN = DDPM(linear_betas(N, 0.02, 0.5))


class Constant(nn.Module):
    """Predicts the exact v-target of N(0, V) data, scaled by `gain`, and one number a time for the variance."""

    learned_variance = True

    def __init__(self, gain: float = 1.0, v: float = 0.0, schedule=CHAIN):
        super().__init__()
        self.gain, self.v, self.schedule = nn.Parameter(f64(gain)), nn.Parameter(f64(v)), schedule

    def forward(self, x, c):
        alpha2 = torch.sigmoid(c)[:, None]
        alpha, sigma = alpha2.sqrt(), (1 - alpha2).sqrt()
        image = self.gain * alpha * V / (alpha2 * V + 1 - alpha2) * x
        return torch.cat([(alpha * x - image) / sigma, self.v.expand_as(x)], 1)


def denoiser(**settings) -> Denoiser:
    return Denoiser(Constant(**settings), CHAIN, targets.v)


def wiener(alpha, sigma):
    """E Var[x0 | x_t] of N(0, V) data."""
    return V * sigma**2 / (alpha**2 * V + sigma**2)


# -------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(("net", "shape"), [(lambda **k: MLP(3, **k), (5, 3)), (lambda **k: UNet(2, 8, patch=2, **k), (5, 2, 8, 8))])
def test_a_network_with_a_variance_predicts_two_of_the_same_shape(net, shape):
    made = Denoiser(net(learned_variance=True), CosineVP(), targets.v)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator())
    x = torch.randn(shape, generator=generator(1))
    y, v = made.predict_with_variance(x, 0.3)
    both = made.net(x, CosineVP().log_snr(0.3).float().expand(5))
    assert torch.equal(torch.cat([y, v], 1), both) and torch.equal(made.predict(x, 0.3), y) and y.shape == v.shape == shape
    torch.testing.assert_close(made(x, 0.3), made.image(x, 0.3, y))
    alpha, sigma = CosineVP()(0.3)
    torch.testing.assert_close(made(x, 0.3), alpha.float() * x - sigma.float() * y)
    with pytest.raises(ValueError, match="learned_variance=True"):
        Denoiser(net(), CosineVP(), targets.v).predict_with_variance(x, 0.3)
    with pytest.raises(ValueError, match="learned_variance=True"):
        LearnedVariance(Denoiser(net(), CosineVP(), targets.v))


# -------------------------------------------------------------------------------------------------- variances


def test_the_range_runs_from_beta_tilde_to_beta_in_the_logarithm():
    betas = linear_betas(N, 0.02, 0.5)
    abar = np.cumprod(1 - betas.numpy())
    for i in range(2, N + 1):
        beta = float(betas[i - 1])
        tilde = beta * (1 - abar[i - 2]) / (1 - abar[i - 1])
        for v in (-1.0, -0.2, 0.0, 1.0, 1.7):
            w = (v + 1) / 2
            got = range_variance(CHAIN, f64([[v]]), f64((i - 1) / N), f64(i / N))
            assert float(got) == pytest.approx(beta**w * tilde ** (1 - w), rel=1e-9)
    first, second = float(betas[0]), float(betas[1]) * (1 - abar[0]) / (1 - abar[1])  # the paper's code puts beta-tilde_2 where beta-tilde_1 is 0
    assert float(range_variance(CHAIN, f64([[-1.0]]), f64(0.0), f64(1 / N))) == pytest.approx(second, rel=1e-9)
    assert float(range_variance(CHAIN, f64([[1.0]]), f64(0.0), f64(1 / N))) == pytest.approx(first, rel=1e-9)
    with pytest.raises(ValueError, match="at least two steps"):
        range_variance(CHAIN, f64([[0.0]]), f64(0.0), f64(1.0))


def test_a_times_own_range_in_a_batch():
    v, s, t = torch.zeros(3, 2, dtype=torch.float64), f64([0, 2, 6]) / N, f64([1, 3, 7]) / N
    batch = range_variance(CHAIN, v, s, t)
    for row in range(3):
        torch.testing.assert_close(batch[row], range_variance(CHAIN, v[:1], s[row], t[row])[0])


def test_learned_variance_calls_the_network_once_a_step_and_never_reuses_another_state():
    made, calls = denoiser(v=0.3), []
    inner = made.predict_with_variance
    made.predict_with_variance = lambda *a, **k: calls.append(1) or inner(*a, **k)
    variance, x = LearnedVariance(made), CHAIN.noise((6, 1), generator(2), dtype=torch.float64)
    with torch.no_grad():
        once = last(ancestral(variance.denoise, CHAIN, x, uniform(N), variance, generator(3)))
        assert len(calls) == N
        bound = vlb(variance.denoise, CHAIN, x, uniform(N), variance, None, 1, generator(3))
        assert len(calls) == 2 * N
        torch.testing.assert_close(bound.total, vlb(made, CHAIN, x, uniform(N), variance, None, 1, generator(3)).total)
        calls.clear()
        twice = last(ancestral(made, CHAIN, x, uniform(N), variance, generator(3)))
        torch.testing.assert_close(once, twice)
        made.net.forward = lambda x, c: torch.cat([x, x], 1)  # a variance that depends on the state
        variance.denoise(x, 0.5)
        x += 1  # in place: what was kept belongs to another state
        torch.testing.assert_close(variance(CHAIN, x, f64(0.375), f64(0.5)), range_variance(CHAIN, x, f64(0.375), f64(0.5)))
        one, other = x + 1, 2 * x  # two tensors that were never changed, at the same time
        variance.denoise(one, 0.5)
        torch.testing.assert_close(variance(CHAIN, other, f64(0.375), f64(0.5)), range_variance(CHAIN, other, f64(0.375), f64(0.5)))
    with pytest.raises(ValueError, match="another path"):
        variance(LinearVP(), x, f64(0.1), f64(0.2))


@pytest.mark.parametrize(("schedule", "grid"), [(CHAIN, uniform(N)), (CosineVP(), uniform(7)), (EDM(sigma_max=9.0), f64([1, 0.4, 0.1, 0.02, 0])), (Straight(), uniform(5))])
def test_analytic_variance_of_a_gaussian_is_that_of_the_exact_reverse_kernel(schedule, grid):
    """Two consecutive states are jointly Gaussian: Var[x_s | x_t] = Var x_s - Cov^2 / Var x_t."""
    x0 = math.sqrt(V) * torch.randn(400_000, generator=generator(4), dtype=torch.float64)
    exact = Gaussian(0.0, V).denoiser(schedule)
    variance = analytic_variance(exact, schedule, x0, grid, generator(5))
    alpha, sigma = (a.tolist() for a in schedule(grid))
    for i in range(len(grid) - 1):
        var_s, var_t = (alpha[j] ** 2 * V + sigma[j] ** 2 for j in (i + 1, i))
        covariance = alpha[i] * alpha[i + 1] * V + (alpha[i] / alpha[i + 1]) * sigma[i + 1] ** 2
        want = var_s - covariance**2 / var_t
        assert float(variance(schedule, x0, grid[i + 1], grid[i])) == pytest.approx(want, rel=0.015)
    with pytest.raises(ValueError, match="call analytic_variance again"):
        variance(schedule, x0, f64(0.31), f64(0.55))


def test_analytic_variance_of_a_mixture_is_a_quadrature():
    peaks, grid = two_peaks(), uniform(N)
    variance = analytic_variance(peaks.denoiser(CHAIN), CHAIN, peaks.sample(400_000, generator(6), torch.float64), grid, generator(7))
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    for s, t in zip(grid[1:], grid[:-1]):
        (alpha, sigma), (c_0, _, tilde) = CHAIN(t), CHAIN.posterior(s, t)
        spread = torch.trapezoid(peaks.log_prob(x, alpha, sigma).exp() * peaks.posterior_cov(x, alpha, sigma), x)
        assert float(variance(CHAIN, x, s, t)) == pytest.approx(float(tilde + c_0**2 * spread), rel=0.015)


def test_the_analytic_variance_makes_the_chain_of_a_gaussian_exact():
    x0 = math.sqrt(V) * torch.randn(200_000, generator=generator(8), dtype=torch.float64)
    exact, grid = Gaussian(0.0, V).denoiser(CHAIN), uniform(N)
    variance = analytic_variance(exact, CHAIN, x0, grid, generator(9))
    bounds = {name: float(vlb(exact, CHAIN, x0, grid, kind, None, 1, generator(10)).total.mean())
              for name, kind in (("analytic", variance), ("beta", transition_variance), ("tilde", posterior_variance))}
    alpha, sigma = (float(a) for a in CHAIN(1.0))
    prior = 0.5 * (math.log(sigma**2 / (alpha**2 * V + sigma**2)) + (alpha**2 * V + sigma**2) / sigma**2 - 1)
    assert bounds["analytic"] == pytest.approx(0.5 * math.log(2 * math.pi * math.e * V) + prior, abs=0.01)
    assert bounds["analytic"] < min(bounds["beta"], bounds["tilde"]) - 0.01


def test_ancestral_with_the_built_in_variances_is_the_same_as_with_a_copy_of_them():
    x = CHAIN.noise((50,), generator(11), dtype=torch.float64)
    exact = Gaussian(0.0, V).denoiser(CHAIN)
    for kind in (posterior_variance, transition_variance):
        states = [list(ancestral(exact, CHAIN, x, uniform(N), v, generator(12))) for v in (kind, lambda *a: kind(*a))]
        for a, b in zip(*states):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


# -------------------------------------------------------------------------------------------------- hybrid loss


def hybrid_by_hand(made, x0, i, eps, scale):
    """L_simple + scale * N * L_{i-1} / D in the letters of DDPM, torch.distributions and a histogram of the decoder."""
    betas = linear_betas(N, 0.02, 0.5)
    abar = torch.cat([torch.ones(1).double(), torch.cumprod(1 - betas.double(), 0)])
    total = []
    for row in range(len(x0)):
        n = int(i[row])
        a, beta = abar[n], betas[n - 1].double()
        x = a.sqrt() * x0[row : row + 1] + (1 - a).sqrt() * eps[row : row + 1]
        y, v = made.predict_with_variance(x, n / N)
        simple = (y - (a.sqrt() * eps[row] - (1 - a).sqrt() * x0[row])).square().mean()
        image = (a.sqrt() * x - (1 - a).sqrt() * y).detach()
        lower = beta * (1 - abar[n - 1]) / (1 - a) if n > 1 else betas[1].double() * (1 - abar[1]) / (1 - abar[2])
        tau = torch.exp(0.5 * ((v + 1) / 2 * beta.log() + (1 - (v + 1) / 2) * lower.log()))
        mean = lambda z: abar[n - 1].sqrt() * beta / (1 - a) * z + (1 - beta).sqrt() * (1 - abar[n - 1]) / (1 - a) * x
        if n > 1:
            q = torch.distributions.Normal(mean(x0[row : row + 1]), lower.sqrt())
            bound = torch.distributions.kl_divergence(q, torch.distributions.Normal(mean(image), tau)).sum()
        else:
            bound = -torch.distributions.Normal(image, tau).log_prob(x0[row : row + 1]).sum()
        total.append(simple + scale * N / x0.shape[1] * bound)
    return torch.stack(total)


def test_the_hybrid_loss_is_that_of_the_paper_in_value_and_gradient():
    made, scale = denoiser(gain=0.8, v=0.4), 0.5
    x0 = math.sqrt(V) * torch.randn(N, 1, generator=generator(13), dtype=torch.float64)
    i = torch.arange(1, N + 1)
    loss = hybrid_loss(N, scale, levels=None)(made, x0, i.double() / N, generator=generator(14))
    eps = torch.randn(x0.shape, generator=generator(14), dtype=torch.float64)
    want = hybrid_by_hand(made, x0, i, eps, scale)
    torch.testing.assert_close(loss, want, rtol=1e-8, atol=1e-10)
    gradients = [torch.autograd.grad(value.sum(), list(made.parameters()), retain_graph=True) for value in (loss, want)]
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)
    plain = denoising_loss(made, x0, i.double() / N, generator=generator(14))
    assert float(gradients[0][0]) == pytest.approx(float(torch.autograd.grad(plain.sum(), made.net.gain)[0]), rel=1e-9)  # the bound leaves the mean alone


def test_the_hybrid_loss_of_images_decodes_in_bins():
    net = UNet(1, 8, patch=2, learned_variance=True)
    made = Denoiser(net, CHAIN, targets.v)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.05, generator=generator(15))
    x0 = torch.randint(256, (2, 1, 8, 8), generator=generator(16)).float() / 127.5 - 1
    t = f64([1 / N, 1 / N])
    got = hybrid_loss(N, 1.0)(made, x0, t, generator=generator(17)) - denoising_loss(made, x0, t, generator=generator(17))
    alpha, sigma = CHAIN(f64(1 / N))
    x = alpha.float() * x0 + sigma.float() * torch.randn(x0.shape, generator=generator(17))
    y, v = made.predict_with_variance(x, t)
    normal = torch.distributions.Normal((alpha.float() * x - sigma.float() * y).double(), range_variance(CHAIN, v, f64(0.0), f64(1 / N)).double().sqrt())
    low = torch.where(x0 < -0.999, 0.0, normal.cdf(x0.double() - 1 / 255))
    high = torch.where(x0 > 0.999, 1.0, normal.cdf(x0.double() + 1 / 255))
    want = -(high - low).log().sum((1, 2, 3)) * N / 64
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)
    got.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in made.parameters())


def test_training_with_the_hybrid_loss_finds_the_exact_reverse_variance():
    """On Gaussian data with the exact mean, each step's best v is known in closed form; one number for all steps has its own optimum."""
    made = denoiser()
    made.net.gain.requires_grad_(False)
    x0 = math.sqrt(V) * torch.randn(50_000, 1, generator=generator(18), dtype=torch.float64)
    times = lambda schedule, n, g: torch.full((n,), 5 / N, dtype=torch.float64)
    fitted, _ = fit(made, x0, 400, batch_size=2048, lr=0.05, loss=hybrid_loss(N, 1.0, levels=None), times=times, ema=0.9, generator=generator(19), progress=False)
    (alpha, sigma), (c_0, _, tilde) = CHAIN(f64(5 / N)), CHAIN.posterior(f64(4 / N), f64(5 / N))
    want = float(tilde + c_0**2 * wiener(alpha, sigma))
    assert float(range_variance(CHAIN, fitted.net.v.reshape(1, 1), f64(4 / N), f64(5 / N))) == pytest.approx(want, rel=0.02)


def test_an_image_of_another_shape_does_not_spread_over_the_data():
    """The mean of a batch for each of its samples would give a variance, and a wrong one."""
    exact, x0 = Gaussian([0.0, 1.0], V).denoiser(CHAIN), torch.randn(5, 2, generator=generator(3))
    for denoise in (lambda x, t: exact(x, t)[:, :1], lambda x, t: exact(x, t).mean(0)):
        with pytest.raises(ValueError, match=r"the shape of x, \(5, 2\), got"):
            analytic_variance(denoise, CHAIN, x0, uniform(N))


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda: hybrid_loss(1), "at least 2"), (lambda: hybrid_loss(10, -1.0), "scale must not be negative"), (lambda: hybrid_loss(10, 1.0, 1), "levels"),
    (lambda: hybrid_loss(N)(denoiser(), f64([[0.1]]), f64([0.31])), "expected times i / 8"),
    (lambda: LossSecondMoment(0), "must be a positive integer"), (lambda: LossSecondMoment(4, 0), "must be a positive integer"), (lambda: LossSecondMoment(4, 2, 0.0), "floor"),
    (lambda: LossSecondMoment(4).update(f64([0.25]), f64([math.nan])), "finite"), (lambda: LossSecondMoment(4).weights(f64([0.3])), "expected times"),
    *((lambda x0=x0: analytic_variance(Gaussian(0.0, V).denoiser(CHAIN), CHAIN, x0, uniform(N)), "floating tensor of data") for x0 in (torch.ones(3, dtype=torch.long), [0.1], f64([]), f64(0.1))),
])
def test_what_cannot_be_meant_raises(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


# -------------------------------------------------------------------------------------------------- importance


def filled(losses, history=3):
    sampler = LossSecondMoment(len(losses), history)
    for k in range(history):
        sampler.update((torch.arange(len(losses)) + 1).double() / len(losses), f64(losses) * (1 + 0.1 * k))
    return sampler


def test_times_follow_the_root_mean_square_loss_and_are_uniform_before():
    losses = [0.1, 4.0, 1.0, 0.5]
    sampler = LossSecondMoment(4, 3)
    for _ in range(3):
        assert sampler.probabilities.tolist() == [0.25] * 4
        sampler.update(f64([0.25, 0.5, 0.75]), f64([5.0, 1.0, 1.0]))
    assert sampler.probabilities.tolist() == [0.25] * 4  # the last time has no loss yet
    want = np.array(losses) / sum(losses) * 0.999 + 0.001 / 4
    np.testing.assert_allclose(filled(losses).probabilities.numpy(), want, rtol=1e-12)
    t = filled(losses)(CHAIN, 100_000, generator(20))
    counts = torch.bincount((4 * t).round().long(), minlength=5)[1:].double() / 100_000
    assert bool(((counts - f64(want)).abs() < 5 * (f64(want) * (1 - f64(want)) / 100_000).sqrt()).all())


def test_only_the_last_losses_count():
    sampler = filled([1.0, 1.0], history=2)
    for _ in range(2):
        sampler.update(f64([0.5, 1.0]), f64([3.0, 1.0]))
    assert float(sampler.probabilities[0] / sampler.probabilities[1]) == pytest.approx((0.999 * 0.75 + 0.0005) / (0.999 * 0.25 + 0.0005))


def test_weights_keep_the_mean_and_cut_the_variance():
    """By enumeration: sum p_i (w_i L_i) is the plain mean; the variance of w L falls to almost none where L does not vary at fixed i."""
    losses = f64([0.1, 4.0, 1.0, 0.5])
    sampler = filled(losses.tolist())
    p, w = sampler.probabilities, sampler.weights(f64([0.25, 0.5, 0.75, 1.0]))
    assert float((p * w * losses).sum()) == pytest.approx(float(losses.mean()), rel=1e-12)
    spread = lambda p, values: float((p * values**2).sum() - (p * values).sum() ** 2)
    assert spread(p, w * losses) < 1e-3 * spread(torch.full((4,), 0.25).double(), losses)


def test_fit_weighs_what_it_draws_and_hands_the_unweighted_losses_back():
    seen = []

    class Recorder(LossSecondMoment):
        def update(self, t, losses):
            seen.append((t.clone(), losses.clone()))
            super().update(t, losses)

    torch.manual_seed(0)
    made = Denoiser(MLP(1, 8, 1), CHAIN, targets.v)
    x0 = torch.randn(64, 1, generator=generator(21))
    sampler = Recorder(N, 2)
    _, history = fit(made, x0, 60, batch_size=16, times=sampler, generator=generator(22), progress=False)
    assert len(seen) == 60 and all(len(t) == 16 for t, _ in seen)
    replay = LossSecondMoment(N, 2)
    for (t, losses), mean in zip(seen, history.tolist()):
        assert mean == pytest.approx(float((replay.weights(t.double()) * losses).mean()), rel=1e-5)
        replay.update(t, losses)
    assert not torch.equal(replay.probabilities, torch.full((N,), 1 / N, dtype=torch.float64))


def test_the_default_loss_of_fit_is_the_denoising_loss():
    runs = []
    for settings in ({}, {"loss": lambda *a, **k: denoising_loss(*a, **k)}):
        torch.manual_seed(0)
        made = Denoiser(MLP(1, 8, 1), CHAIN, targets.v)
        runs.append(fit(made, torch.randn(64, 1, generator=generator(23)), 20, batch_size=16, times=discrete_times(N), generator=generator(24), progress=False, **settings)[1])
    assert torch.equal(*runs)


# -------------------------------------------------------------------------------------------------- inversion


@pytest.mark.parametrize("schedule", [CHAIN, CosineVP(), EDM(sigma_max=9.0), Straight(), GeometricVE(0.05, 8.0)], ids=lambda s: type(s).__name__)
def test_inversion_of_a_gaussian_multiplies_by_known_factors(schedule):
    r"""In $\bar x=x/\alpha$, $\bar\sigma=\sigma/\alpha$ the exact noise is $\bar\sigma\bar x/(V+\bar\sigma^2)$, and each step is Euler's."""
    grid, floored = uniform(6), isinstance(schedule, GeometricVE)
    grid = grid if float(schedule(1.0)[0]) > 0 else torch.cat([f64([0.95]), grid[1:]])
    states = list(ddim_inversion(Gaussian(0.0, V).denoiser(schedule), schedule, f64([1.3]), grid))
    bars = [float(s / a) for a, s in (schedule(t) for t in grid.flip(0))]
    want = [1.3]
    level = bars[0] if floored else bars[1]
    want.append(1.3 + level * level * 1.3 / (V + level**2))  # the first noisy time: its own prediction from the clean point
    for low, high in zip(bars[0 if floored else 1 :], bars[1 if floored else 2 :]):
        want.append(want[-1] * (1 + (high - low) * low / (V + low**2)))
    times = [grid[-1], *([grid[-1]] if floored else []), *grid.flip(0)[1:]]
    got = [float(x / schedule(t)[0]) for x, t in zip(states, times)]
    assert len(states) == len(want)
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("schedule", [CHAIN, CosineVP(), EDM(sigma_max=9.0), Straight(), GeometricVE(0.05, 8.0)], ids=lambda s: type(s).__name__)
def test_the_round_trip_of_a_point_mass_is_exact_and_carries_no_noise(schedule):
    """All states are alpha times the point: there is no noise to predict."""
    point, grid = f64([[0.7, -0.2]]), uniform(9)
    exact = Empirical(point).denoiser(schedule)
    states = list(ddim_inversion(exact, schedule, point, grid))
    for x, t in zip(states[::-1], grid[:-1]):
        torch.testing.assert_close(x, schedule(t)[0] * point, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(last(ddim(exact, schedule, states[-1], grid)), point, rtol=1e-12, atol=0)


def test_inversion_never_calls_the_denoiser_without_noise():
    calls, exact = [], Gaussian(0.0, V).denoiser(CHAIN)
    list(ddim_inversion(lambda x, t: calls.append(float(t)) or exact(x, t), CHAIN, f64([1.3]), uniform(4)))
    assert calls == [0.25, 0.25, 0.5, 0.75]


def test_the_round_trip_of_inversion_is_of_first_order():
    peaks, schedule = two_peaks(), LinearVP()
    x0, errors = peaks.sample(300, generator(25), torch.float64), []
    for n in (100, 200, 400):
        grid = torch.cat([uniform(n)[:-1], f64([1e-3])])
        noise = last(ddim_inversion(peaks.denoiser(schedule), schedule, x0, grid))
        errors.append(float((last(ddim(peaks.denoiser(schedule), schedule, noise, grid)) - x0).abs().mean()))
    assert np.diff(np.log2(errors)) == pytest.approx([-1, -1], abs=0.2)
    assert errors[-1] < 0.02


def test_inversion_of_a_bad_grid_raises():
    with pytest.raises(ValueError, match="strictly decreasing"):
        list(ddim_inversion(Gaussian(0.0, V).denoiser(CHAIN), CHAIN, f64([1.0]), f64([0.0, 1.0])))
