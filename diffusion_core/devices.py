"""Where a notebook computes: one place that picks the device, and sizes that follow it."""

import os
from typing import TypeVar

import torch

__all__ = ["by_device", "device"]

T = TypeVar("T")


def device() -> torch.device:
    """The fastest device at hand: cuda, else mps, else cpu. The environment variable DIFFUSION_CORE_DEVICE overrides it.

    Raises ValueError when the variable names a device that torch does not know or that is not there.

    >>> from diffusion_core import device
    >>> device().type in ("cpu", "cuda", "mps")
    True
    """
    name = os.environ.get("DIFFUSION_CORE_DEVICE")
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    present = ["cpu", *["cuda"] * bool(gpus), *gpus, *["mps"] * torch.backends.mps.is_available()]
    if name not in present:
        raise ValueError(f"DIFFUSION_CORE_DEVICE={name!r}: no such device here; use one of {', '.join(present)}, or unset the variable")
    return torch.device(name)


def by_device(*, cpu: T, gpu: T) -> T:
    """`cpu` on a CPU, `gpu` on an accelerator: the sizes of a run in one visible line.

    >>> from diffusion_core import by_device, device
    >>> steps, width = by_device(cpu=(800, 32), gpu=(20_000, 128))
    >>> (steps, width) == ((800, 32) if device().type == "cpu" else (20_000, 128))
    True
    """
    return cpu if device().type == "cpu" else gpu
