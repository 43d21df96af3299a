r"""Sampling over processes: many samples in batches, each batch drawn by one process, the same samples however many processes there are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_core import group
from diffusion_core.doors import drawn_on, require_count

Draw = Callable[[Tensor, torch.Generator], Tensor]
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int32, torch.int64, torch.bool)


def spread(draw: Draw, n: int, batch_size: int = 256, generator: torch.Generator | None = None) -> Tensor:
    r"""n samples, drawn in batches by all processes of `torchrun` or `accelerate launch`, and by this one where there is no launcher: (n, *D), on the CPU.

    >>> import torch
    >>> from diffusion_core import LinearVP, ddim, last, ring, spread, uniform
    >>> schedule = LinearVP()
    >>> denoise = ring().denoiser(schedule)
    >>> def draw(rows, generator):
    ...     x = schedule.noise((len(rows), 2), generator)
    ...     walk = denoise, schedule, x, uniform(10)
    ...     return last(ddim(*walk, eta=1.0, generator=generator))
    >>> spread(draw, 10, batch_size=4, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([10, 2])

    Batch k holds the samples $kb, .., \min(n, kb + b) - 1$ and has a generator of its own, seeded by $(\text{seed}, k)$; process r of P draws the batches
    $r, r + P, ..$. What a sample is depends on the seed and on the batch size, never on P: on equal machines the samples are equal bit for bit. Every
    process gets all of them.

    draw: `draw(rows, generator) -> (len(rows), *D)`, rows the numbers of its samples (int64, on the CPU), so that `labels[rows]` are theirs. It must take
    all its randomness from the generator, which lives on the device of `generator` (the CPU without one), and gradients are off around it.
    n, batch_size: with fewer than P batches some processes have nothing to do. generator: gives the seed, that of the first process for all.
    Raises ValueError for n or batch_size below 1 and for draws of another length or of different shapes or dtypes, ImportError without accelerate under a launcher.
    Source: EDM's sampling script (Karras et al. 2022) gives every sample a seed of its own; a seed a batch does the same with one draw a step.
    """
    n, batch_size = require_count(n, "spread: n"), require_count(batch_size, "spread: batch_size")
    where = torch.device(drawn_on(generator) or "cpu")
    state = group.enter("sampling over processes")
    seed = torch.randint(2**62, (1,), generator=generator, device=where)
    if state is not None:
        seed = _broadcast(seed, 0, state)
    batches = torch.arange(n).split(batch_size)
    drawn: dict[int, Tensor] = {}
    for k in range(state.process_index if state else 0, len(batches), state.num_processes if state else 1):
        rng = torch.Generator(where).manual_seed(int(np.random.SeedSequence((int(seed), k)).generate_state(1, np.uint64)[0]))
        with torch.no_grad():
            drawn[k] = draw(batches[k], rng).detach().cpu()
        first = next(iter(drawn.values()))
        if drawn[k].dtype not in DTYPES:
            raise ValueError(f"spread: draw returned {drawn[k].dtype}; convert its samples to one of {', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPES)}")
        if drawn[k].shape[:1] != batches[k].shape or drawn[k].shape[1:] != first.shape[1:] or drawn[k].dtype != first.dtype:
            raise ValueError(f"spread: draw returned {drawn[k].dtype} {tuple(drawn[k].shape)} for the {len(batches[k])} samples of batch {k}; expected one sample for each of its rows, of one dtype and one shape in all batches")
    return torch.cat([drawn[k] for k in range(len(batches))]) if state is None else _gathered(drawn, batches, state)


def _broadcast(value: Tensor, source: int, state: Any) -> Tensor:
    """The value that process `source` holds, on the CPU; the others hand in one of the same shape and dtype."""
    value = value.to(state.device)
    torch.distributed.broadcast(value, source)
    return value.cpu()


def _gathered(drawn: dict[int, Tensor], batches: tuple[Tensor, ...], state: Any) -> Tensor:
    """All batches on all processes. The first process, which has batch 0, says what a sample looks like: some processes may have drawn none."""
    first = drawn.get(0, torch.empty(1))
    layout = torch.zeros(10, dtype=torch.int64)
    if state.process_index == 0:
        layout[: 1 + first.ndim] = torch.tensor([DTYPES.index(first.dtype), *first.shape[1:], -1])
    code, *sizes = _broadcast(layout, 0, state).tolist()
    shape = sizes[: sizes.index(-1)]
    parts = []
    for k, rows in enumerate(batches):
        part = drawn.get(k, torch.empty(len(rows), *shape, dtype=DTYPES[code]))
        if part.dtype != DTYPES[code] or part.shape != (len(rows), *shape):
            raise ValueError(f"spread: batch {k} is {part.dtype} {tuple(part.shape)} and batch 0 has samples {DTYPES[code]} {tuple(shape)}; expected samples of one dtype and one shape")
        parts.append(_broadcast(part, k % state.num_processes, state))
    return torch.cat(parts)
