"""A run and its checkpoint: where it goes on, and when it writes."""

import errno
from pathlib import Path
from typing import Any

from diffusion_core.training import processes
from diffusion_core.training.checkpoint import NAME, header, make_folder, parse, write
from diffusion_core.training.identity import differences
from diffusion_core.training.state import State


class Checkpoints:
    """Writes the state of a run every so many steps, and hands it back to the same run. The first process alone reads and writes.

    run: what makes it this run, as `identity` records it. Raises ValueError for a folder that is a file, OSError for one that cannot be made.
    """

    def __init__(self, accelerator: Any, folder: str | Path, every: int, run: dict[str, Any], state: State):
        self.accelerator, self.file, self.every, self.run, self.state = accelerator, Path(folder) / NAME, every, run, state
        self.seed = 0
        self.header = b""
        if accelerator.is_main_process:
            make_folder(self.file.parent)

    def resume(self, seed: int, given: bool) -> int:
        """Bring the state to where the checkpoint stands, or write the first one; returns the seed of the run.

        seed: the one drawn now; given: from the caller's generator, so that it has to be the checkpoint's. Another run's that made no step is replaced:
        it failed at the first, or was stopped before. Raises ValueError for a later one of another run and for a file that is damaged or none.
        """
        if self.accelerator.is_main_process:
            self.header = header(self.file)
        raw = self.file.read_bytes() if self.accelerator.is_main_process and self.file.exists() else None
        raw = processes.first_sends(self.accelerator, raw)
        self.seed = seed
        if raw is None:
            self.save()
            return seed
        record, tensors = parse(self.file, raw)
        unlike = differences(record["run"], self.run)
        if given and record["seed"] != seed:
            unlike.append("the generator's seed is another (seed it as then, or give none to go on with the checkpoint's)")
        if unlike and record["step"] == 0:
            self.save()
            return seed
        if unlike:
            raise ValueError(f"{self.file} belongs to another run: {'; '.join(unlike)}. Call fit as then to continue it, or name another folder to begin anew")
        try:
            self.state.restore(tensors)
        except ValueError as error:
            raise ValueError(f"{self.file} belongs to another run: {error}. Call fit as then to continue it, or name another folder to begin anew") from error
        self.seed = record["seed"]
        return self.seed

    def after_step(self, steps: int, pressed: bool) -> None:
        """Write when it is time, at the end, and when somebody interrupts, who is then obeyed."""
        done = len(self.state.losses)
        if pressed:
            if self.accelerator.is_main_process:
                self._write()
            raise KeyboardInterrupt(f"fit was interrupted after step {done} of {steps}; the same call continues there")
        if done % self.every == 0 or done == steps:
            self.save()

    def save(self) -> None:
        """Write, while the other processes wait. Raises OSError in all of them when it fails."""
        failure = None
        if self.accelerator.is_main_process:
            try:
                self._write()
            except OSError as error:
                failure = error
        failed = processes.first_says(self.accelerator, failure is not None)
        if failure is not None:
            raise failure
        if failed:
            raise OSError("fit: process 0 could not write the checkpoint; its own error says why")

    def _write(self) -> None:
        now = header(self.file)
        if now not in (b"", self.header):
            raise FileExistsError(errno.EEXIST, "the checkpoint is not the one that this run read or wrote last; another run works in this folder, and this one stops", str(self.file))
        write(self.file, {"seed": self.seed, "step": len(self.state.losses), "run": self.run}, self.state.tensors())
        self.header = header(self.file)
