"""Grids of times: where a sampler stops on its way from noise to data. Chapter 08 compares the first two."""

import math

import torch
from torch import Tensor

from diffusion_core.denoiser import Denoise, answering, require_schedule
from diffusion_core.doors import require_count
from diffusion_core.schedules import Schedule, double
from diffusion_core.schedules.base import require_path


def uniform(n: int) -> Tensor:
    """(n + 1,) times 1, (n-1)/n, .., 1/n, 0. With `DDPM` of n betas, its knots.

    >>> from diffusion_core import uniform
    >>> uniform(4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    n = require_count(n, "the number of steps")
    return torch.arange(n, -1, -1, dtype=torch.float64) / n


def log_snr_grid(schedule: Schedule, n: int, lo: float | None = None, hi: float | None = None) -> Tensor:
    """(n + 1,) n times whose log-SNRs are evenly spaced from lo (noise) to hi (data), then 0 (once, where hi is the floor of the path).

    lo and hi default to the path's own ends where they are finite, else to -10 and 10. Raises ValueError for values that the path never takes.

    >>> from diffusion_core import LinearVP, log_snr_grid
    >>> schedule = LinearVP()
    >>> times = log_snr_grid(schedule, 5, lo=-9.0, hi=7.0)
    >>> [round(value, 3) for value in schedule.log_snr(times[:-1]).tolist()]
    [-9.0, -5.0, -1.0, 3.0, 7.0]
    >>> times[-1].item()
    0.0
    """
    require_path(schedule)
    low, high = schedule.log_snr_range()
    if lo is None:
        lo = low if math.isfinite(low) else -10.0
    if hi is None:
        hi = high if math.isfinite(high) else 10.0
    if not lo < hi:
        raise ValueError(f"need lo < hi (noise has the lower log-SNR), got {lo} and {hi}")
    return _then_zero(schedule.time(torch.linspace(lo, hi, require_count(n, "the number of steps"), dtype=torch.float64)))


def karras_grid(schedule: Schedule, n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    r"""(n + 1,) n times with $\sigma/\alpha=\big(\sigma_{max}^{1/\rho}+\frac i{n-1}(\sigma_{min}^{1/\rho}-\sigma_{max}^{1/\rho})\big)^\rho$, then 0. Karras et al. 2022, eq. 5.

    Raises ValueError for noise levels that the path never takes.

    >>> from diffusion_core import EDM, karras_grid
    >>> schedule = EDM()
    >>> times = karras_grid(schedule, 3, sigma_min=0.002, sigma_max=80.0)
    >>> [round(sigma, 3) for sigma in schedule(times)[1].tolist()]
    [80.0, 2.515, 0.002, 0.0]
    """
    require_path(schedule)
    if not (0 < sigma_min < sigma_max < math.inf and 0 < rho < math.inf):
        raise ValueError(f"need 0 < sigma_min < sigma_max and rho > 0, got {sigma_min}, {sigma_max}, {rho}")
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _then_zero(schedule.time(-2 * rho * torch.linspace(*ends, require_count(n, "the number of steps"), dtype=torch.float64).log()))


def asinh_grid(schedule: Schedule, n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, knee: float = 5.0) -> Tensor:
    r"""(n + 1,) n times evenly spaced in $\operatorname{asinh}(\mathtt{knee}\cdot\alpha/\sigma)$ between the two noise levels $\sigma/\alpha$, then 0.

    Well below the knee this is an even log-SNR; above it, where noise drowns the data and the denoised image hardly moves, the steps are even in $\alpha/\sigma$, which
    crosses that stretch in a few. knee: in units of the data's standard deviation, for data that have about 1. Ours, chosen on mixtures for `unipc` (see
    `benchmarks/solver_error.py`). Raises ValueError for noise levels that the path never takes.

    >>> import torch
    >>> from diffusion_core import EDM, asinh_grid
    >>> schedule = EDM()
    >>> sigma = schedule(asinh_grid(schedule, 5, knee=5.0)[:-1])[1]
    >>> [round(step, 3) for step in torch.asinh(5 / sigma).diff().tolist()]
    [2.114, 2.114, 2.114, 2.114]
    """
    require_path(schedule)
    if not (0 < sigma_min < sigma_max < math.inf and 0 < knee < math.inf):
        raise ValueError(f"need 0 < sigma_min < sigma_max and knee > 0, got {sigma_min}, {sigma_max}, {knee}")
    ends = math.asinh(knee / sigma_max), math.asinh(knee / sigma_min)
    level = torch.linspace(*ends, require_count(n, "the number of steps"), dtype=torch.float64).sinh() / knee
    return _then_zero(schedule.time(2 * level.log()))


def checked_grid(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor) -> tuple[Denoise, Tensor, Tensor, Tensor]:
    """The denoiser, held to the shape of x; the checked grid on the CPU in float64, with alpha and sigma of the path on it."""
    require_schedule(denoise, schedule)
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 1):
        raise ValueError("x, the start, must be a floating tensor of shape (B, *D); schedule.noise((B, *D)) makes one")
    times = double(times).detach().cpu()
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() < 0).all()):
        raise ValueError("times must be a grid of at least two strictly decreasing times, noise first, such as uniform(50) or karras_grid(schedule, 20)")
    with torch.no_grad():
        return answering(denoise), times, *schedule(times)


def require_signal(times: Tensor, alpha: Tensor) -> None:
    """For methods that work in x / alpha or with the score's SDE. Raises ValueError where alpha = 0 at the start of the grid."""
    if alpha[0] == 0:
        raise ValueError(f"there is no signal at t = {float(times[0]):g} (alpha = 0), so there is no scale x / alpha to work in; start the grid later, such as at schedule.time(-10.0), or take a first step with ddim")


def _then_zero(times: Tensor) -> Tensor:
    """Append 0, unless the grid ends there already: at the floor of a path, where one denoising step follows."""
    return times if times[-1] == 0 else torch.cat([times, times.new_zeros(1)])
