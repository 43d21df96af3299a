"""What a step is trained on: data with their conditions, times that adapt, labels that are dropped."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffusion_core.schedules import Schedule

Data = Tensor | tuple[Tensor, dict[str, Tensor]]


@runtime_checkable
class AdaptiveTimes(Protocol):
    """Times that learn from the losses where to look more often, such as `LossSecondMoment`.

    A run with a checkpoint needs two methods more, `state_dict() -> {name: tensor}` and `load_state_dict(state)`.

    >>> from diffusion_core import LossSecondMoment, uniform_times
    >>> from diffusion_core.training import AdaptiveTimes
    >>> isinstance(LossSecondMoment(10), AdaptiveTimes), isinstance(uniform_times, AdaptiveTimes)
    (True, False)
    """

    def __call__(self, schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor: ...

    def weights(self, t: Tensor) -> Tensor: ...

    def update(self, t: Tensor, losses: Tensor) -> None: ...


def drop_labels(label: Tensor, rate: float, null: int, generator: torch.Generator | None = None) -> Tensor:
    """Each label by itself becomes `null` with probability `rate`. label: (B,) -> (B,). Drawn on the generator's device.

    >>> import torch
    >>> from diffusion_core.training import drop_labels
    >>> label = drop_labels(torch.zeros(10_000, dtype=torch.long), 0.1, null=10, generator=torch.Generator().manual_seed(0))
    >>> label.unique().tolist(), round((label == 10).float().mean().item(), 1)
    ([0, 10], 0.1)
    """
    where = generator.device if generator is not None else label.device
    dropped = torch.rand(label.shape, generator=generator, device=where) < rate
    return torch.where(dropped.to(label.device), null, label)
