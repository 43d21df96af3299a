"""What makes two runs the same run, written so that a difference can be named.

A checkpoint is continued only by the run that wrote it. Data are known by their SHA-256, functions by their name, their code and the settings they
close over, objects by their class and public settings, a network by how it prints and the settings of its modules, a path by its values.
"""

import functools
import hashlib
import math
import re
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_core.denoiser import Denoiser
from diffusion_core.schedules import Schedule

PLACES = 17


def model_record(denoiser: Denoiser) -> dict[str, Any]:
    """What a denoiser is, apart from its weights."""
    return {
        "network": described(denoiser.net),
        "target": described(denoiser.target),
        "sigma_data": denoiser.sigma_data,
        "schedule": described(denoiser.schedule),
        "path": _path(denoiser.schedule),
    }


def data_record(x0: Tensor, cond: dict[str, Tensor]) -> dict[str, str]:
    """Shape, dtype and SHA-256 of the data and of each condition."""
    return {name: _digest(value) for name, value in {"x0": x0, **cond}.items()}


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """One line for each entry in which a record of a checkpoint and one of this call differ."""
    unlike = {name for name in {*there, *here} if not _equal(there.get(name), here.get(name))}
    if "schedule" in unlike:
        unlike -= {"path"}
    return [_difference(name, there.get(name), here.get(name)) for name in sorted(unlike)]


def described(thing: Any, depth: int = 4) -> str:
    """A short text that is the same in every process for the same setting, and differs for another.

    Lists, dictionaries and arrays that a function closes over may be its diary; only their class is told. depth: how far settings of settings are followed.
    """
    inner = functools.partial(described, depth=depth - 1)
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    if depth == 0:
        return name
    if thing is None or isinstance(thing, bool | int | float | complex | str | bytes | torch.dtype):
        return repr(thing)
    if isinstance(thing, Tensor):
        return _digest(thing)
    if isinstance(thing, tuple):
        return f"{name}({', '.join(map(inner, thing))})"
    if isinstance(thing, functools.partial):
        return f"partial({', '.join(map(inner, (thing.func, *thing.args)))}; {_settings(thing.keywords, inner)})"
    if isinstance(thing, MethodType):
        return f"{inner(thing.__self__)}.{thing.__func__.__name__}"
    if isinstance(thing, FunctionType):
        ours = (thing.__module__ or "").split(".")[0] == __name__.split(".")[0]
        return f"{name}({_settings(_bound(thing), inner)}){'' if ours else f' code {_code(thing.__code__)}'}"
    if isinstance(thing, nn.Module):
        return "\n".join([re.sub(r" at 0x[0-9a-f]+", "", repr(thing)), *_unprinted(thing)])
    if isinstance(thing, type) or not hasattr(thing, "__dict__"):
        return name
    return f"{name}({_settings({key: value for key, value in vars(thing).items() if not key.startswith('_')}, inner)})"


def _unprinted(network: nn.Module) -> list[str]:
    """Public numbers and texts of its modules, such as the heads of an attention, which change what it computes and neither how it prints nor its shapes. Those of torch print."""
    return [
        f"{place}{'.' if place else ''}{name} = {value!r}"
        for place, module in network.named_modules()
        if not type(module).__module__.startswith("torch.")
        for name, value in sorted(vars(module).items())
        if isinstance(value, bool | int | float | str) and name != "training" and not name.startswith("_")
    ]


def _settings(values: dict[str, Any], inner: Callable[[Any], str]) -> str:
    return ", ".join(f"{name}={inner(value)}" for name, value in sorted(values.items()))


def _bound(function: FunctionType) -> dict[str, Any]:
    """What a function holds on to: its defaults, and the variables that it closes over."""
    held = {f"default{i}": value for i, value in enumerate(function.__defaults__ or ())} | (function.__kwdefaults__ or {})
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            held[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return held


def _code(code: CodeType) -> str:
    """Eight digits that change when the function is edited."""
    inner = [_code(constant) if isinstance(constant, CodeType) else sorted(map(repr, constant)) if isinstance(constant, frozenset) else repr(constant) for constant in code.co_consts]
    return hashlib.sha256(repr((code.co_code, code.co_names, inner)).encode()).hexdigest()[:8]


def _digest(value: Tensor) -> str:
    value = value.detach().cpu().contiguous()
    content = hashlib.sha256(value.reshape(-1).view(torch.uint8).numpy().data).hexdigest() if value.numel() else ""
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} {content[:16]}"


def _path(schedule: Schedule) -> list[float] | None:
    """alpha and sigma at equally spaced times. None for a path that is trained."""
    if isinstance(schedule, nn.Module):
        return None
    alpha, sigma = schedule(torch.linspace(0, 1, PLACES, dtype=torch.float64))
    return [*alpha.tolist(), *sigma.tolist()]


def _equal(there: Any, here: Any) -> bool:
    """Paths may differ by the rounding of another machine's functions."""
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        return all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in zip(there, here))
    return there == here


def _difference(name: str, there: Any, here: Any) -> str:
    if name == "path":
        return "the schedule's alpha and sigma are not the same"
    if isinstance(there, dict) and isinstance(here, dict):
        return "; ".join(f"{name} {part}" for part in differences(there, here))
    if isinstance(there, str) and isinstance(here, str):
        there, here = _first_unlike(there, here)
    return f"{name} is {there} there and {here} here"


def _first_unlike(there: str, here: str) -> tuple[str, str]:
    """The first lines in which two texts differ."""
    lines = zip([*there.splitlines(), "nothing more"], [*here.splitlines(), "nothing more"])
    return next(((a.strip(), b.strip()) for a, b in lines if a != b), (there, here))
