"""The options of `python -m diffusion_core.training`, and its help."""

import argparse
from pathlib import Path
from typing import NoReturn

from diffusion_core.data import CLASS_NAMES
from diffusion_core.data.toys import TOYS
from diffusion_core.training import vocabulary
from diffusion_core.training.words import Words


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _names(words: Words) -> str:
    return ", ".join(words)


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    parse = _Parser(
        prog="python -m diffusion_core.training",
        description="Train a denoiser on a data set and leave it in a folder, for load_run(folder) in a notebook. The same command goes on where a killed run stood.",
        epilog="A name may carry arguments, as in Python: --schedule 'GeometricVE(sigma_max=50)', --network 'UNet(width=64, mult=(1, 2, 4))'. Quote it for the shell.",
    )
    add = parse.add_argument
    add("data", metavar="DATA", choices=(*TOYS, *CLASS_NAMES), help=f"a toy ({', '.join(TOYS)}) or an image set ({', '.join(CLASS_NAMES)}; those that the package does not carry are fetched)")
    add("--output", type=Path, metavar="FOLDER", help="where the run lives (default: runs/DATA)")
    model = parse.add_argument_group("the model")
    model.add_argument("--schedule", default="CosineVP", metavar="NAME", help=f"{_names(vocabulary.SCHEDULES)} (default: CosineVP)")
    model.add_argument("--target", default="v", metavar="NAME", help=f"{_names(vocabulary.TARGETS)} (default: v)")
    model.add_argument("--network", metavar="NAME", help=f"{_names(vocabulary.NETWORKS)}; channels and classes come from the data (default: by data and device)")
    model.add_argument("--sigma-data", type=float, metavar="S", help="standard deviation of the data (default: 1 for toys, measured for images)")
    training = parse.add_argument_group("the training")
    training.add_argument("--steps", type=int, metavar="N", help="updates of the weights (default: by data and device)")
    training.add_argument("--batch", type=int, metavar="N", help="samples a step, of all processes together (default: by data and device)")
    training.add_argument("--lr", type=float, metavar="X", help="peak of the learning rate (default: by data and device)")
    training.add_argument("--ema", type=float, default=0.999, metavar="D", help="largest decay of the averaged weights (default: 0.999)")
    training.add_argument("--times", default="uniform", metavar="NAME", help=f"{_names(vocabulary.TIMES)} (default: uniform)")
    training.add_argument("--weight", default="plain", metavar="NAME", help=f"of the loss over time: {_names(vocabulary.WEIGHTS)} (default: plain)")
    training.add_argument("--loss", default="denoising_loss", metavar="NAME", help=f"{_names(vocabulary.LOSSES)} (default: denoising_loss)")
    training.add_argument("--label-dropout", type=float, metavar="P", help="share of labels left out (default: 0.1 for images)")
    training.add_argument("--unconditional", action="store_true", help="train without labels")
    training.add_argument("--points", type=int, default=20_000, metavar="N", help="points of a toy (default: 20,000)")
    training.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="bf16 computes in half the bits, weights stay fp32 (default: auto)")
    training.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights, the batches and the noise (default: 0)")
    running = parse.add_argument_group("how it runs")
    running.add_argument("--checkpoint-every", type=int, metavar="N", help="steps between checkpoints (default: a twentieth of the run)")
    running.add_argument("--device", choices=("cpu", "cuda", "mps"), help="where to compute (default: the fastest there is)")
    running.add_argument("--quiet", action="store_true", help="print nothing but errors")
    running.add_argument("--samples", type=int, default=0, metavar="N", help="draw N samples at the end, into samples.safetensors and samples.png (default: 0)")
    running.add_argument("--sampling-steps", type=int, default=50, metavar="N", help="steps of the sampler, DDIM on even log-SNRs (default: 50)")
    return parse
