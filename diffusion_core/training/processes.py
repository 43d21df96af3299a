"""One batch shared by several processes: the same random numbers as one process would draw, each process working on its rows."""

import hashlib
import json
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_core import group
from diffusion_core.devices import device
from diffusion_core.extras import needing

PIECE = 2**26  # bytes sent at once


class Share:
    """What a loss gets in place of a generator when several processes share a batch: `normal_like` draws the whole batch's noise and keeps the rows of this process.

    It has the generator's `device` and is no generator: a loss that hands it to `torch.randn` fails, instead of drawing the same noise in every process.

    >>> import torch
    >>> from diffusion_core.schedules import normal_like
    >>> from diffusion_core.training.processes import Share
    >>> x, second_half = torch.zeros(8, 3), slice(4, 8)
    >>> share = Share(torch.Generator().manual_seed(0), second_half, batch_size=8)
    >>> torch.equal(normal_like(x[4:], share), normal_like(x, torch.Generator().manual_seed(0))[4:])
    True
    """

    def __init__(self, generator: torch.Generator, rows: slice, batch_size: int):
        self.generator, self.rows, self.batch_size, self.device = generator, rows, batch_size, generator.device

    def normal_like(self, x: Tensor) -> Tensor:
        """Noise of the shape of x, the rows of this process. Raises ValueError for another number of rows."""
        if len(x) != self.rows.stop - self.rows.start:
            raise ValueError(f"the loss asks for noise of {len(x)} rows, a process has {self.rows.stop - self.rows.start} of the batch; several processes need a loss that draws one row a sample")
        whole = torch.randn((self.batch_size, *x.shape[1:]), generator=self.generator, dtype=x.dtype, device=self.device)
        return whole[self.rows].to(x.device)


def join() -> Any:
    """This process among those that `torchrun` or `accelerate launch` started, or alone: an `Accelerator`. Raises ImportError without accelerate."""
    with needing("fit", extra="train"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, which accelerate imports, misses ipywidgets
        from accelerate import Accelerator
    group.enter("fit")
    return Accelerator(cpu=device().type == "cpu", mixed_precision="no")


def rows_of(accelerator: Any, batch_size: int) -> slice:
    """The rows of the batch that this process computes; all of them when it is alone."""
    share = batch_size // accelerator.num_processes
    return slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)


def shared_seed(accelerator: Any, generator: torch.Generator | None) -> int:
    """One seed for all processes, drawn on the first of them."""
    where = generator.device if generator is not None else "cpu"
    seed = torch.randint(2**62, (1,), generator=generator, device=where)
    return int(_from_first(accelerator, seed))


def seeds_of(seed: int, step: int) -> list[int]:
    """Two: for the choice of samples and times, on the CPU like the schedules' float64, and for the noise, on the device."""
    return np.random.SeedSequence((seed, 0, step)).generate_state(2).tolist()


def check_equal(accelerator: Any, run: dict[str, Any]) -> None:
    """Every process must have been called alike: raises ValueError, in all of them, when one differs from the first."""
    exact = {name: value for name, value in run.items() if name != "path"}  # its last digit may differ between machines
    digest = int(hashlib.sha256(json.dumps(exact, sort_keys=True, default=float).encode()).hexdigest()[:15], 16)
    digests = accelerator.gather(torch.tensor([digest], device=accelerator.device)).tolist()
    others = [rank for rank, value in enumerate(digests) if value != digests[0]]
    if others:
        raise ValueError(f"fit: processes {others} were called with other data or settings than process 0; give all the whole data set, made from the same seed, and the same arguments")


def first_says(accelerator: Any, yes: bool) -> bool:
    """What the first process says, in all of them; they wait for it here."""
    return bool(_from_first(accelerator, torch.tensor([int(yes)])))


def first_sends(accelerator: Any, content: bytes | None) -> bytes | None:
    """The first process's bytes, in all of them: only one has to see the file."""
    if accelerator.num_processes == 1:
        return content
    size = int(_from_first(accelerator, torch.tensor([-1 if content is None else len(content)])))
    if size < 0:
        return None
    whole = torch.empty(size, dtype=torch.uint8)
    if content and accelerator.is_main_process:
        whole.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    for piece in whole.split(PIECE):
        piece.copy_(_from_first(accelerator, piece))
    return whole.numpy().tobytes()


def _from_first(accelerator: Any, value: Tensor) -> Tensor:
    from accelerate.utils import broadcast

    return broadcast(value.to(accelerator.device))
