r"""How well ten seconds of training learn a score that is known: the ring of eight Gaussians.

Relative error: $\sum\|D-D^*\|^2/\sigma^2 \div \sum\|D^*-x\|^2/\sigma^2$ over 24 noise levels, log-spaced in 0.02 .. 10, with 4,096 points each from the
true noised distribution; D is the trained denoiser, D* the exact one. The budget is CPU seconds of one thread, turned into a number of
steps by a short trial; candidates take turns, seed by seed.

    python benchmarks/score_error_2d.py [--seconds 10] [--seeds 3]
"""

import argparse
import math
import statistics
import time

import torch
from torch import nn

from diffusion_core import EDM, Denoiser, lognormal_times, ring, targets
from diffusion_core.models import MLP
from diffusion_core.training import fit


def our_start() -> MLP:
    return MLP(2)


def default_start() -> MLP:
    """The same network with PyTorch's own initialization of every layer."""
    net = MLP(2)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return net


CANDIDATES = {"ours": our_start, "ours, PyTorch's default initialization": default_start}


def train(net: MLP, steps: int, seed: int) -> Denoiser:
    generator = torch.Generator().manual_seed(seed)
    denoiser = Denoiser(net, EDM(), targets.edm(1.0), sigma_data=1.0)
    data = ring().sample(100_000, generator)
    return fit(denoiser, data, steps, batch_size=512, lr=4e-3, times=lognormal_times(-1.5, 1.2), generator=generator)[0]


@torch.no_grad()
def relative_error(denoiser: Denoiser) -> float:
    world, generator = ring(), torch.Generator().manual_seed(99)
    wrong = total = 0.0
    for sigma in torch.logspace(math.log10(0.02), 1, 24, dtype=torch.float64):
        x0 = world.sample(4096, generator)
        x = x0 + sigma.float() * torch.randn(x0.shape, generator=generator)
        exact = world.posterior_mean(x, 1.0, sigma)
        learned = denoiser(x, denoiser.schedule.time(-2 * sigma.log()))
        wrong += float((learned - exact).square().sum() / sigma**2)
        total += float((exact - x).square().sum() / sigma**2)
    return wrong / total


def steps_in(seconds: float) -> int:
    trial = 200
    train(our_start(), 20, seed=0)
    start = time.process_time()
    train(our_start(), trial, seed=0)
    return int(seconds / (time.process_time() - start) * trial)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="CPU seconds of training, one thread")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each candidate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    steps = steps_in(arguments.seconds)
    errors: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for seed in range(arguments.seeds):
        for name, start in CANDIDATES.items():
            torch.manual_seed(seed)
            errors[name].append(relative_error(train(start(), steps, seed)))
    print(f"relative score error after {steps} steps ({arguments.seconds:g} CPU seconds), {arguments.seeds} seeds")
    for name, values in errors.items():
        print(f"{name:44s} median {100 * statistics.median(values):6.3f} %   all {', '.join(f'{100 * v:.3f}' for v in values)}")


if __name__ == "__main__":
    main()
