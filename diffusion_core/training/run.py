r"""A run in a folder: `run.json` says how its denoiser is built and trained, the checkpoint beside it holds the weights.

`load_run(folder)` gives a notebook the averaged denoiser of what `python -m diffusion_core.training` trained. The file is plain text: it is read with a closed
vocabulary (`vocabulary`), nothing in it is imported or evaluated, and a checksum says when it was changed by hand.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from diffusion_core.denoiser import Denoiser
from diffusion_core.training import vocabulary
from diffusion_core.training.checkpoint import load, put_in_place
from diffusion_core.training.words import Phrase

FILE = "run.json"
FORMAT = "diffusion_core run 1"


@dataclass(frozen=True)
class Run:
    """What is trained and how: phrases for what has arguments, plain numbers and text in `settings`. Equal runs train the same weights."""

    data: str
    shape: tuple[int, ...]
    classes: int | None
    sigma_data: float
    network: Phrase
    schedule: Phrase
    target: Phrase
    settings: dict[str, Any]

    def denoiser(self, seed: int = 0) -> Denoiser:
        """The denoiser before training, its weights drawn from the seed. A learned schedule stays as it was made. Raises ValueError for arguments that cannot be meant."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            denoiser = Denoiser(self.network.make(), self.schedule.make(), self.target.make(), sigma_data=self.sigma_data)
        if isinstance(denoiser.schedule, torch.nn.Module):
            denoiser.schedule.requires_grad_(False)
        return denoiser

    def to_json(self) -> dict[str, Any]:
        """The run as what a JSON file can hold."""
        phrases = {name: str(getattr(self, name)) for name in ("network", "schedule", "target")}
        return {"data": self.data, "shape": list(self.shape), "classes": self.classes, "sigma_data": self.sigma_data, **phrases, "settings": self.settings}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The run that `to_json` wrote. Raises ValueError or KeyError for anything else."""
        shape, classes, sigma_data = tuple(map(int, fields["shape"])), fields["classes"], float(fields["sigma_data"])
        network = vocabulary.network(fields["network"], shape, classes)
        schedule, target = vocabulary.schedule(fields["schedule"]), vocabulary.target(fields["target"], sigma_data)
        return cls(fields["data"], shape, classes, sigma_data, network, schedule, target, fields["settings"])

    def differences(self, other: "Run") -> list[str]:
        """What makes the other another run, a line for each: `lr: 0.002, now 0.001`."""
        ours, theirs = ({**run.to_json(), **run.settings} for run in (self, other))
        return [f"{name}: {ours[name]}, now {theirs.get(name)}" for name in ours if name != "settings" and ours[name] != theirs.get(name)]

    def write(self, folder: Path) -> None:
        """Write `run.json`, whole or not at all."""
        fields = self.to_json()
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, **fields, "sha256": _checksum(fields)}, indent=1) + "\n"
        put_in_place(folder / FILE, text.encode())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The run of a folder. Raises FileNotFoundError without a `run.json`, ValueError for a file of another program, of another version or changed by hand."""
        path = folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"there is no {FILE} in {folder}: name the folder that was the --output of python -m diffusion_core.training")
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            found = fields.pop("format", None)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged or not a run of diffusion_core ({error}); the command that trained writes it anew when the file is gone") from error
        if found != FORMAT:
            raise ValueError(f"{path} says format {found!r}, expected {FORMAT!r}: it is of another program or of another version of diffusion_core")
        try:
            checksum = fields.pop("sha256", None)
            run = cls.from_json(fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} does not say how to build a denoiser: {error}") from error
        if checksum != _checksum(fields):
            raise ValueError(f"{path} was changed after it was written, and the weights beside it belong to what it said before; undo the change, or train the new run into another folder")
        return run


def load_run(folder: str | Path, average: bool = True) -> Denoiser:
    r"""The denoiser that `python -m diffusion_core.training` trained into a folder, on the CPU, frozen, in evaluation mode.

    >>> import tempfile, torch
    >>> from diffusion_core.training import load_run
    >>> from diffusion_core.training.command import main
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     told = "moons --steps 2 --network MLP(width=8) --quiet".split()
    ...     status = main([*told, "--output", folder])
    ...     denoiser = load_run(folder)
    >>> status, denoiser(torch.zeros(5, 2), 0.5).shape
    (0, torch.Size([5, 2]))

    average: the averaged weights, or with False the raw ones of the last step. A run that is still going gives those of its last checkpoint.

    Nothing is unpickled. Raises FileNotFoundError for a folder without a run or without a checkpoint, ValueError for a `run.json` that names what the
    package does not have or that was changed, and for weights that are damaged or of another run.
    """
    folder = Path(folder)
    denoiser = Run.read(folder).denoiser()
    return load(folder, denoiser, average=average)


def _checksum(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
