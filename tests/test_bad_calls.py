"""A table of calls that cannot be meant, over the whole public surface, and what each must say.

A row is the call, the exception, and words that the message must hold: what was wrong, and what was expected or what to do. Each message names
the value or the argument at fault, and is longer than a bare exception's. Where a row has no words of its own for the value, they are in the message anyway.
"""

import math
import re

import numpy as np
import pytest
import torch
from paths import f64, generator, one_thread  # noqa: F401

from diffusion_core import (
    DDPM,
    EDM,
    MLP,
    VAE,
    CosineVP,
    Denoiser,
    Empirical,
    Gaussian,
    GaussianMixture,
    GeometricVE,
    Learned,
    LearnedVariance,
    LinearVP,
    LossSecondMoment,
    MonotoneLogSNR,
    Shifted,
    SigmoidVP,
    SubVP,
    UNet,
    ZeroTerminalSNR,
    analytic_variance,
    ancestral,
    annealed_langevin,
    annealed_step,
    annealed_variance,
    asinh_grid,
    bits_per_dim,
    check,
    check_below,
    churned_heun,
    clipped,
    continuous_vlb,
    cosine_betas,
    ddim,
    ddim_inversion,
    denoising_loss,
    denoising_score_matching,
    device,
    discrete_times,
    discretized_log_prob,
    divergence,
    dpmpp_2m,
    draw_probes,
    euler_maruyama,
    explicit_score_matching,
    exponential_multistep,
    fit,
    forward_euler_maruyama,
    gaussian_kl,
    heun,
    hutchinson,
    hybrid_loss,
    images,
    implicit_score_matching,
    jacobian,
    karras_grid,
    ladder_ratio,
    langevin,
    last,
    linear_betas,
    log_snr_grid,
    lognormal_times,
    losses,
    mala,
    mean_and_stderr,
    ode_decode,
    ode_encode,
    ode_log_likelihood,
    per_sample,
    plots,
    predictor_corrector,
    pretrained,
    ring,
    scaled_linear_betas,
    score_at,
    score_of,
    sliced_score_matching,
    targets,
    toy,
    transport,
    travellers,
    two_peaks,
    uniform,
    uniform_times,
    unipc,
    vlb,
)
from diffusion_core import metrics as m
from diffusion_core.models.classifier import Classifier

nan, inf = math.nan, math.inf
VP, COSINE, WORLD = LinearVP(), CosineVP(), ring()
X = torch.randn(4, 2, generator=generator(1))
GRID, EXACT = log_snr_grid(VP, 5), WORLD.denoiser(VP)
COSINE_EXACT = WORLD.denoiser(COSINE)
NET = MLP(2, width=8)
LABELLED = MLP(2, width=8, num_classes=3)
DENOISER = Denoiser(NET, VP, targets.v)
LEARNED = Denoiser(MLP(2, width=8, learned_variance=True), VP, targets.eps)
HALF = torch.full((4,), 0.5)
GRAY = torch.zeros(2, 1, 28, 28)
PICTURE = np.zeros((4, 4), np.uint8)


