"""How the times of a batch are drawn: evenly, at the knots of a chain, or where log(sigma / alpha) is normal. Chapters 06, 07 and 12 train with them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_core.doors import drawn_on, require_count
from diffusion_core.schedules import Schedule, double

Times = Callable[[Schedule, int, torch.Generator | None], Tensor]


def uniform_times(schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor:
    r"""(n,) stratified uniform times in (0.001, 1): one in each of n equal cells, in random order of samples. Kingma et al. 2021, appendix I.

    >>> import torch
    >>> from diffusion_core import LinearVP, uniform_times
    >>> t = uniform_times(LinearVP(), 4, torch.Generator().manual_seed(0))
    >>> # one in each quarter
    >>> [int(4 * (u - 0.001) / 0.999) for u in t.sort().values.tolist()]
    [0, 1, 2, 3]
    """
    n = require_count(n, "n, the number of times,")
    device = drawn_on(generator)
    offset = double(torch.rand((), generator=generator, dtype=torch.float32, device=device))
    cells = torch.arange(n, dtype=torch.float64, device=offset.device)
    shuffled = torch.randperm(n, generator=generator, device=device).to(offset.device)
    return 0.001 + 0.999 * ((cells + offset) / n)[shuffled]


def discrete_times(steps: int) -> Times:
    r"""Times $i/N$ with i uniform in {1, .., N}: DDPM's, both ends included. Raises ValueError unless steps is a positive integer.

    >>> import torch
    >>> from diffusion_core import LinearVP, discrete_times
    >>> t = discrete_times(4)(LinearVP(), 1000, torch.Generator().manual_seed(0))
    >>> t.unique().tolist()  # never 0, where there is no noise to predict
    [0.25, 0.5, 0.75, 1.0]
    """
    steps = require_count(steps, "the number of steps")

    def times(schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor:
        i = torch.randint(1, steps + 1, (n,), generator=generator, device=drawn_on(generator))
        return double(i) / steps

    return times


def lognormal_times(mean: float = -1.2, std: float = 1.2) -> Times:
    r"""Times at which $\log(\sigma/\alpha)\sim\mathcal N(mean, std^2)$, cut to the path's range: Karras et al. 2022, table 1. Raises ValueError unless mean is finite and 0 < std < inf.

    >>> import torch
    >>> from diffusion_core import EDM, lognormal_times
    >>> schedule = EDM()
    >>> seeded = torch.Generator().manual_seed(0)
    >>> t = lognormal_times(-1.2, 1.2)(schedule, 10_000, seeded)
    >>> log_sigma = schedule(t)[1].log()
    >>> round(log_sigma.mean().item(), 1), round(log_sigma.std().item(), 1)
    (-1.2, 1.2)
    """
    if not (math.isfinite(mean) and 0 < std < math.inf):
        raise ValueError(f"std must be positive and finite, and mean finite, got {std} and {mean}; the usual values are 1.2 and -1.2")

    def times(schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor:
        z = double(torch.randn(n, generator=generator, dtype=torch.float32, device=drawn_on(generator)))
        low, high = schedule.log_snr_range()
        return schedule.time((-2 * (mean + std * z)).clamp(low, high))

    return times
