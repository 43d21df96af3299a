r"""Schedules: functions `t -> (alpha, sigma)` of the Gaussian path $x_t=\alpha_tx_0+\sigma_t\epsilon$, and all that follows from them.

A schedule is the one argument that samplers, losses and likelihoods have in common.
"""

from diffusion_core.schedules.base import Posterior, Schedule, double, normal_like, per_sample
from diffusion_core.schedules.discrete import DDPM, cosine_betas, linear_betas, scaled_linear_betas
from diffusion_core.schedules.exploding import EDM, GeometricVE
from diffusion_core.schedules.learned import Learned, MonotoneLogSNR
from diffusion_core.schedules.preserving import CosineVP, LinearVP, SigmoidVP, SubVP
from diffusion_core.schedules.rescaled import Shifted, ZeroTerminalSNR
from diffusion_core.schedules.straight import Straight

__all__ = [
    "DDPM", "EDM", "CosineVP", "GeometricVE", "Learned", "LinearVP", "MonotoneLogSNR", "Posterior", "Schedule", "Shifted",
    "SigmoidVP", "Straight", "SubVP", "ZeroTerminalSNR", "cosine_betas", "double", "linear_betas", "normal_like", "per_sample", "scaled_linear_betas",
]
