r"""Samplers: generators that walk a grid of times from noise to data and yield each state, the start included.

A sampler takes `(denoise, schedule, x, times)`: a denoiser, its path, the start at times[0] (`schedule.noise(shape)` at t = 1,
`schedule.noise(shape, t=times[0])` where the grid starts later), and a decreasing grid. The last state is the sample: `last(ddim(...))`.
Its rules at the ends: a step to sigma = 0 returns the denoised image and nothing else; the denoiser is never called at sigma = 0; a path
with a floor, sigma(0) > 0, ends with one denoising step.

Steps are differentiable: when no gradient is wanted, sample under `torch.no_grad()` or from a denoiser whose weights ask for none, as those that
`fit` returns.

`langevin` and `mala` walk no grid: they take a score or a log-density, and n.
"""

from diffusion_core.samplers.annealing import annealed_langevin, annealed_step, annealed_variance, ladder_ratio
from diffusion_core.samplers.grids import asinh_grid, karras_grid, log_snr_grid, uniform
from diffusion_core.samplers.langevin import langevin, mala
from diffusion_core.samplers.solvers import dpmpp_2m, exponential_multistep, heun, unipc
from diffusion_core.samplers.spread import spread
from diffusion_core.samplers.stochastic import churned_heun, euler_maruyama, forward_euler_maruyama, predictor_corrector
from diffusion_core.samplers.walks import ancestral, ddim, ddim_inversion, last

__all__ = [
    "ancestral", "annealed_langevin", "annealed_step", "annealed_variance", "asinh_grid", "churned_heun", "ddim", "ddim_inversion", "dpmpp_2m", "euler_maruyama",
    "exponential_multistep", "forward_euler_maruyama", "heun", "karras_grid", "ladder_ratio", "langevin", "last", "log_snr_grid", "mala", "predictor_corrector",
    "spread", "uniform", "unipc",
]
