"""The time of one training step: our U-Net and our DiT against diffusers' UNet2DModel at equal parameters (about 1.06 million), 1 x 32 x 32, batch 32.

A step is the forward pass, a mean squared error, the backward pass and AdamW (fused for all). The candidates take turns in one run.
Plain fp32 against plain fp32 is the comparison; the lines with patches and bf16 show what a reader of the book gets on a CPU.

    python benchmarks/training_step.py [--rounds 15] [--batch 32] [--threads 2]
"""

import argparse
from collections.abc import Callable

import torch
from diffusers import UNet2DModel
from timing import interleaved, report
from torch import Tensor, nn

from diffusion_core import device
from diffusion_core.models import DiT, UNet

PEER = "diffusers"


class Peer(nn.Module):
    """UNet2DModel with the calling convention of ours."""

    def __init__(self):
        super().__init__()
        self.net = UNet2DModel(
            sample_size=32, in_channels=1, out_channels=1, block_out_channels=(32, 64, 64), layers_per_block=1, norm_num_groups=8,
            down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3,
        )

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.net(x, c).sample


def training_step(net: nn.Module, batch: int, bf16: bool) -> Callable[[], None]:
    net.to(device())
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(batch, 1, 32, 32, generator=generator).to(device()) for _ in range(2))
    c = torch.linspace(0, 999, batch).to(device())

    def step() -> None:
        with torch.autocast(device().type, torch.bfloat16, enabled=bf16):
            loss = (net(x, c) - y).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each candidate")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    settings = {
        PEER: (Peer(), False),
        "ours": (UNet(width=32, mult=(1, 2, 3)), False),
        "ours, bf16": (UNet(width=32, mult=(1, 2, 3)), True),
        "ours, patch 2": (UNet(width=32, mult=(1, 2, 3), patch=2), False),
        "ours, patch 2, bf16": (UNet(width=32, mult=(1, 2, 3), patch=2), True),
        "our DiT, patch 2": (DiT(width=96, depth=6, patch=2), False),
        "our DiT, patch 4": (DiT(width=96, depth=6, patch=4), False),
        "our DiT, patch 4, bf16": (DiT(width=96, depth=6, patch=4), True),
    }
    for name, (net, _) in settings.items():
        print(f"{name:44s} {sum(p.numel() for p in net.parameters()):10,} parameters")
    steps = {name: training_step(net, arguments.batch, bf16) for name, (net, bf16) in settings.items()}
    print(f"\none step of {arguments.batch} images, median of {arguments.rounds}, {device()}, {arguments.threads} threads")
    report(interleaved(steps, arguments.rounds), 1e-3, "ms", PEER)


if __name__ == "__main__":
    main()
