"""Training runs that are killed, again and again, by SIGKILL: `python killed_runs.py FOLDER KIND`. Prints, as JSON, what was done and how each run ended.

A nursery process imports everything once and forks a child for each stretch of a run; the child dies on the way or brings the run to its end. When
a run has ended before its twenty kills, another begins. KIND chooses the run and how its children die:

events: an MLP; at the beginning of a step, or inside the writing of a checkpoint: half written, not flushed, not renamed, just renamed.
clock: a U-Net in bfloat16 with labels, dropped labels and times that adapt; a random time after a random number of steps, while flushing to the disk is slow.
"""

import hashlib
import json
import os
import random
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import safetensors.torch  # noqa: F401  what fit imports when it needs it, here so that no child has to
import torch
import torch._dynamo  # noqa: F401

from diffusion_core import MLP, Denoiser, LinearVP, LossSecondMoment, UNet, fit, targets
from diffusion_core.training import checkpoint, processes

KILLS = 20
EVENTS = ("step", "half written", "not flushed", "not renamed", "renamed")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run_events(folder: Path) -> dict:
    denoiser = Denoiser(MLP(2, width=16, depth=2), LinearVP(), targets.v)
    generator = seeded(3)
    average, losses = fit(denoiser, torch.randn(100, 2, generator=seeded(1)), 150, batch_size=16, generator=generator, checkpoint=folder, checkpoint_every=4)
    return {"weights": digest(denoiser), "average": digest(average), "losses": losses.tolist(), "generator": draw(generator)}


def run_clock(folder: Path) -> dict:
    denoiser = Denoiser(UNet(width=8, num_classes=3), LinearVP(), targets.v)
    times, generator = LossSecondMoment(4, history=2), seeded(3)
    data = torch.rand(32, 1, 8, 8, generator=seeded(1)) * 2 - 1, {"label": torch.arange(32) % 3}
    settings = {"batch_size": 8, "label_dropout": 0.2, "precision": "bf16", "checkpoint": folder, "checkpoint_every": 3}
    average, losses = fit(denoiser, data, 60, times=times, generator=generator, **settings)
    learned = times.probabilities.tolist()
    return {"weights": digest(denoiser), "average": digest(average), "losses": losses.tolist(), "times": learned, "generator": draw(generator)}


RUNS: dict[str, Callable[[Path], dict]] = {"events": run_events, "clock": run_clock}


def digest(denoiser: Denoiser) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in denoiser.state_dict().values())).hexdigest()


def draw(generator: torch.Generator) -> int:
    return int(torch.randint(2**40, (1,), generator=generator))


def die_at(event: str, count: int) -> None:
    """Arrange the death of this process at the count-th event from now."""
    left = iter(range(count - 1, -1, -1))

    def is_last() -> bool:
        return next(left, None) == 0

    real_open, real_fsync, real_replace, real_forward = open, os.fsync, os.replace, Denoiser.predict

    class Torn:
        def __init__(self, file: Path, mode: str):
            self.file = real_open(file, mode)

        def __enter__(self):
            return self.file.__enter__()

        def __exit__(self, *error):
            return self.file.__exit__(*error)

    def torn_open(file: Path, mode: str):
        torn = Torn(file, mode)
        if is_last():
            torn.file = HalfWriter(torn.file)
        return torn

    def fsync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode) and is_last():
            die()
        real_fsync(handle)

    def replace(half: Path, file: Path) -> None:
        last = is_last()
        if last and event == "not renamed":
            die()
        real_replace(half, file)
        if last:
            die()

    def predict(self, *args, **kwargs):
        if is_last():
            die()
        return real_forward(self, *args, **kwargs)

    if event == "step":
        Denoiser.predict = predict
    elif event == "half written":
        checkpoint.open = torn_open
    elif event == "not flushed":
        os.fsync = fsync
    else:
        os.replace = replace


class HalfWriter:
    """A file that gets half of what is written to it."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        die()


def slow_disk_and_bell(bell: int) -> None:
    """Flushing takes a while, and every step of the child rings."""
    real_fsync, real_forward = os.fsync, Denoiser.predict

    def fsync(handle: int) -> None:
        time.sleep(0.03)
        real_fsync(handle)

    def predict(self, *args, **kwargs):
        os.write(bell, b"!")
        return real_forward(self, *args, **kwargs)

    os.fsync, Denoiser.predict = fsync, predict


def child(kind: str, folder: Path, seed: int, prepare: Callable[[], None]) -> int:
    """Fork a process that goes on with the run in `folder` and, if it lives, writes its end beside it. The network's start differs each time."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            prepare()
            torch.manual_seed(seed)
            end = RUNS[kind](folder)
            (folder / "end.json").write_text(json.dumps(end))
            code = 0
        finally:
            os._exit(code)
    return process


def step_on_disk(folder: Path) -> int:
    file = folder / checkpoint.NAME
    return checkpoint.parse(file, file.read_bytes())[0]["step"] if file.exists() else -1


def killed_by_event(folder: Path, seed: int, chance: random.Random, kill: int) -> tuple[int, str]:
    """(wait status of the child, how it was to die)"""
    event = EVENTS[kill % len(EVENTS)]
    count = chance.randint(2, 20) if event == "step" else chance.randint(2, 4)
    process = child("events", folder, seed, lambda: die_at(event, count))
    return os.waitpid(process, 0)[1], f"{event} {count}"


def killed_by_clock(folder: Path, seed: int, chance: random.Random, kill: int) -> tuple[int, str]:
    heard, bell = os.pipe()
    process = child("clock", folder, seed, lambda: slow_disk_and_bell(bell))
    os.close(bell)
    steps, part = chance.randint(1, 9), chance.random()
    rung = [time.monotonic()]
    while len(rung) <= steps and os.read(heard, 1):  # nothing at the child's end
        rung.append(time.monotonic())
    longest = max((after - before for before, after in zip(rung[1:], rung[2:])), default=0.1)  # a step with its checkpoint, however fast the machine is
    time.sleep(part * longest)
    os.kill(process, signal.SIGKILL)
    os.close(heard)
    return os.waitpid(process, 0)[1], f"{part:.2f} of the longest step after {steps}"


def main(place: Path, kind: str) -> None:
    chance = random.Random(f"kills of {kind}")
    kill = {"events": killed_by_event, "clock": killed_by_clock}[kind]
    processes.join()
    assert os.waitpid(child(kind, place / "whole", 0, lambda: None), 0)[1] == 0
    whole = json.loads((place / "whole" / "end.json").read_text())
    kills: list[dict] = []
    ends: list[dict] = []
    running = True
    while running:
        folder = place / f"run {len(ends)}"
        seed = 0 if step_on_disk(folder) < 0 else 1 + len(kills)
        if len(kills) < KILLS:
            status, moment = kill(folder, seed, chance, len(kills))
        else:
            status, moment = os.waitpid(child(kind, folder, seed, lambda: None), 0)[1], "never"
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            kills.append({"run": len(ends), "moment": moment, "step": step_on_disk(folder), "half": len(list(folder.glob("*.tmp")))})
        else:
            assert status == 0, f"the child ended with status {status}"
            ends.append({"equal": json.loads((folder / "end.json").read_text()) == whole, "left": sorted(path.name for path in folder.iterdir())})
            running = len(kills) < KILLS
    print(json.dumps({"kills": kills, "ends": ends}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
