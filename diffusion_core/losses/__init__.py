r"""Losses: the denoising loss, its weights (`weights`), how times are drawn (`times`), and the loss that trains a variance too (`hybrid`)."""

from diffusion_core.losses.denoising import denoising_loss
from diffusion_core.losses.hybrid import hybrid_loss
from diffusion_core.losses.times import discrete_times, lognormal_times, uniform_times
from diffusion_core.losses.weights import edm_weight, min_snr, snr, truncated_snr, uniform, v_weight, vlb

__all__ = [
    "denoising_loss", "discrete_times", "edm_weight", "hybrid_loss", "lognormal_times", "min_snr", "snr", "truncated_snr", "uniform", "uniform_times",
    "v_weight", "vlb",
]
