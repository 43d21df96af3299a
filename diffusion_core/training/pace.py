r"""What follows from the number of a step: the learning rate and the decay of the average. Chapter 06."""

import math

import torch
from torch import nn


def learning_rate(step: int, steps: int, warmup: int) -> float:
    r"""The fraction of the peak rate at a step: a linear rise over `warmup` steps times the cosine $\frac12(1+\cos\pi n/N)$, which ends at zero.

    >>> from diffusion_core.training import learning_rate
    >>> [round(learning_rate(step, 1000, 50), 3) for step in (0, 50, 500, 1000)]
    [0.02, 0.994, 0.5, 0.0]
    """
    return min(1.0, (step + 1) / (warmup + 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def ema_decay(step: int, decay: float) -> float:
    r"""The decay of the average at step n, $\min(\text{decay}, \frac{1+n}{10+n})$: a memory of a tenth of the run so far, until that is longer than decay's own.

    With a constant decay $d$ a run of N steps keeps $d^N$ of its random start (0.999 and 1000 steps: 37 %). With the ramp the start's share after N
    steps is $\prod_n\frac{1+n}{10+n}=1/\binom{N+9}{9}$, and step n counts in proportion to about $n^8$: the power-function average of
    EDM2 (Karras et al. 2024, section 3.1).

    >>> from math import comb, isclose, prod
    >>> from diffusion_core.training import ema_decay
    >>> [round(ema_decay(step, 0.999), 3) for step in (0, 90, 100_000)]
    [0.1, 0.91, 0.999]
    >>> isclose(prod(ema_decay(step, 0.999) for step in range(50)), 1 / comb(59, 9))
    True
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float) -> None:
    r"""One step of the average: $\bar\theta\leftarrow d\,\bar\theta+(1-d)\,\theta$ for the parameters, in place; buffers are copied.

    >>> from torch import nn
    >>> from diffusion_core.training import ema_update
    >>> average, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(average.weight), nn.init.ones_(model.weight)
    >>> ema_update(average, model, 0.75)
    >>> average.weight.item()
    0.25
    """
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for kept, new in zip(average.buffers(), model.buffers()):
        kept.copy_(new)
