r"""The command `python -m diffusion_core.training`: train a denoiser on a data set by name, on one process or on many, and draw samples from it.

    python -m diffusion_core.training moons
    python -m diffusion_core.training digits --schedule CosineVP --target v --samples 64
    torchrun --standalone --nproc_per_node=8 -m diffusion_core.training cifar10 --precision bf16

The same command goes on where a killed run stood. What a user can get wrong is one line on stderr and the exit status 2.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_core import group
from diffusion_core.data import CLASS_NAMES, images, toy
from diffusion_core.data.toys import TOYS
from diffusion_core.denoiser import Denoiser
from diffusion_core.devices import by_device, device
from diffusion_core.training import vocabulary
from diffusion_core.training.batches import Data
from diffusion_core.training.checkpoint import NAME, parse
from diffusion_core.training.gallery import draw_samples, write_samples
from diffusion_core.training.loop import Diverged, fit
from diffusion_core.training.options import parser
from diffusion_core.training.run import FILE, Run
from diffusion_core.training.words import Phrase

DIVERGED, MEANT_OTHERWISE, INTERRUPTED = 1, 2, 130


class Usual(NamedTuple):
    """What is trained when nothing is said: starting points, not the best that is known."""

    network: str
    steps: int
    batch: int
    lr: float


def usual(shape: tuple[int, ...]) -> Usual:
    """The network, steps, batch and rate for samples of this shape on this device."""
    if len(shape) == 1:
        return Usual("MLP(width=128)", 2000, 512, 2e-3)
    if shape[0] == 1:
        return by_device(cpu=Usual("UNet(width=32, mult=(1, 2), patch=2)", 6000, 64, 3e-3), gpu=Usual("UNet(width=64, mult=(1, 2, 2))", 30_000, 256, 1e-3))
    return by_device(cpu=Usual("UNet(width=32, mult=(1, 2, 2), patch=2)", 10_000, 64, 2e-3), gpu=Usual("UNet(width=128, mult=(1, 2, 2), blocks=2)", 100_000, 256, 5e-4))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 for a run that diverged, 2 for what cannot be meant, 130 for Ctrl-C."""
    try:
        options = parser().parse_args(arguments)
        with _device(options.device):
            _train(options)
    except Diverged as error:
        return _complain(error, DIVERGED)
    except (ValueError, OSError, ImportError) as error:
        return _complain(error, MEANT_OTHERWISE)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command goes on from the last checkpoint", INTERRUPTED)
    group.leave()
    return 0


