"""What a sampler costs beside the network: time per step with a network that returns its input, ours against diffusers'.

The state is a small one (16 points of the plane), so that nothing but bookkeeping is measured. Preparing the grid counts for neither
side alone: each run is a whole sampling of `--steps` steps, `set_timesteps` and our grid included.

    python benchmarks/sampler_overhead.py [--steps 100] [--rounds 30]
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from diffusers import DDIMScheduler, DDPMScheduler
from diffusion_core import DDPM, ancestral, ddim, last, linear_betas, uniform
from timing import interleaved, report

PEER = "diffusers DDIM"


def noop(x: Tensor, t: Tensor) -> Tensor:
    return x


def theirs(kind: type, steps: int, x: Tensor, **settings) -> Callable[[], Tensor]:
    scheduler = kind(num_train_timesteps=1000, beta_schedule="linear", prediction_type="sample", clip_sample=False)

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
    }
    with torch.inference_mode():
        medians = interleaved(candidates, arguments.rounds)
    print(f"one step of {n}, median of {arguments.rounds} samplings, one thread")
    report({name: median / n for name, median in medians.items()}, 1e-6, "us", PEER)


if __name__ == "__main__":
    main()
