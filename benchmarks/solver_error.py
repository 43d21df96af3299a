r"""How far a sampler of few steps ends from the exact solution of the probability flow: ours beside diffusers', on mixtures whose denoiser is known.

Two worlds: eight Gaussians on a circle of radius 1.4 with standard deviation 0.1 in the plane, and ten Gaussians with random means and diagonal
variances (1e-3 to 0.5) in 64 dimensions. From noise 20 to noise 0.02 on the variance-exploding path, all methods from the same starts. The error is the root
mean square over samples and coordinates against DOP853 at a relative tolerance of 1e-10.

Every peer runs on eight grids of its own (even log-SNR, Karras with rho 3, 4, 5, 7, 10, the linear-beta DDPM's times, even angles), with and without its lower
orders at the end, and counts with the best of these, chosen after the fact for each cell. Ours is one method on one grid, fixed beforehand on eighteen other
mixtures (`--tuning` prints how): `unipc` of the order that it takes by itself, on `asinh_grid`. The lower lines are for comparison: our other solvers on the
same grid and on even log-SNRs (Heun with half as many steps, 4 calls in place of 5), and the peers on our grid.

    python benchmarks/solver_error.py [--samples 256] [--tuning]
"""

import argparse
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from diffusers import DEISMultistepScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler, LMSDiscreteScheduler, UniPCMultistepScheduler
from scipy.integrate import solve_ivp
from torch import Tensor

from diffusion_core import EDM, GaussianMixture, LinearVP, asinh_grid, ddim, dpmpp_2m, exponential_multistep, heun, last, unipc

HIGH, LOW = 20.0, 0.02
BUDGETS = (5, 10, 20, 50)
PATH = EDM(HIGH)


def circle() -> GaussianMixture:
    angle = torch.arange(8, dtype=torch.float64) * 2 * math.pi / 8
    return GaussianMixture(1.4 * torch.stack([angle.cos(), angle.sin()], 1), torch.full((8,), 0.01, dtype=torch.float64))


def scattered(dims: int, count: int, spread: float, widest: float, seed: int) -> GaussianMixture:
    g = torch.Generator().manual_seed(seed)
    means = spread * torch.randn(count, dims, generator=g, dtype=torch.float64)
    return GaussianMixture(means, widest * torch.rand(count, dims, generator=g, dtype=torch.float64) ** 4 + 1e-3)


WORLDS = {"2-D": circle, "64-D": lambda: scattered(64, 10, 0.5, 0.5, 3)}


def tuning_worlds() -> list[GaussianMixture]:
    """Eighteen other mixtures, in 2 to 128 dimensions, of 3 to 15 Gaussians, tighter and wider."""
    dims = (2, 2, 2, 3, 3, 8, 8, 16, 16, 24, 32, 32, 48, 64, 64, 100, 100, 128)
    return [scattered(d, 3 + 5 * k % 13, 0.4 + 0.1 * (k % 7), 0.05 * (1 + k % 10), 100 + k) for k, d in enumerate(dims)]


def solution(world: GaussianMixture, x: Tensor) -> Tensor:
    """The state at noise 0.02 of dx / d log(sigma) = x - D(x, sigma)."""
    def slope(log_sigma, flat):
        state = torch.from_numpy(flat).reshape(x.shape)
        return (state - world.posterior_mean(state, 1.0, math.exp(log_sigma))).flatten().numpy()

    end = solve_ivp(slope, (math.log(HIGH), math.log(LOW)), x.flatten().numpy(), method="DOP853", rtol=1e-10, atol=1e-11).y[:, -1]
    return torch.from_numpy(end).reshape(x.shape)


# ------------------------------------------------------------------------- grids: n + 1 noise levels from 20 to 0.02


def karras(rho: float) -> Callable[[int], Tensor]:
    return lambda n: torch.linspace(HIGH ** (1 / rho), LOW ** (1 / rho), n + 1, dtype=torch.float64) ** rho


def ddpm_times(n: int) -> Tensor:
    path = LinearVP()
    first, final = path.time(torch.tensor([-2 * math.log(HIGH), -2 * math.log(LOW)], dtype=torch.float64)).tolist()
    alpha, sigma = path(torch.linspace(first, final, n + 1, dtype=torch.float64))
    return sigma / alpha


