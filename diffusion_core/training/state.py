"""Everything that a step changes, as named tensors: what a checkpoint holds."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_core.denoiser import Denoiser

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class State:
    """The raw and the averaged weights, AdamW's moments, what adaptive times have learned, the loss of every step so far.

    The number of steps done is the number of losses. A network that draws from torch's global generator (dropout) gets the state of that too.
    """

    denoiser: Denoiser
    average: Denoiser
    optimizer: torch.optim.Optimizer
    times: Any = None
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._untouched = _global_states(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def tensors(self) -> dict[str, Tensor]:
        """Copies on the CPU."""
        held = {**_named("weights", self.denoiser), **_named("average", self.average), "losses": torch.tensor(self.losses, dtype=torch.float64)}
        for name, parameter in self.denoiser.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                held[f"optimizer.{key}.{name}"] = value
        if self.times is not None:
            held |= {f"times.{name}": value for name, value in self.times.state_dict().items()}
        now = _global_states(self._device)
        if any(not torch.equal(now[name], self._untouched[name]) for name in now):
            held |= now
        return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in held.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over a checkpoint's tensors. Raises ValueError, with nothing changed, when the weights do not fit."""
        put("weights", tensors, self.denoiser)
        put("average", tensors, self.average)
        self.losses[:] = tensors["losses"].tolist()
        for name, parameter in self.denoiser.named_parameters():
            if f"optimizer.step.{name}" in tensors:
                moments = {key: torch.empty_like(parameter).copy_(tensors[f"optimizer.{key}.{name}"]).detach() for key in MOMENTS}
                self.optimizer.state[parameter] = {"step": tensors[f"optimizer.step.{name}"].to(parameter.device), **moments}
        if self.times is not None:
            self.times.load_state_dict({name.removeprefix("times."): value for name, value in tensors.items() if name.startswith("times.")})
        for name, module in _global_generators(self._device).items():
            if name in tensors:
                module.set_rng_state(tensors[name])


def put(kind: str, tensors: dict[str, Tensor], denoiser: Denoiser) -> None:
    """Copy the tensors of one kind ("weights" or "average") into a denoiser. Raises ValueError, with nothing changed, when they do not fit."""
    _check_fit(kind, tensors, denoiser)
    with torch.no_grad():
        for name, value in _named(kind, denoiser).items():
            value.copy_(tensors[name])


def _check_fit(kind: str, tensors: dict[str, Tensor], denoiser: Denoiser) -> None:
    wanted = {name: (tuple(value.shape), value.dtype) for name, value in _named(kind, denoiser).items()}
    found = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items() if name.startswith(f"{kind}.")}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            raise ValueError(f"{name.removeprefix(f'{kind}.')} is {_shown(found.get(name))} there and {_shown(wanted.get(name))} here")


def _shown(tensor: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "missing" if tensor is None else f"{str(tensor[1]).removeprefix('torch.')} {tensor[0]}"


def _named(kind: str, module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those included that a state_dict leaves out."""
    return {f"{kind}.{name}": value for name, value in (*module.named_parameters(), *module.named_buffers())}


def _global_generators(where: torch.device) -> dict[str, Any]:
    return {"random.cpu": torch} | {"cuda": {"random.cuda": torch.cuda}, "mps": {"random.mps": torch.mps}}.get(where.type, {})


def _global_states(where: torch.device) -> dict[str, Tensor]:
    return {name: module.get_rng_state() for name, module in _global_generators(where).items()}
