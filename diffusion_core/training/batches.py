"""What a step is trained on: data with their conditions, times that adapt, labels that are dropped."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffusion_core.schedules import Schedule

Data = Tensor | tuple[Tensor, dict[str, Tensor]]


@runtime_checkable
class AdaptiveTimes(Protocol):
    """Times that learn from the losses where to look more often, such as `LossSecondMoment`: what a sampler of times needs for that.

    After each step `fit` gives `update(t, losses)` the losses (n,) at the times t (n,) of the step; `weights(t)` are what it multiplies them by.
    A run with a checkpoint needs two methods more, `state_dict() -> {name: tensor}` and `load_state_dict(state)`.

    >>> import torch
    >>> from diffusion_core import LinearVP, LossSecondMoment
    >>> t, losses = torch.linspace(0.25, 1, 4), torch.tensor([3.0, 1.0, 1.0, 1.0])
    >>> times = LossSecondMoment(steps=4, history=1)
    >>> times.update(t, losses)
    >>> drawn = times(LinearVP(), 1000, torch.Generator().manual_seed(0))
    >>> round((drawn == 0.25).double().mean().item(), 1)
    0.5
    >>> (times.weights(t) * losses).round(decimals=2).tolist()  # at each t the plain mean
    [1.5, 1.5, 1.5, 1.5]
    """

    def __call__(self, schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor: ...

    def weights(self, t: Tensor) -> Tensor: ...

    def update(self, t: Tensor, losses: Tensor) -> None: ...


def drop_labels(label: Tensor, rate: float, null: int, generator: torch.Generator | None = None) -> Tensor:
    """Each label by itself becomes `null` with probability `rate`. label: (B,) -> (B,). Drawn on the generator's device.

    >>> import torch
    >>> from diffusion_core.training import drop_labels
    >>> label = torch.zeros(10_000, dtype=torch.long)
    >>> seeded = torch.Generator().manual_seed(0)
    >>> dropped = drop_labels(label, 0.1, null=10, generator=seeded)
    >>> dropped.unique().tolist(), round((dropped == 10).float().mean().item(), 1)
    ([0, 10], 0.1)
    """
    where = generator.device if generator is not None else label.device
    dropped = torch.rand(label.shape, generator=generator, device=where) < rate
    return torch.where(dropped.to(label.device), null, label)
