"""What public functions ask of their arguments before they compute: a count, a callable, a generator."""

from numbers import Integral
from typing import Any

import torch


def is_count(value: Any, least: int = 1) -> bool:
    """Whether it is an integer, of Python or numpy, of at least `least`; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def require_count(value: Any, what: str, least: int = 1) -> int:
    """The value as an int, where it is one of at least `least`. Raises ValueError with `what` it should have been."""
    if not is_count(value, least):
        raise ValueError(f"{what} must be {'a positive integer' if least == 1 else f'an integer of at least {least}'}, got {value!r:.80}")
    return int(value)


def require_callable(function: object, what: str, form: str) -> None:
    """Raises ValueError unless it is something to call: `what` it is, and of which `form`."""
    if not callable(function) or isinstance(function, type):
        raise ValueError(f"{what} must be a callable {form}, got {named(function)}")


def named(value: object) -> str:
    """A value in an error: its type and how it prints, or the class that somebody forgot to call."""
    return f"the class {value.__name__} (call it to make one)" if isinstance(value, type) else f"{type(value).__name__} {value!r:.40}"


def drawn_on(generator: torch.Generator | None, otherwise: torch.device | str | None = None) -> torch.device | str | None:
    """Where random numbers are drawn: on the generator's device, `otherwise` without one. Raises ValueError for what is no generator, such as a seed."""
    if generator is None:
        return otherwise
    if not hasattr(generator, "device"):
        raise ValueError(f"generator must be a torch.Generator or None, got {named(generator)}; a seed n becomes torch.Generator().manual_seed(n)")
    return generator.device


def on_cpu(generator: torch.Generator | None) -> torch.Generator | None:
    """For what is computed on the CPU whatever the device: the generator itself where it lives there, else one that a draw from it seeds. Raises as `drawn_on`."""
    where = drawn_on(generator)
    if generator is None or generator.device.type == "cpu":
        return generator
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator, device=where)))
