"""Runs that one or several processes share, for `test_processes.py`: `[torchrun ...] shared_runs.py FOLDER TASK ARGUMENTS`.

Every process leaves what it saw and what it ended with in FOLDER, in files named by its rank.
"""

import atexit
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.distributed_c10d import _get_default_store

from diffusion_core import MLP, Denoiser, LinearVP, LossSecondMoment, UNet, fit, losses, targets
from diffusion_core.progress import Line
from diffusion_core.schedules import normal_like

RANK, COUNT = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
gradients: list[Tensor] = []
batches: list[Tensor] = []
clip = Accelerator.clip_grad_norm_


def clip_what_was_noted(self, parameters, norm):
    parameters = list(parameters)
    gradients.append(torch.cat([p.grad.flatten() for p in parameters]))
    return clip(self, parameters, norm)


def noting_loss(denoiser, x0, t, weight=None, generator=None, **cond):
    batches.append(torch.cat([x0.flatten(1), t[:, None].to(x0), *(value[:, None].to(x0) for value in cond.values())], 1))
    return losses.denoising_loss(denoiser, x0, t, weight, generator, **cond)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def setting(case: str) -> tuple[Denoiser, Tensor | tuple[Tensor, dict[str, Tensor]], dict]:
    """(denoiser, data, the rest of fit's arguments). Gradients are longer than `clip`, so that it matters which ones are clipped."""
    given = {"batch_size": 8, "generator": seeded(3), "clip": 0.05, "loss": noting_loss, "precision": "fp32"}
    if case == "images":
        images = torch.rand(40, 1, 8, 8, generator=seeded(1)).double(), {"label": torch.arange(40) % 3}
        return Denoiser(UNet(width=8, num_classes=3).double(), LinearVP(), targets.v), images, given | {"label_dropout": 0.5}
    dtype = {"float32": torch.float32, "float64": torch.float64}[case]
    points = torch.randn(100, 2, generator=seeded(1)).to(dtype)
    return Denoiser(MLP(2, width=16).to(dtype), LinearVP(), targets.v), points, given | {"times": LossSecondMoment(3, history=2)}


def train(folder: Path, case: str, **saved) -> None:
    gradients.clear()
    batches.clear()
    torch.manual_seed(RANK)  # the first process's weights must win
    denoiser, data, given = setting(case)
    average, history = fit(denoiser, data, 12, **given, **saved)
    ends = {name: torch.cat([p.detach().flatten() for p in which.parameters()]) for name, which in {"raw": denoiser, "average": average}.items()}
    learned = given["times"].probabilities if "times" in given else torch.ones(1)
    seen = {"gradient": gradients[0], "batches": torch.stack(batches)}
    save_file({**ends, **seen, "losses": history, "learned": learned}, folder / f"{case}.{RANK}.of.{COUNT}.safetensors")


def train_all(folder: Path, *cases: str) -> None:
    for case in cases:
        train(folder, case)


def resume(folder: Path, die_in: str) -> None:
    """Each process in a folder of its own. The death, as a kill would bring it, is outside of the loss, which belongs to the run."""

    def die_in_step(self, parameters, norm):
        if len(gradients) == int(die_in):
            os._exit(7)
        return clip_what_was_noted(self, parameters, norm)

    Accelerator.clip_grad_norm_ = die_in_step
    os.chdir(folder / str(RANK))
    train(folder, "float64", checkpoint="run", checkpoint_every=4)


def restart(folder: Path) -> None:
    """The second process is killed in the first life of the run. Each notes whether its group in the next still sees what that of the first has left in the launcher's store."""
    first_life, mark = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0", "left by the first life"

    def die_in_step(self, parameters, norm):
        if first_life and len(gradients) == 6:
            _get_default_store().set(mark, "")
            if RANK == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        return clip_what_was_noted(self, parameters, norm)

    Accelerator.clip_grad_norm_ = die_in_step
    train(folder, "float64", checkpoint=folder / "run", checkpoint_every=4)
    (folder / f"sees.{RANK}").write_text(str(_get_default_store().check([mark])))


def end(folder: Path) -> None:
    """A plain script: whether the group still stands at the end is looked at last, since what is registered first runs last."""
    atexit.register(lambda: (folder / f"end.{RANK}").write_text("stands" if torch.distributed.is_initialized() else "left"))
    denoiser, data, given = setting("float32")
    fit(denoiser, data, 2, **given)
    assert torch.distributed.is_initialized()


def with_own_noise(denoiser, x0, t, weight, generator):
    return torch.randn(x0.shape, generator=generator)


def with_two_rows_a_sample(denoiser, x0, t, weight, generator):
    return normal_like(torch.cat([x0, x0]), generator)


def with_an_infinite_loss(denoiser, x0, t, weight, generator):
    return float("inf") * losses.denoising_loss(denoiser, x0, t, weight, generator)


def refuse(folder: Path) -> None:
    """What each process says to bad calls, and how often the progress line was drawn."""
    drawn = []
    Line.show = lambda self, text: drawn.append(text) if self.place else None
    denoiser, data, given = setting("float32")
    fit(denoiser, data, 2, **given, progress=True)
    lines = len(drawn)

    replace, writes = os.replace, []

    def full_disk(half, file):
        writes.append(file)
        if len(writes) == 2:
            raise OSError(28, "No space left on device")
        replace(half, file)

    changes: dict[str, Callable[[Tensor, dict], tuple[Tensor, dict]]] = {
        "other data": lambda data, given: (data + RANK, given),
        "other settings": lambda data, given: (data, given | {"lr": 0.1 * (1 + RANK)}),
        "its own noise": lambda data, given: (data, given | {"loss": with_own_noise}),
        "two rows a sample": lambda data, given: (data, given | {"loss": with_two_rows_a_sample}),
        "an odd batch": lambda data, given: (data, given | {"batch_size": 7}),
        "an empty checkpoint": lambda data, given: (data, given | {"checkpoint": folder / "empty"}),
        "a damaged checkpoint": lambda data, given: (data, given | {"checkpoint": folder / "bad"}),
        "a full disk": lambda data, given: (data, given | {"checkpoint": folder / "full"}),
        "too large": lambda data, given: (100 * data, given),
        "an infinite loss": lambda data, given: (data, given | {"loss": with_an_infinite_loss}),
    }
    errors = {}
    for name, change in changes.items():
        os.replace = full_disk if name == "a full disk" else replace
        denoiser, data, given = setting("float32")
        data, given = change(data, given)
        try:
            fit(denoiser, data, 12, **given)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
    (folder / f"said.{RANK}").write_text(json.dumps({"errors": errors, "lines": lines}))


def fail(folder: Path, how: str) -> None:
    """One process fails where the others cannot know."""
    denoiser, data, given = setting("float32")
    if how == "network" and RANK == 1:
        denoiser.net.register_forward_pre_hook(lambda *_: 1 / 0)
    if how == "folder":
        given["checkpoint"] = folder / "file" / "run"
    fit(denoiser, data, 12, **given)


if __name__ == "__main__":
    Accelerator.clip_grad_norm_ = clip_what_was_noted
    place, task, *rest = sys.argv[1:]
    {"train": train_all, "resume": resume, "restart": restart, "end": end, "refuse": refuse, "fail": fail}[task](Path(place), *rest)
