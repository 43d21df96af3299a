"""What a sampler costs beside the network: time per step with a network that returns its input, ours against diffusers'.

The state is a small one (16 points of the plane), so that nothing but bookkeeping is measured. Preparing the grid counts for neither
side alone: each run is a whole sampling of `--steps` steps, `set_timesteps` and our grid included.

    python benchmarks/sampler_overhead.py [--steps 100] [--rounds 30]
"""

import argparse
from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler, UniPCMultistepScheduler
from timing import interleaved, report
from torch import Tensor

from diffusion_core import DDPM, ancestral, ddim, dpmpp_2m, heun, last, linear_betas, uniform, unipc

PEER = "diffusers DDIM"


def noop(x: Tensor, t: Tensor) -> Tensor:
    return x


def theirs(kind: type, steps: int, x: Tensor, **settings) -> Callable[[], Tensor]:
    clipping = {} if kind in (DPMSolverMultistepScheduler, UniPCMultistepScheduler) else {"clip_sample": False}
    scheduler = kind(num_train_timesteps=1000, beta_schedule="linear", prediction_type="sample", **clipping)

    def sample() -> Tensor:
        state = x
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            state = scheduler.step(noop(state, t), t, state, **settings).prev_sample
        return state

    return sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps of a sampling")
    parser.add_argument("--rounds", type=int, default=30, help="timed samplings of each candidate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    schedule, x, n = DDPM(linear_betas(1000)), torch.randn(16, 2, generator=torch.Generator().manual_seed(0)), arguments.steps
    generator = torch.Generator().manual_seed(1)
    candidates = {
        PEER: theirs(DDIMScheduler, n, x),
        "ours, ddim": lambda: last(ddim(noop, schedule, x, uniform(n))),
        "diffusers DDIM, eta 1": theirs(DDIMScheduler, n, x, eta=1.0, generator=generator),
        "ours, ddim, eta 1": lambda: last(ddim(noop, schedule, x, uniform(n), eta=1.0, generator=generator)),
        "diffusers DDPM": theirs(DDPMScheduler, n, x, generator=generator),
        "ours, ancestral": lambda: last(ancestral(noop, schedule, x, uniform(n), generator=generator)),
        "diffusers DPM-Solver++ 2M": theirs(DPMSolverMultistepScheduler, n, x),
        "ours, dpmpp_2m": lambda: last(dpmpp_2m(noop, schedule, x, uniform(n))),
        "diffusers UniPC": theirs(UniPCMultistepScheduler, n, x),
        "ours, unipc": lambda: last(unipc(noop, schedule, x, uniform(n), order=2)),
        "diffusers Heun": theirs(HeunDiscreteScheduler, n, x),
        "ours, heun": lambda: last(heun(noop, schedule, x, uniform(n))),
    }
    with torch.inference_mode():
        medians = interleaved(candidates, arguments.rounds)
    print(f"one step of {n}, median of {arguments.rounds} samplings, one thread")
    report({name: median / n for name, median in medians.items()}, 1e-6, "us", PEER)
    names = list(candidates)
    for theirs_, ours_ in zip(names[::2], names[1::2]):
        print(f"{ours_:44s} {medians[ours_] / medians[theirs_]:5.2f} x {theirs_}")


if __name__ == "__main__":
    main()