class Answers(torch.nn.Module):
    """A network that answers with `answer(x)`."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, c):
        return self.answer(x)


def sampled(sampler, denoise=EXACT, schedule=VP, x=X, times=GRID, **how):
    return lambda: last(sampler(denoise, schedule, x, times, **how))


def trained(denoiser=DENOISER, data=X, steps=1, **how):
    return lambda: fit(denoiser, data, steps, batch_size=2, progress=False, **how)


def wrong_device(monkeypatch):
    monkeypatch.setenv("DIFFUSION_CORE_DEVICE", "gpu")
    return device()


SCHEDULES = [
    ("t above 1", lambda: VP(500), ValueError, ["[0, 1]", "500", "i / N"]),
    ("t negative", lambda: VP(-0.1), ValueError, ["[0, 1]", "-0.1"]),
    ("t NaN", lambda: VP(nan), ValueError, ["[0, 1]", "nan"]),
    ("t a string", lambda: VP("0.5"), TypeError, ["number or a tensor", "str '0.5'"]),
    ("t None", lambda: VP(None), TypeError, ["number or a tensor", "None"]),
    ("t a matrix", lambda: VP(torch.full((2, 1), 0.5)), ValueError, ["scalar or of shape (B,)", "(2, 1)"]),
    ("log-SNR of clean data", lambda: VP.log_snr(0.0), ValueError, ["log-SNR of LinearVP", "t = 0", "inside (0, 1)"]),
    ("drift without signal", lambda: COSINE.drift(1.0), ValueError, ["drift of CosineVP", "t = 1"]),
    ("g^2 of clean data", lambda: VP.diffusion2(0.0), ValueError, ["g^2", "t = 0"]),
    ("rates of a root", lambda: VP.rates(0.0), ValueError, ["infinite", "t = 0"]),
    ("a log-SNR out of range", lambda: VP.time(-50.0), ValueError, ["-10.05", "-50", "wider range"]),
    ("a log-SNR that is NaN", lambda: VP.time(nan), ValueError, ["takes log-SNRs from", "nan"]),
    ("a transition backward", lambda: VP.transition(0.6, 0.5), ValueError, ["s to a later t", "smaller"]),
    ("a posterior from t to t", lambda: VP.posterior(0.5, 0.5), ValueError, ["s to a later t"]),
    ("s and t of different shapes", lambda: VP.transition(f64([0.1, 0.2]), f64([0.3, 0.4, 0.5])), ValueError, ["one shape (B,)", "(2,)", "(3,)"]),
    ("noise from a seed", lambda: VP.noise((2,), 0), ValueError, ["torch.Generator", "int 0", "manual_seed"]),
    ("noise of integers", lambda: VP.noise((2,), dtype=torch.int64), ValueError, ["floating dtype", "torch.int64"]),
    ("noise of a negative size", lambda: VP.noise((-1, 2)), ValueError, ["sizes of at least 0", "(-1, 2)"]),
    ("noise at a time outside", lambda: VP.noise((2,), t=2.0), ValueError, ["[0, 1]", "2"]),
    ("a coefficient too many", lambda: per_sample(torch.ones(3), X), ValueError, ["one coefficient a sample", "(3,)", "(4, 2)"]),
    ("betas in the wrong order", lambda: LinearVP(20.0, 0.1), ValueError, ["beta_min <= beta_max", "20.0 and 0.1"]),
    ("a beta of NaN", lambda: LinearVP(nan, 1.0), ValueError, ["beta_min", "nan"]),
    ("an offset of 0", lambda: CosineVP(0), ValueError, ["offset s", "0.008"]),
    ("a sigmoid backward", lambda: SigmoidVP(3, -3), ValueError, ["start < end", "3"]),
    ("a ladder downward", lambda: GeometricVE(50.0, 0.01), ValueError, ["sigma_min < sigma_max", "50.0 and 0.01"]),
    ("no noise at all", lambda: EDM(0.0), ValueError, ["sigma_max must be positive", "80"]),
    ("a number for betas", lambda: DDPM(1000), ValueError, ["sequence of N variances", "linear_betas(1000)", "()"]),
    ("a name for betas", lambda: DDPM("linear"), TypeError, ["'linear'"]),
    ("percentages for betas", lambda: DDPM([1.0, 2.0]), ValueError, ["inside (0, 1)", "1 to 2", "not products or percentages"]),
    ("products for betas", lambda: DDPM([0.99, 0.9, 0.5]), ValueError, ["alphas_cumprod", "0.99 to 0.5", "1 - alphas_cumprod[i]"]),
    ("betas that leave (0, 1)", lambda: linear_betas(10), ValueError, ["leave (0, 1)", "more than 20 steps"]),
    ("no steps", lambda: linear_betas(0), ValueError, ["positive integer", "0"]),
    ("a half step", lambda: cosine_betas(10.5), ValueError, ["positive integer", "10.5"]),
    ("a truth for a number", lambda: scaled_linear_betas(True), ValueError, ["positive integer", "True"]),
    ("a largest beta of 1", lambda: cosine_betas(10, largest=1), ValueError, ["largest beta", "inside (0, 1)", "1"]),
    ("a learned path that rises", lambda: Learned(lambda t: t), ValueError, ["decrease", "MonotoneLogSNR"]),
    ("a learned path of one number", lambda: Learned(lambda t: f64([1.0])), ValueError, ["shape of t", "(1,)", "(257,)"]),
    ("a learned path of no function", lambda: Learned(3), ValueError, ["net must be a callable", "int 3"]),
    ("log-SNR ends swapped", lambda: MonotoneLogSNR(13.0, -5.0), ValueError, ["lowest < highest", "13.0"]),
    ("a log-SNR without end", lambda: MonotoneLogSNR(-inf, 5.0), ValueError, ["finite lowest < highest", "-inf"]),
    ("a shift of 0", lambda: Shifted(VP, 0), ValueError, ["shift must be positive", "0"]),
    ("a shift of a name", lambda: Shifted("cosine", 2.0), ValueError, ["must be a Schedule", "'cosine'"]),
    ("a shift that says nothing", lambda: Shifted(SubVP(), 2.0), ValueError, ["SubVP keeps neither", "variance-preserving"]),
    ("zero terminal SNR of EDM", lambda: ZeroTerminalSNR(EDM()), ValueError, ["variance-preserving", "EDM"]),
]

GRIDS = [
    ("no times", lambda: uniform(0), ValueError, ["number of steps", "0"]),
    ("times by halves", lambda: uniform(2.5), ValueError, ["positive integer", "2.5"]),
    ("times by name", lambda: karras_grid(EDM(), "10"), ValueError, ["positive integer", "'10'"]),
    ("a true number of times", lambda: log_snr_grid(VP, True), ValueError, ["positive integer", "True"]),
    ("arguments swapped", lambda: log_snr_grid(5, VP), ValueError, ["must be a Schedule", "int 5"]),
    ("a class for a path", lambda: log_snr_grid(LinearVP, 5), ValueError, ["must be a Schedule", "class LinearVP", "call it"]),
    ("lo above hi", lambda: log_snr_grid(VP, 5, 3.0, -3.0), ValueError, ["lo < hi", "3.0 and -3.0"]),
    ("a log-SNR never reached", lambda: log_snr_grid(VP, 5, -40.0), ValueError, ["LinearVP takes log-SNRs", "-40"]),
    ("noise levels swapped", lambda: karras_grid(EDM(), 5, 80.0, 0.002), ValueError, ["sigma_min < sigma_max", "80.0, 0.002"]),
    ("a noise level without end", lambda: karras_grid(EDM(), 5, 0.1, inf), ValueError, ["sigma_min < sigma_max", "inf"]),
    ("rho of 0", lambda: karras_grid(EDM(), 5, rho=0), ValueError, ["rho > 0", "0"]),
    ("a knee of 0", lambda: asinh_grid(EDM(), 5, knee=0), ValueError, ["knee > 0"]),
]

SAMPLERS = [
    ("a grid that rises", sampled(ddim, times=GRID.flip(0)), ValueError, ["strictly decreasing", "uniform(50)"]),
    ("a number for a grid", sampled(ancestral, times=50), ValueError, ["grid of at least two", "uniform(50)"]),
    ("a name for a grid", sampled(heun, times="karras"), TypeError, ["number or a tensor", "'karras'"]),
    ("a grid with a NaN", sampled(dpmpp_2m, times=f64([1.0, nan, 0.0])), ValueError, ["strictly decreasing"]),
    ("a grid of indices", sampled(ddim, times=f64([999.0, 500.0, 0.0])), ValueError, ["[0, 1]", "999", "i / N"]),
    ("a grid of one time", sampled(unipc, times=f64([1.0])), ValueError, ["at least two"]),
    ("a start of numpy", sampled(euler_maruyama, x=X.numpy()), ValueError, ["floating tensor", "schedule.noise"]),
    ("a start of integers", sampled(heun, x=X.long()), ValueError, ["floating tensor of shape (B, *D)"]),
    ("a start of another dimension", sampled(ddim, x=X[:, :1]), ValueError, ["(B, 2)", "(4, 1)"]),
    ("another path", sampled(ddim, schedule=COSINE), ValueError, ["another path (LinearVP)", "CosineVP", "transport"]),
    ("no path", sampled(ddim, denoise=lambda x, t: x, schedule=None), ValueError, ["must be a Schedule", "None"]),
    ("path and denoiser swapped", sampled(ddim, denoise=VP, schedule=EXACT), ValueError, ["must be a Schedule", "ExactDenoiser"]),
    ("no denoiser", sampled(dpmpp_2m, denoise=None), ValueError, ["denoiser must be a callable", "None"]),
    ("a network for a denoiser", sampled(ddim, denoise=NET), ValueError, ["shape (B,)", "of shape ()", "Denoiser(net, schedule, target)"]),
    ("a denoiser's class", sampled(ddim, denoise=MLP), ValueError, ["callable", "class MLP", "call it"]),
    ("an image of another shape", sampled(heun, denoise=lambda x, t: x[:, :1]), ValueError, ["shape of x, (4, 2)", "(4, 1)"]),
    ("an image for all", sampled(ddim_inversion, denoise=lambda x, t: x.mean()), ValueError, ["shape of x, (4, 2)", "()"]),
    ("an image of numpy", sampled(exponential_multistep, denoise=lambda x, t: x.numpy()), ValueError, ["a tensor of the shape of x", "ndarray"]),
    ("a pair for an image", sampled(annealed_langevin, denoise=lambda x, t: (x, x)), ValueError, ["a tensor of the shape of x", "tuple"]),
    ("eta above 1", sampled(ddim, eta=2.0), ValueError, ["eta must lie in [0, 1]", "2.0"]),
    ("eta of NaN", sampled(ddim, eta=nan), ValueError, ["eta must lie in [0, 1]", "nan"]),
    ("a seed for a generator", sampled(ancestral, generator=0), ValueError, ["torch.Generator", "int 0", "manual_seed"]),
    ("a name for a variance", sampled(ancestral, variance="fixed_small"), ValueError, ["variance must be a callable", "'fixed_small'", "posterior_variance"]),
    ("a number for a variance", sampled(ancestral, variance=0.1), ValueError, ["variance must be a callable", "float 0.1"]),
    ("a variance of another grid", sampled(ancestral, times=uniform(7), variance=analytic_variance(EXACT, VP, X, GRID)), ValueError, ["steps of one grid", "analytic_variance again"]),
    ("negative noise", sampled(euler_maruyama, noise=-1.0), ValueError, ["at least 0", "-1.0"]),
    ("an SDE from no signal", sampled(euler_maruyama, denoise=COSINE_EXACT, schedule=COSINE, times=uniform(5)), ValueError, ["no signal at t = 1", "schedule.time(-10.0)"]),
    ("an unknown predictor", sampled(predictor_corrector, predictor="euler"), ValueError, ["'reverse_diffusion' or 'ancestral'", "'euler'"]),
    ("corrections of -1", sampled(predictor_corrector, corrections=-1), ValueError, ["corrections", "-1"]),
    ("snr of 0", sampled(predictor_corrector, snr=0.0), ValueError, ["snr", "must be positive and finite", "0.0"]),
    ("negative churn", sampled(churned_heun, s_churn=-1.0), ValueError, ["s_churn >= 0", "-1.0"]),
    ("churn above the path", sampled(churned_heun, times=uniform(5), s_tmax=1e9), ValueError, ["never reaches", "s_tmax below"]),
    ("order 9", sampled(exponential_multistep, order=9), ValueError, ["1 to 4", "9"]),
    ("a true order", sampled(unipc, order=True), ValueError, ["1 to 4", "True"]),
    ("a corrector of 7", sampled(unipc, corrector=7), ValueError, ["1 to 5", "7"]),
    ("a step of 5 levels", sampled(annealed_langevin, step=5.0), ValueError, ["(0, 4)", "5.0", "diverges"]),
    ("no steps a level", sampled(annealed_langevin, n=0), ValueError, ["positive integer", "0"]),
    ("a ladder that narrows", lambda: annealed_variance(0.5, 0.1, 2), ValueError, ["at least 1", "0.5"]),
    ("a ladder of equal rungs", lambda: annealed_step(1.0, 2), ValueError, ["larger than 1", "1.0"]),
    ("an overlap of 2", lambda: ladder_ratio(100, 2.0), ValueError, ["(0, 0.99]", "2.0"]),
    ("a plane's ladder", lambda: ladder_ratio(2), ValueError, ["in 2 dimensions", "by hand"]),
    ("the last of a tensor", lambda: last(X), ValueError, ["states that a sampler yields", "(4, 2)"]),
    ("the last of nothing", lambda: last([]), ValueError, ["yielded no state"]),
    ("the forward SDE backward", lambda: last(forward_euler_maruyama(VP, X, GRID)), ValueError, ["strictly increasing", "linspace"]),
    ("the forward SDE of no path", lambda: last(forward_euler_maruyama(None, X, f64([0.1, 1.0]))), ValueError, ["must be a Schedule", "None"]),
    ("Langevin by 0", lambda: last(langevin(WORLD.score, X, 0.0, 5)), ValueError, ["step must be positive", "0.0"]),
    ("Langevin 5.5 times", lambda: last(langevin(WORLD.score, X, 0.1, 5.5)), ValueError, ["positive integer", "5.5"]),
    ("a log-density for a score", lambda: last(langevin(WORLD.log_prob, X, 0.1, 5)), ValueError, ["shape of x, (4, 2)", "(4,)"]),
    ("no score", lambda: last(langevin(None, X, 0.1, 5)), ValueError, ["score must be a callable", "None"]),
    ("a score for a log-density", lambda: last(mala(WORLD.score, X, 0.1, 5)), ValueError, ["one finite number for each start", "(4,)", "(4, 2)"]),
    ("a start of no density", lambda: last(mala(lambda x: torch.full((4,), -inf), X, 0.1, 5)), ValueError, ["finite", "density is not 0"]),
]

DENOISERS = [
    ("no standard deviation", lambda: Denoiser(NET, VP, targets.v, 0.0), ValueError, ["sigma_data", "0.0"]),
    ("an infinite standard deviation", lambda: Denoiser(NET, VP, targets.v, inf), ValueError, ["sigma_data", "finite", "inf"]),
    ("a name for a path", lambda: Denoiser(NET, "linear", targets.v), ValueError, ["must be a Schedule", "'linear'"]),
    ("a name for a target", lambda: Denoiser(NET, VP, "eps"), ValueError, ["target must be a callable", "'eps'", "targets.x0"]),
    ("the module for a target", lambda: Denoiser(NET, VP, targets), ValueError, ["target must be a callable", "module"]),
    ("edm not called", lambda: Denoiser(NET, VP, targets.edm), ValueError, ["targets.edm(sigma_data)", "targets.edm(0.5)"]),
    ("a network's class", lambda: Denoiser(MLP, VP, targets.v), ValueError, ["net must be a callable", "class MLP", "call it"]),
    ("no network", lambda: Denoiser(None, VP, targets.v), ValueError, ["net must be a callable", "None"]),
    ("network and path swapped", lambda: Denoiser(VP, NET, targets.v), ValueError, ["must be a Schedule", "MLP"]),
    ("two standard deviations", lambda: Denoiser(NET, EDM(), targets.edm(0.5)), ValueError, ["sigma_data = 0.5", "1.0", "both"]),
    ("x of numpy", lambda: DENOISER(X.numpy(), 0.5), ValueError, ["floating tensor", "ndarray"]),
    ("x of integers", lambda: DENOISER(X.long(), 0.5), ValueError, ["floating tensor", "torch.int64"]),
    ("x of one sample", lambda: DENOISER(X[0], 0.5), ValueError, ["(B, 2)", "(2,)"]),
    ("x and t swapped", lambda: DENOISER(0.5, X), ValueError, ["scalar or of shape (B,)", "(4, 2)"]),
    ("times too few", lambda: DENOISER(X, HALF[:3]), ValueError, ["one coefficient a sample", "(3,)"]),
    ("a DDPM index", lambda: DENOISER(X, 500), ValueError, ["[0, 1]", "500"]),
    ("an answer too narrow", lambda: Denoiser(Answers(lambda x: x[:, :1]), VP, targets.v)(X, 0.5), ValueError, ["Answers must return", "(4, 2)", "(4, 1)"]),
    ("an answer too wide", lambda: Denoiser(Answers(lambda x: x.repeat(1, 2)), VP, targets.v)(X, 0.5), ValueError, ["(4, 4)", "learned_variance = True"]),
    ("an answer of two", lambda: Denoiser(Answers(lambda x: (x, x)), VP, targets.v)(X, 0.5), ValueError, ["tensor of shape (4, 2)", "tuple"]),
    ("no variance", lambda: DENOISER.predict_with_variance(X, 0.5), ValueError, ["MLP has no output for the variance", "learned_variance=True"]),
    ("a learned variance of none", lambda: LearnedVariance(DENOISER), ValueError, ["no output for the variance", "posterior_variance"]),
    ("a learned variance of a mixture", lambda: LearnedVariance(EXACT), ValueError, ["Denoiser's network", "ExactDenoiser"]),
    ("a learned variance elsewhere", lambda: LearnedVariance(LEARNED)(COSINE, X, f64(0.1), f64(0.2)), ValueError, ["another path (LinearVP)", "CosineVP"]),
    ("an analytic variance of numpy", lambda: analytic_variance(EXACT, VP, X.numpy(), GRID), ValueError, ["floating tensor of data"]),
    ("noise from no signal", lambda: Denoiser(NET, COSINE, targets.eps)(X, 1.0), ValueError, ["alpha = 0", "predict x0, v"]),
    ("a score of clean data", lambda: targets.score(VP, 0.0), ValueError, ["sigma = 0", "t above 0"]),
    ("a velocity of a root", lambda: targets.velocity(VP, 0.0), ValueError, ["infinite", "t = 0"]),
    ("EDM of no data", lambda: targets.edm(-1.0), ValueError, ["sigma_data", "-1.0"]),
    ("clipped upside down", lambda: clipped(EXACT, 1.0, -1.0), ValueError, ["low < high", "1.0 and -1.0"]),
    ("nothing clipped", lambda: clipped(None), ValueError, ["denoiser must be a callable", "None"]),
    ("carried from elsewhere", lambda: transport(EXACT, COSINE, VP), ValueError, ["another path (LinearVP)", "transport"]),
    ("carried to a name", lambda: transport(EXACT, VP, "cosine"), ValueError, ["must be a Schedule", "'cosine'"]),
    ("the score at 0", lambda: score_at(EXACT, VP, 0.0), ValueError, ["sigma = 0", "later time"]),
    ("the score of another path", lambda: score_at(EXACT, COSINE, 0.5), ValueError, ["another path (LinearVP)", "CosineVP"]),
]

LOSSES = [
    ("a network's loss", lambda: denoising_loss(NET, X, 0.5), ValueError, ["must be a Denoiser", "MLP", "Denoiser(net, schedule, target)"]),
    ("x0 of numpy", lambda: denoising_loss(DENOISER, X.numpy(), 0.5), ValueError, ["x0 must be a floating tensor", "ndarray"]),
    ("x0 of integers", lambda: denoising_loss(DENOISER, X.long(), 0.5), ValueError, ["floating tensor", "torch.int64"]),
    ("no sample", lambda: denoising_loss(DENOISER, X[:0], 0.5), ValueError, ["at least one sample", "(0, 2)"]),
    ("times for others", lambda: denoising_loss(DENOISER, X, HALF[:3]), ValueError, ["one coefficient a sample", "(3,)"]),
    ("a name for a weight", lambda: denoising_loss(DENOISER, X, 0.5, "snr"), ValueError, ["weight must be a callable", "'snr'", "losses.snr"]),
    ("a seed", lambda: denoising_loss(DENOISER, X, 0.5, generator=3), ValueError, ["torch.Generator", "int 3"]),
    ("a label without classes", lambda: denoising_loss(DENOISER, X, 0.5, label=torch.zeros(4).long()), ValueError, ["without classes", "num_classes="]),
    ("min-SNR of 0", lambda: losses.min_snr(0.0), ValueError, ["0.0"]),
    ("no discrete times", lambda: discrete_times(0), ValueError, ["positive integer", "0"]),
    ("times without spread", lambda: lognormal_times(0.0, 0.0), ValueError, ["std must be positive", "1.2"]),
    ("-1 times", lambda: uniform_times(VP, -1), ValueError, ["positive integer", "-1"]),
    ("path and number swapped", lambda: uniform_times(4, VP), ValueError, ["positive integer", "LinearVP"]),
    ("a bound of one step", lambda: hybrid_loss(1), ValueError, ["steps must be", "at least 2", "1"]),
    ("a bound off the knots", lambda: hybrid_loss(10)(LEARNED, X, torch.full((4,), 0.55)), ValueError, ["i / 10", "discrete_times(10)"]),
    ("a bound without variance", lambda: hybrid_loss(10)(DENOISER, X, HALF), ValueError, ["no output for the variance"]),
    ("a history of 0", lambda: LossSecondMoment(5, 0), ValueError, ["history must be a positive integer", "0"]),
    ("a loss of NaN remembered", lambda: LossSecondMoment(5).update(f64([0.2]), f64([nan])), ValueError, ["one finite loss", "(1,)"]),
]

LIKELIHOODS = [
    ("a bound that ends early", lambda: vlb(EXACT, VP, X, GRID[:-1]), ValueError, ["ends at 0", "uniform(50)"]),
    ("a bound of gray values", lambda: vlb(EXACT, VP, X, uniform(5)), ValueError, ["2k / 255", "levels=None"]),
    ("one gray value", lambda: discretized_log_prob(X, X, 1.0, 1), ValueError, ["at least 2", "1"]),
    ("a bound of no draws", lambda: vlb(EXACT, VP, X, uniform(5), levels=None, samples=0), ValueError, ["samples", "positive integer", "0"]),
    ("a bound of numpy", lambda: vlb(EXACT, VP, X.numpy(), uniform(5)), ValueError, ["floating", "ndarray"]),
    ("a bound with a number", lambda: vlb(EXACT, VP, X, uniform(5), 0.1, None), ValueError, ["variance must be a callable", "float 0.1"]),
    ("a deterministic bound", lambda: vlb(EXACT, VP, X, uniform(5), lambda *a: f64(0.0), None), ValueError, ["not positive", "posterior_variance"]),
    ("a limit at clean data", lambda: continuous_vlb(EXACT, VP, X, 0.0), ValueError, ["t_min = 0.0", "schedule.time(12.0)"]),
    ("a flow from clean data", lambda: ode_log_likelihood(EXACT, VP, X, 0.0), ValueError, ["no noise at t_min = 0.0", "schedule.time(8.0)"]),
    ("a flow to no signal", lambda: ode_log_likelihood(COSINE_EXACT, COSINE, X, 0.1), ValueError, ["no signal at t_max = 1.0", "schedule.time(-10.0)"]),
    ("a flow backward", lambda: ode_log_likelihood(EXACT, VP, X, 0.5, 0.4), ValueError, ["t_min < t_max", "0.5"]),
    ("an unknown trace", lambda: ode_log_likelihood(EXACT, VP, X, 0.1, trace="full"), ValueError, ['"exact"', "'full'"]),
    ("no tolerance", lambda: ode_encode(EXACT, VP, X, 0.1, atol=0.0), ValueError, ["atol > 0", "0.0"]),
    ("a code beyond t = 1", lambda: ode_decode(EXACT, VP, X, 0.1, 2.0), ValueError, ["t_max <= 1", "2.0"]),
    ("no dimensions", lambda: bits_per_dim(1.0, 0), ValueError, ["dims", "positive integer", "0"]),
    ("half a dimension", lambda: bits_per_dim(1.0, 2.5), ValueError, ["dims", "positive integer", "2.5"]),
    ("one value's error", lambda: mean_and_stderr(torch.ones(1)), ValueError, ["at least two values", "(1,)"]),
    ("no width", lambda: discretized_log_prob(X, X, 0.0, None), ValueError, ["std must be positive"]),
    ("a mean of another shape", lambda: discretized_log_prob(X, X[:, :1], 1.0, None), ValueError, ["one shape", "(4, 2)", "(4, 1)"]),
    ("a KL of no width", lambda: gaussian_kl(X, 0.0, X, 1.0), ValueError, ["variances must be positive"]),
    ("a KL from a negative width", lambda: gaussian_kl(X, 1.0, X, -1.0), ValueError, ["variances must be positive"]),
    ("a KL of two shapes", lambda: gaussian_kl(X, 1.0, X[:, :1], 1.0), ValueError, ["one shape", "(4, 1)"]),
]

ORACLES = [
    ("a mixture without width", lambda: GaussianMixture([[0.0, 0.0]], 0.0), ValueError, ["positive definite", "Empirical"]),
    ("a mixture of no means", lambda: GaussianMixture(torch.empty(0, 2), 1.0), ValueError, ["(K, *D)", "none"]),
    ("one number for means", lambda: GaussianMixture(1.0, 1.0), ValueError, ["(K, *D)", "[mean]"]),
    ("a mean of NaN", lambda: GaussianMixture([nan], 1.0), ValueError, ["means must be finite"]),
    ("an asymmetric covariance", lambda: Gaussian([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), ValueError, ["symmetric", "(C + C.mT) / 2"]),
    ("a covariance of another size", lambda: GaussianMixture([[0.0, 0.0]], [1.0, 2.0, 3.0]), ValueError, ["covariances must be", "(3,)"]),
    ("a negative weight", lambda: GaussianMixture([0.0, 1.0], 1.0, [1.0, -1.0]), ValueError, ["2 positive numbers", "-1.0"]),
    ("-1 draws", lambda: WORLD.sample(-1), ValueError, ["positive integer", "-1"]),
    ("half a draw", lambda: Empirical(X).sample(2.5), ValueError, ["positive integer", "2.5"]),
    ("draws from a seed", lambda: WORLD.sample(2, 7), ValueError, ["torch.Generator", "int 7"]),
    ("a point for a batch", lambda: WORLD.log_prob(X[0]), ValueError, ["(B, 2)", "(2,)"]),
    ("points of numpy", lambda: WORLD.log_prob(X.numpy()), ValueError, ["floating tensor", "ndarray"]),
    ("points of integers", lambda: WORLD.score(X.long()), ValueError, ["floating tensor", "torch.int64"]),
    ("a denoiser of a name", lambda: WORLD.denoiser("linear"), ValueError, ["must be a Schedule", "'linear'"]),
    ("no data", lambda: Empirical(X[:0]), ValueError, ["N > 0", "(0, 2)"]),
    ("data with a NaN", lambda: Empirical(X * nan), ValueError, ["data must be finite"]),
    ("the density of points", lambda: Empirical(X).log_prob(X), ValueError, ["no density at sigma = 0"]),
]

DERIVATIVES = [
    ("a field of another shape", lambda: jacobian(lambda x: x[:, :1], X), ValueError, ["shape of x, (4, 2)", "(4, 1)"]),
    ("a field without a path", lambda: jacobian(torch.zeros_like, X), ValueError, ["no differentiable path", "no_grad"]),
    ("no field", lambda: divergence(None, X), ValueError, ["field", "must be a callable", "None"]),
    ("x of numpy", lambda: divergence(WORLD.score, X.numpy()), ValueError, ["floating tensor", "ndarray"]),
    ("probes of another shape", lambda: hutchinson(WORLD.score, X, torch.ones(2, 2)), ValueError, ["(n, 4, 2)", "(2, 2)"]),
    ("no probes", lambda: draw_probes(X, 0), ValueError, ["positive integer", "0"]),
    ("an unknown kind of probe", lambda: hutchinson(WORLD.score, X, 1, "normal"), ValueError, ['"rademacher" or "gaussian"', "'normal'"]),
    ("probes from a seed", lambda: draw_probes(X, generator=5), ValueError, ["torch.Generator", "int 5"]),
    ("a score of a vector", lambda: score_of(WORLD.score)(X), ValueError, ["one number a sample", "(4,)"]),
    ("a score of nothing", lambda: score_of(None), ValueError, ["log_prob must be a callable", "None"]),
    ("a true score of another shape", lambda: explicit_score_matching(WORLD.score, X, WORLD.log_prob), ValueError, ["shape of x", "(4,)"]),
    ("implicit, of integers", lambda: implicit_score_matching(WORLD.score, X.long()), ValueError, ["floating tensor", "int64"]),
    ("sliced by 0 probes", lambda: sliced_score_matching(WORLD.score, X, 0), ValueError, ["positive integer", "0"]),
    ("denoising without noise", lambda: denoising_score_matching(WORLD.score, X, 0.0), ValueError, ["sigma must be positive"]),
]

METRICS = [
    ("samples of two dimensions", lambda: m.sliced_wasserstein(X, X[:, :1]), ValueError, ["same D", "(4, 1)"]),
    ("a sample of numpy", lambda: m.energy_distance(X.numpy(), X), ValueError, ["must be a tensor", "ndarray", "torch.as_tensor"]),
    ("a sample with NaN", lambda: m.mmd2(X * nan, X), ValueError, ["NaN or inf", "sampler"]),
    ("an empty sample", lambda: m.sliced_wasserstein(X[:0], X), ValueError, ["at least 1 points", "0 and 4"]),
    ("an order of 0", lambda: m.sliced_wasserstein(X, X, p=0), ValueError, ["at least 1", "p = 0"]),
    ("one point, many times", lambda: m.gaussian_kernel(torch.zeros(4, 2)), ValueError, ["median distance", "energy_kernel"]),
    ("no permutations", lambda: m.permutation_test(X, X, permutations=0), ValueError, ["at least 1", "0"]),
    ("covariances of two sizes", lambda: m.frechet_distance(X[0], torch.eye(3), X[0], torch.eye(2)), ValueError, ["(D, D)", "(3, 3)"]),
    ("an asymmetric covariance", lambda: m.frechet_distance(X[0], torch.tensor([[1.0, 0.9], [0.0, 1.0]]), X[0], torch.eye(2)), ValueError, ["symmetric", "(C + C.mT) / 2"]),
    ("a covariance of NaN", lambda: m.frechet_distance(X[0], nan * torch.eye(2), X[0], torch.eye(2)), ValueError, ["finite"]),
]

DATA = [
    ("an unknown set", lambda: images("cat"), ValueError, ["'cat'", "'digits'"]),
    ("an unknown split", lambda: images("digits", "validation"), ValueError, ["'validation'", "'train', 'test'"]),
    ("an unknown toy", lambda: toy("circle", 5), ValueError, ["'circle'", "'moons'"]),
    ("half a point", lambda: toy("moons", 2.5), ValueError, ["number of points", "2.5"]),
    ("-1 points", lambda: toy("moons", -1), ValueError, ["number of points", "-1"]),
    ("points from a seed", lambda: toy("moons", 5, 0), ValueError, ["torch.Generator", "int 0"]),
    ("travellers of a tuple", lambda: travellers((1, 28, 28)), ValueError, ["travellers(1, 28, 28)", "((1, 28, 28),)"]),
    ("an unknown network", lambda: pretrained("cats"), ValueError, ["'cats'", "'digits'"]),
]

MODELS = [
    ("odd features", lambda: MLP(2, features=3), ValueError, ["features even", "features=3"]),
    ("no classes at all", lambda: MLP(2, num_classes=0), ValueError, ["num_classes", "0", "None"]),
    ("points of another dimension", lambda: NET(X[:, :1], HALF), ValueError, ["(B, 2)", "(4, 1)"]),
    ("a condition of one number", lambda: NET(X, 0.5), ValueError, ["shape (B,)", "float", "Denoiser(net, schedule, target)"]),
    ("a label for no classes", lambda: NET(X, HALF, torch.zeros(4).long()), ValueError, ["without classes", "num_classes="]),
    ("a label of 7 of 3", lambda: LABELLED(X, HALF, torch.full((4,), 7)), ValueError, ["0..3", "7..7"]),
    ("a label of -1", lambda: LABELLED(X, HALF, torch.full((4,), -1)), ValueError, ["0..3", "-1..-1"]),
    ("a label of floats", lambda: LABELLED(X, HALF, torch.zeros(4)), ValueError, ["int64", "torch.float32"]),
    ("a label of one number", lambda: LABELLED(X, HALF, 1), ValueError, ["int64 tensor of shape (4,)", "int"]),
    ("labels too few", lambda: LABELLED(X, HALF, torch.zeros(3).long()), ValueError, ["shape (4,)", "(3,)"]),
    ("a width of 30", lambda: UNet(width=30), ValueError, ["multiple of 8", "width=30"]),
    ("three heads", lambda: UNet(heads=3), ValueError, ["heads=3", "0 for no attention"]),
    ("an odd image", lambda: UNet(width=8, heads=0)(torch.zeros(2, 1, 27, 27), HALF[:2]), ValueError, ["multiples of 2", "(2, 1, 27, 27)"]),
    ("colors for gray", lambda: pretrained("digits")(torch.zeros(1, 3, 28, 28), 0.5), ValueError, ["(B, 1, H, W)", "(1, 3, 28, 28)"]),
    ("a classifier of colors", lambda: Classifier()(torch.zeros(1, 3, 28, 28)), ValueError, ["(N, 1, 28, 28)", "(1, 3, 28, 28)"]),
    ("an autoencoder of nothing", lambda: VAE(0), ValueError, ["0"]),
]

TRAINING = [
    ("no steps", trained(steps=0), ValueError, ["positive", "steps=0"]),
    ("half a step", trained(steps=1.5), ValueError, ["positive integer", "steps=1.5"]),
    ("a rate of -1", trained(lr=-1.0), ValueError, ["lr", "-1.0"]),
    ("a rate of NaN", trained(lr=nan), ValueError, ["lr", "nan"]),
    ("an average that never moves", trained(ema=1.0), ValueError, ["ema=1.0", "[0, 1)"]),
    ("half precision by another name", trained(precision="fp16"), ValueError, ["'fp16'", "'bf16'"]),
    ("a network for a denoiser", trained(NET), ValueError, ["expected a Denoiser", "MLP"]),
    ("a mixture for a denoiser", trained(EXACT), ValueError, ["expected a Denoiser", "ExactDenoiser"]),
    ("a frozen denoiser", trained(pretrained("digits"), GRAY), ValueError, ["requires_grad_(True)"]),
    ("data of numpy", trained(data=X.numpy()), ValueError, ["tensor x0", "ndarray"]),
    ("data and bare labels", trained(data=(X, torch.zeros(4).long())), ValueError, ["'label': labels", "(Tensor, Tensor)"]),
    ("data of bytes", trained(data=X.to(torch.uint8)), ValueError, ["torch.uint8", "[-1, 1]"]),
    ("data in double precision", trained(data=X.double()), ValueError, ["torch.float64", "torch.float32"]),
    ("data whose squares overflow", trained(data=torch.full_like(X, 1e30)), ValueError, ["root mean square of 1e+30", "sigma_data=1e+30"]),
    ("data from 0 to 255", trained(data=255 * X.abs()), ValueError, ["root mean square of", "x / 127.5 - 1", "sigma_data="]),
    ("data with NaN", trained(data=X * nan), ValueError, ["4 of 4 samples", "NaN"]),
    ("no data", trained(data=X[:0]), ValueError, ["at least one sample", "(0, 2)"]),
    ("labels too few", trained(data=(X, {"label": torch.zeros(3).long()})), ValueError, ["3 values of 'label'", "4 samples"]),
    ("labels out of range", trained(Denoiser(LABELLED, VP, targets.v), (X, {"label": torch.full((4,), 7)})), ValueError, ["0..2", "7..7"]),
    ("dropout without labels", trained(label_dropout=0.5), ValueError, ["label_dropout=0.5", "needs labels"]),
    ("a name for a weight", trained(weight="snr"), ValueError, ["weight must be a callable", "'snr'"]),
    ("a name for times", trained(times="uniform"), ValueError, ["times must be a callable", "'uniform'"]),
    ("a name for a loss", trained(loss="mse"), ValueError, ["loss must be a callable", "'mse'"]),
    ("a seed", trained(generator=0), ValueError, ["torch.Generator", "int 0"]),
]

CHECKS = [
    ("no tolerance", lambda: check("claim", 1.0, 1.0), ValueError, ["'claim'", "atol or rtol"]),
    ("two kinds of tolerance", lambda: check("claim", 1.0, 1.0, atol=1.0, stderr=1.0), ValueError, ["either stderr or atol", "not both"]),
    ("nothing to check", lambda: check("claim", [], 1.0, atol=1.0), ValueError, ["`got` is empty", "could not fail"]),
    ("two shapes that make a third", lambda: check("claim", np.ones((3, 1)), np.ones((1, 3)), atol=1.0), ValueError, ["(3, 1)", "(1, 3)", "reshape"]),
    ("two shapes that do not meet", lambda: check("claim", np.ones(3), np.ones(2), atol=1.0), ValueError, ["'claim'", "(3,)", "(2,)", "reshape"]),
    ("an error of 0", lambda: check("claim", 1.0, 1.0, stderr=0.0), ValueError, ["stderr must be positive", "0.0"]),
    ("a bound of infinity", lambda: check_below("claim", 1.0, inf), ValueError, ["infinity cannot fail", "finite"]),
    ("a false claim", lambda: check("claim", 1.0, 2.0, atol=0.1), AssertionError, ["got", "want", "1.000e-01 is allowed"]),
    ("a NaN", lambda: check_below("claim", nan, 2.0), AssertionError, ["nan", "not below"]),
    ("a curve backward", lambda: plots.density_1d(two_peaks().log_prob, 3.0, -3.0), ValueError, ["low < high", "3.0"]),
    ("a density of another shape", lambda: plots.density_1d(lambda x: x[:3]), ValueError, ["log_prob returned shape (3,)", "(601,)"]),
    ("a histogram of NaN", lambda: plots.histogram([nan]), ValueError, ["NaN or inf", "samples"]),
    ("a field of no points", lambda: plots.density_2d(WORLD.log_prob, points=0), ValueError, ["at least 2", "0"]),
    ("two-colored images", lambda: plots.image_grid(torch.zeros(2, 2, 4, 4)), ValueError, ["(B, 1, H, W)", "(2, 2, 4, 4)"]),
    ("titles too many", lambda: plots.image_grid(torch.zeros(2, 1, 4, 4), row_titles=["a", "b", "c"]), ValueError, ["3 row_titles", "expected 1"]),
    ("no columns", lambda: plots.image_grid(torch.zeros(2, 1, 4, 4), columns=0), ValueError, ["columns must be a positive integer", "0"]),
    ("a column and a half", lambda: plots.tile(torch.zeros(2, 1, 4, 4), 1.5), ValueError, ["columns must be a positive integer", "1.5"]),
    ("a negative gap", lambda: plots.tile(torch.zeros(2, 1, 4, 4), gap=-1), ValueError, ["gap = -1", "at least 0"]),
    ("points in space", lambda: plots.points_2d(torch.zeros(3, 3)), ValueError, ["(n, 2)", "(3, 3)"]),
    ("no frames", lambda: plots.animate([], alt="nothing"), ValueError, ["no frames", "at least one"]),
    ("no alt text", lambda: plots.animate([PICTURE], alt=" "), ValueError, ["alt is ' '", "words"]),
    ("labels too few", lambda: plots.scrub([PICTURE] * 2, ["a"], alt="a picture"), ValueError, ["2 frames and 1 labels", "one label for each"]),
]

TABLE = {
    f"{room}: {row[0]}": row[1:]
    for room, rows in {
        "schedules": SCHEDULES, "grids": GRIDS, "samplers": SAMPLERS, "denoisers": DENOISERS, "losses": LOSSES, "likelihoods": LIKELIHOODS, "oracles": ORACLES,
        "derivatives": DERIVATIVES, "metrics": METRICS, "data": DATA, "models": MODELS, "training": TRAINING, "checks and plots": CHECKS,
    }.items()
    for row in rows
}


@pytest.mark.parametrize("name", TABLE)
def test_bad_call(name):
    call, error, words = TABLE[name]
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error, f"{type(caught.value).__name__} is more special than the table says"
    missing = [word for word in words if word not in message]
    assert not missing, f"{message!r} does not say {missing}"
    assert len(message) >= 30 and len(re.findall(r"[A-Za-z]{2,}", message)) >= 3, f"{message!r} says too little"


def test_the_table_is_long_and_no_row_is_there_twice():
    rows = SCHEDULES + GRIDS + SAMPLERS + DENOISERS + LOSSES + LIKELIHOODS + ORACLES + DERIVATIVES + METRICS + DATA + MODELS + TRAINING + CHECKS
    assert len(TABLE) == len(rows) >= 60


def test_a_device_that_is_not_there(monkeypatch):
    with pytest.raises(ValueError, match="'gpu'.*use one of cpu"):
        wrong_device(monkeypatch)


def test_the_good_call_beside_each_kind_of_bad_one_passes():
    """The doors stop nothing that is meant: an empty batch through an exact world, a denoiser that is a function, a list for a grid, numpy for betas."""
    assert last(ddim(EXACT, VP, X[:0], GRID)).shape == (0, 2)
    assert last(ddim(lambda x, t: 0 * x, VP, X, [1.0, 0.5, 0.0])).abs().max() == 0
    assert DDPM(np.array([0.1, 0.2])).betas.tolist() == [0.1, 0.2] and DDPM([0.5, 0.4, 0.3]).betas[0] == 0.5
    assert mean_and_stderr([1.0, 2.0, 3.0])[0] == 2.0 and VP.noise(3).shape == (3,) and VP.noise((), generator(0)).shape == ()
    assert LABELLED(X, HALF, torch.tensor([0, 1, 2, 3], dtype=torch.int32)).shape == X.shape
    assert float(gaussian_kl(X, 1.0, X, 1.0).abs().max()) == 0