def angles(n: int) -> Tensor:
    return torch.linspace(math.atan(HIGH), math.atan(LOW), n + 1, dtype=torch.float64).tan()


def even_log_snr(n: int) -> Tensor:
    return torch.linspace(math.log(HIGH), math.log(LOW), n + 1, dtype=torch.float64).exp()


def ours_grid(n: int) -> Tensor:
    return HIGH * asinh_grid(PATH, n + 1, LOW, HIGH)[:-1]


GRIDS = {"log-SNR": even_log_snr, "DDPM": ddpm_times, "angle": angles} | {f"Karras {rho}": karras(rho) for rho in (3, 4, 5, 7, 10)}


# ------------------------------------------------------------------------- methods: (denoise, start, levels) -> end


Denoise = Callable[[Tensor, Tensor], Tensor]
Method = Callable[[Denoise, Tensor, Tensor], Tensor]


def ours(sampler: Callable[..., Iterable[Tensor]], **how) -> Method:
    return lambda denoise, x, levels: last(sampler(lambda y, t: denoise(y, HIGH * t), PATH, x, levels / HIGH, **how))


def theirs(kind: type, **how) -> Method:
    """One of diffusers' multistep schedulers with our levels; its state is the variance-preserving x / sqrt(1 + sigma^2)."""
    def run(denoise: Denoise, x: Tensor, levels: Tensor) -> Tensor:
        peer = kind(prediction_type="sample", **how)
        peer.set_timesteps(len(levels) - 1)
        peer.sigmas = levels
        state = x / (1 + levels[0] ** 2).sqrt()
        for level, index in zip(levels, peer.timesteps):
            image = denoise(state * (1 + level**2).sqrt(), level)
            state = peer.step(image, index, state).prev_sample
        return state * (1 + levels[-1] ** 2).sqrt()

    return run


def their_heun(denoise: Denoise, x: Tensor, levels: Tensor) -> Tensor:
    """Half as many steps for the same number of calls; with an odd number the last is not corrected."""
    calls = len(levels) - 1
    steps = (calls + 1) // 2
    levels = levels_of_half(levels, steps)
    peer = HeunDiscreteScheduler(prediction_type="sample")
    peer.set_timesteps(steps + 1)
    peer.sigmas, peer._step_index = torch.cat([levels[:1], levels[1:].repeat_interleave(2)]), 0
    for call in range(calls):
        x = peer.step(denoise(x, peer.sigmas[call]), peer.timesteps[call], x).prev_sample
    return x


def levels_of_half(levels: Tensor, steps: int) -> Tensor:
    """The same grid with fewer levels, evenly spaced in its index."""
    at = np.linspace(0, len(levels) - 1, steps + 1)
    return torch.from_numpy(np.exp(np.interp(at, np.arange(len(levels)), levels.log().numpy())))


def their_lms(denoise: Denoise, x: Tensor, levels: Tensor) -> Tensor:
    peer = LMSDiscreteScheduler(prediction_type="sample")
    peer.set_timesteps(len(levels) - 1)
    peer.sigmas, peer.is_scale_input_called = levels, True
    for level, index in zip(levels, peer.timesteps):
        x = peer.step(denoise(x, level), index, x, order=4).prev_sample
    return x


def both_ends(kind: type, **how) -> list[Method]:
    return [theirs(kind, lower_order_final=final, **how) for final in (True, False)]