def _train(options: argparse.Namespace) -> None:
    say = _speaker(options.quiet)
    _check_sampling(options)
    x, labels = _data(options)
    run = _run(options, x, labels)
    folder = options.output or Path("runs") / options.data
    stands = _step_reached(folder, run)
    denoiser = run.denoiser(options.seed)
    settings = run.settings
    say(_summary(run, denoiser, x, folder))
    if stands:
        say(f"goes on   from step {stands:,} of {settings['steps']:,}")
    begun = time.perf_counter()
    average, losses = _fit(options, run, denoiser, x if labels is None else (x, {"label": labels}), folder)
    tail = losses[-max(1, len(losses) // 10) :].mean()
    say(f"done      loss {tail:.4g} over the last tenth, {time.perf_counter() - begun:.0f} s; load_run({str(folder)!r}) loads the denoiser")
    if options.samples:
        samples = draw_samples(average, run.shape, run.classes, options.samples, options.sampling_steps, options.seed)
        if _rank() == 0:
            say(f"samples   {write_samples(samples, folder)}")


def _fit(options: argparse.Namespace, run: Run, denoiser: Denoiser, data: Data, folder: Path) -> tuple[Denoiser, Tensor]:
    """`fit` as the run says, with `run.json` in the folder from the beginning; it is taken away again when `fit` refuses and it was not there before."""
    settings, new = run.settings, not (folder / FILE).exists()
    if _rank() == 0:
        run.write(folder)
    try:
        return fit(
            denoiser,
            data,
            settings["steps"],
            batch_size=settings["batch"],
            lr=settings["lr"],
            ema=settings["ema"],
            times=vocabulary.times(settings["times"]).make(),
            weight=vocabulary.weight(settings["weight"], run.sigma_data).make(),
            loss=vocabulary.loss(settings["loss"]).make(),
            label_dropout=settings["label_dropout"],
            precision=settings["precision"],
            generator=torch.Generator().manual_seed(settings["seed"]),
            progress=not options.quiet,
            checkpoint=folder,
            checkpoint_every=options.checkpoint_every,
        )
    except ValueError:
        if _rank() == 0 and new:
            (folder / FILE).unlink()
        raise


def _data(options: argparse.Namespace) -> tuple[Tensor, Tensor | None]:
    """The training set, and its labels unless they are not wanted or there are none."""
    if options.data in TOYS:
        if options.points < 1:
            raise ValueError(f"--points {options.points}: a toy needs at least one point")
        if options.unconditional or options.label_dropout:
            raise ValueError("--unconditional and --label-dropout are for image sets: a toy has no labels")
        return toy(options.data, options.points, torch.Generator().manual_seed(options.seed)), None
    x, labels = images(options.data)
    return x, None if options.unconditional else labels


def _run(options: argparse.Namespace, x: Tensor, labels: Tensor | None) -> Run:
    """The run that the options spell, each in its full form. Raises ValueError that begins with the option at fault."""
    shape, classes = tuple(x.shape[1:]), len(CLASS_NAMES[options.data]) if labels is not None else None
    network, steps, batch, lr = usual(shape)
    measured = 1.0 if len(shape) == 1 else round(x.std().item(), 2)
    sigma_data = measured if options.sigma_data is None else options.sigma_data
    dropout = options.label_dropout if options.label_dropout is not None else 0.1 if classes else 0.0
    times = _understood("--times", options.times, vocabulary.times)
    weight = _understood("--weight", options.weight, lambda text: vocabulary.weight(text, sigma_data))
    loss = _understood("--loss", options.loss, vocabulary.loss)
    schedule = _understood("--schedule", options.schedule, vocabulary.schedule)
    target = _understood("--target", options.target, lambda text: vocabulary.target(text, sigma_data))
    net = _understood("--network", options.network or network, lambda text: vocabulary.network(text, shape, classes))
    settings = {
        "steps": steps if options.steps is None else options.steps,
        "batch": batch if options.batch is None else options.batch,
        "lr": lr if options.lr is None else options.lr,
        "ema": options.ema,
        "times": str(times),
        "weight": str(weight),
        "loss": str(loss),
        "label_dropout": dropout,
        "precision": options.precision,
        "points": len(x),
        "seed": options.seed,
    }
    return Run(options.data, shape, classes, sigma_data, net, schedule, target, settings)


def _understood(option: str, text: str, read: Callable[[str], Phrase]) -> Phrase:
    """The phrase that an option spells, once it is known that it can be made. Raises ValueError that begins with the option."""
    try:
        with torch.random.fork_rng(devices=[]):
            (said := read(text)).make()
    except ValueError as error:
        raise ValueError(f"{option} {text}: {error}") from error
    return said


@contextmanager
def _device(name: str | None) -> Iterator[None]:
    """`device()` is this one meanwhile."""
    before = os.environ.get("DIFFUSION_CORE_DEVICE")
    if name is not None:
        os.environ["DIFFUSION_CORE_DEVICE"] = name
    try:
        device()
        yield
    finally:
        if name is not None:
            os.environ.pop("DIFFUSION_CORE_DEVICE")
            if before is not None:
                os.environ["DIFFUSION_CORE_DEVICE"] = before


def _check_sampling(options: argparse.Namespace) -> None:
    if options.samples < 0 or options.sampling_steps < 1:
        raise ValueError(f"--samples must not be negative and --sampling-steps at least 1, got {options.samples} and {options.sampling_steps}")


def _step_reached(folder: Path, run: Run) -> int:
    """The step of the run's checkpoint in the folder, 0 without one. Raises ValueError for a damaged one, and for a folder that holds another run."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output {folder} is a file; name a folder")
    file = folder / NAME
    if not file.exists():
        return 0
    step = int(parse(file, file.read_bytes())[0]["step"])
    if step > 0 and (folder / FILE).exists() and (unlike := Run.read(folder).differences(run)):
        raise ValueError(f"{folder} holds another run ({'; '.join(unlike)}); give this one its own --output, or delete the folder")
    return step


def _summary(run: Run, denoiser: Denoiser, x: Tensor, folder: Path) -> str:
    settings, processes = run.settings, int(os.environ.get("WORLD_SIZE", "1"))
    size = " x ".join(map(str, run.shape)) if len(run.shape) > 1 else f"{run.shape[0]} coordinates"
    weights = sum(p.numel() for p in denoiser.parameters() if p.requires_grad)
    labels = f", {run.classes} classes" if run.classes else ""
    return "\n".join(
        [
            f"data      {run.data}: {len(x):,} of {size}{labels}, standard deviation {run.sigma_data:g}",
            f"schedule  {run.schedule}",
            f"target    {run.target}; loss {settings['loss']}, weight {settings['weight']}, times {settings['times']}",
            f"network   {run.network}: {weights:,} weights",
            f"training  {settings['steps']:,} steps of {settings['batch']}, lr {settings['lr']:g}, ema {settings['ema']:g}, seed {settings['seed']}",
            f"computes  on {device().type}, {processes} process{'es' if processes > 1 else ''}, precision {settings['precision']}",
            f"output    {folder}",
        ]
    )


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _speaker(quiet: bool) -> Callable[[str], None]:
    """What prints, on the first process only."""

    def say(text: str) -> None:
        if _rank() == 0 and not quiet:
            print(text, flush=True)

    return say


def _complain(error: Any, status: int) -> int:
    """One line on stderr; a process that is not the first says which it is."""
    group.stay()
    who = f"process {_rank()}: " if _rank() else ""
    print(f"python -m diffusion_core.training: {who}{' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status
