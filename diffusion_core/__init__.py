"""diffusion_core: the code behind the book, one idea a file.

The Gaussian path (`schedules`), exact worlds (`oracles`), targets and denoisers, losses, samplers, models, training, data, metrics, plots,
and the executable proofs (`checks`). Importing it needs torch and numpy; `plots`, `fit` and `pretrained` ask for their extras when used.
"""

from diffusion_core import losses, samplers, schedules, targets
from diffusion_core.checks import check, check_below
from diffusion_core.data import images, toy, travellers
from diffusion_core.denoiser import Denoiser, clipped, score_at, transport
from diffusion_core.devices import by_device, device
from diffusion_core.importance import LossSecondMoment
from diffusion_core.jacobians import divergence, draw_probes, hutchinson, jacobian, score_of
from diffusion_core.likelihood import (
    ODELikelihood,
    bits_per_dim,
    continuous_vlb,
    discretized_log_prob,
    gaussian_kl,
    mean_and_stderr,
    ode_decode,
    ode_encode,
    ode_log_likelihood,
    vlb,
)
from diffusion_core.losses import denoising_loss, discrete_times, hybrid_loss, lognormal_times, uniform_times
from diffusion_core.models import MLP, VAE, DiT, UNet
from diffusion_core.oracles import Empirical, Gaussian, GaussianMixture, ring, two_peaks
from diffusion_core.pretrained import pretrained
from diffusion_core.samplers import (
    ancestral,
    annealed_langevin,
    annealed_step,
    annealed_variance,
    asinh_grid,
    churned_heun,
    ddim,
    ddim_inversion,
    dpmpp_2m,
    euler_maruyama,
    exponential_multistep,
    forward_euler_maruyama,
    heun,
    karras_grid,
    ladder_ratio,
    langevin,
    last,
    log_snr_grid,
    mala,
    predictor_corrector,
    spread,
    uniform,
    unipc,
)
from diffusion_core.schedules import (
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
    Straight,
    SubVP,
    ZeroTerminalSNR,
    cosine_betas,
    linear_betas,
    per_sample,
    scaled_linear_betas,
)
from diffusion_core.score_matching import (
    denoising_score_matching,
    explicit_score_matching,
    implicit_score_matching,
    sliced_score_matching,
    sliced_score_matching_vr,
)
from diffusion_core.training import fit, load_run
from diffusion_core.variance import LearnedVariance, analytic_variance, posterior_variance, transition_variance

__all__ = [
    "CosineVP", "DDPM", "Denoiser", "DiT", "EDM", "Empirical", "Gaussian", "GaussianMixture", "GeometricVE", "Learned", "LearnedVariance", "LinearVP",
    "LossSecondMoment", "MLP", "MonotoneLogSNR", "ODELikelihood", "Schedule", "Shifted", "SigmoidVP", "Straight", "SubVP", "UNet", "VAE", "ZeroTerminalSNR",
    "analytic_variance", "ancestral", "annealed_langevin", "annealed_step", "annealed_variance", "asinh_grid", "bits_per_dim", "by_device", "check",
    "check_below", "churned_heun", "clipped", "continuous_vlb", "cosine_betas", "ddim", "ddim_inversion", "denoising_loss", "denoising_score_matching",
    "device", "discrete_times", "discretized_log_prob", "divergence", "dpmpp_2m", "draw_probes", "euler_maruyama", "explicit_score_matching",
    "exponential_multistep", "fit", "forward_euler_maruyama", "gaussian_kl", "heun", "hutchinson", "hybrid_loss", "images", "implicit_score_matching",
    "jacobian", "karras_grid", "ladder_ratio", "langevin", "last", "linear_betas", "load_run", "log_snr_grid", "lognormal_times", "losses", "mala", "mean_and_stderr",
    "ode_decode", "ode_encode", "ode_log_likelihood", "per_sample", "posterior_variance", "predictor_corrector", "pretrained", "ring", "samplers",
    "scaled_linear_betas", "schedules", "score_at", "score_of", "sliced_score_matching", "sliced_score_matching_vr", "spread", "targets", "toy",
    "transition_variance", "transport", "travellers", "two_peaks", "uniform", "uniform_times", "unipc", "vlb",
]