PEERS: dict[str, list[Method]] = {
    "diffusers DDIM": [theirs(DPMSolverMultistepScheduler, solver_order=1)],
    "diffusers Heun": [their_heun],
    "diffusers DPM-Solver++ 2M": both_ends(DPMSolverMultistepScheduler, solver_order=2),
    "diffusers DPM-Solver++ 3M": both_ends(DPMSolverMultistepScheduler, solver_order=3),
    "diffusers UniPC-2": both_ends(UniPCMultistepScheduler, solver_order=2),
    "diffusers UniPC-3": both_ends(UniPCMultistepScheduler, solver_order=3),
    "diffusers DEIS-3": both_ends(DEISMultistepScheduler, solver_order=3),
    "diffusers LMS-4": [their_lms],
}
DEFAULT = ours(unipc)
OTHERS = {
    "ddim": ours(ddim), "dpmpp_2m": ours(dpmpp_2m), "exponential_multistep, 3": ours(exponential_multistep), "exponential_multistep, 4": ours(exponential_multistep, order=4),
    "unipc, 2": ours(unipc, order=2), "unipc, 3": ours(unipc, order=3), "unipc, 4": ours(unipc, order=4),
    "heun": lambda denoise, x, levels: ours(heun)(denoise, x, levels_of_half(levels, (len(levels) - 1) // 2)),
}


# ------------------------------------------------------------------------- the tables


class World:
    def __init__(self, mixture: GaussianMixture, samples: int, seed: int = 0):
        g = torch.Generator().manual_seed(seed)
        self.mixture, self.start = mixture, HIGH * torch.randn(samples, mixture.means.shape[1], generator=g, dtype=torch.float64)
        self.end = solution(mixture, self.start)

    def error(self, method: Method, levels: Tensor) -> float:
        got = method(lambda x, level: self.mixture.posterior_mean(x, 1.0, float(level)), self.start, levels)
        return float((got - self.end).square().mean().sqrt())


def line(name: str, values: Iterable[float], note: str = "") -> None:
    print(f"{name:44s}" + "".join(f"{value:11.2e}" for value in values) + f"   {note}".rstrip())


def compare(name: str, world: World) -> None:
    print(f"\n{name}, calls of the denoiser" + " " * (44 - len(name) - 23) + "".join(f"{n:11d}" for n in BUDGETS))
    best = np.full(len(BUDGETS), np.inf)
    for peer, methods in PEERS.items():
        found = [min((world.error(method, grid(n)), where) for where, grid in GRIDS.items() for method in methods) for n in BUDGETS]
        line(f"{peer}, best of 8 grids", [error for error, _ in found], ", ".join(where for _, where in found))
        best = np.minimum(best, [error for error, _ in found])
    line("the best of these", best)
    default = [world.error(DEFAULT, ours_grid(n)) for n in BUDGETS]
    line("ours: unipc on asinh_grid, fixed beforehand", default)
    print(f"{'ratio':44s}" + "".join(f"{value:11.2f}" for value in default / best))
    for title, methods, grids in (
        ("ours, {}, asinh_grid", {k: [m] for k, m in OTHERS.items()}, ours_grid), ("ours, {}, log-SNR", {k: [m] for k, m in OTHERS.items()}, even_log_snr), ("{}, asinh_grid", PEERS, ours_grid),
    ):
        for method, variants in methods.items():
            line(title.format(method), [min(world.error(variant, grids(n)) for variant in variants) for n in BUDGETS])


def tune(samples: int) -> None:
    """The choices behind the default, on other mixtures: the knee of the grid, and where order 2 (with a plain last step) gives way to 3."""
    worlds = [World(mixture, samples, seed=1) for mixture in tuning_worlds()]
    budgets = (5, 6, 8, 9, 10, 11, 12, 15, 20, 50)
    print(f"error over {len(worlds)} mixtures: geometric mean, and root mean square; calls:" + "".join(f"{n:11d}" for n in budgets))
    for order in (None, 2, 3, 4):
        for knee in (3.0, 4.0, 5.0, 6.0, 8.0):
            errors = np.array([[world.error(ours(unipc, order=order), HIGH * asinh_grid(PATH, n + 1, LOW, HIGH, knee)[:-1]) for n in budgets] for world in worlds])
            line(f"order {order or 'default'}, knee {knee:g}, geometric mean", np.exp(np.log(errors).mean(0)))
            line(f"order {order or 'default'}, knee {knee:g}, RMS", np.sqrt((errors**2).mean(0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256, help="starts in each world")
    parser.add_argument("--tuning", action="store_true", help="print what the default was chosen by instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.tuning:
        tune(arguments.samples)
        return
    for name, make in WORLDS.items():
        compare(name, World(make(), arguments.samples))


if __name__ == "__main__":
    main()
