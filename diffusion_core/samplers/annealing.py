r"""Annealed Langevin dynamics, NCSN's sampler, and how its ladder and its step are chosen. Derived in chapter 12.

NCSN's step $\alpha_i=\epsilon\,\sigma_i^2/\sigma_L^2$ is the same share of each level's variance, $\eta=\alpha_i/\sigma_i^2=\epsilon/\sigma_L^2$: `step` is this $\eta$. Papers and
programs differ by a factor: Song and Ermon 2019 move by $\frac{\alpha_i}2s+\sqrt{\alpha_i}z$ as we do; Song and Ermon 2020, and the code of both, by
$\alpha_is+\sqrt{2\alpha_i}z$, which is $\eta=2\epsilon/\sigma_L^2$. With $\sigma_L=0.01$ the first's $\epsilon=2\cdot10^{-5}$ is $\eta=0.2$ (0.4 in its code), the second's
$6.2\cdot10^{-6}$ for CIFAR-10 is $\eta=0.124$.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from diffusion_core.denoiser import Denoise
from diffusion_core.doors import require_count
from diffusion_core.samplers.grids import checked_grid, require_signal
from diffusion_core.schedules import Schedule, normal_like


def annealed_langevin(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, n: int = 5, step: float = 0.1, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    r"""n Langevin steps at every time of the grid: $x\leftarrow x+\frac\eta2(\alpha\hat x_0-x)+\sqrt\eta\,\sigma z$, $\eta$ = step. Song and Ermon 2019, algorithm 1.

    This is `langevin` with step $\eta\sigma^2$, since the score is $(\alpha\hat x_0-x)/\sigma^2$. From one time t to the next, s, the state is multiplied by $\alpha_s/\alpha_t$, so
    that it is NCSN's chain in $x/\alpha$ on every path. A grid that ends at t = 0 ends with the denoised image: where sigma(0) = 0 in place of Langevin steps, on
    a path with a floor after those at the floor (Song and Ermon 2020, algorithm 1).

    Yields the start, each of the steps, and the denoised image. NCSN's L levels: `GeometricVE(sigma_min, sigma_max)` with `uniform(L - 1)`. The start is
    `schedule.noise(shape, t=times[0])`. Stable for $\eta<4$. Raises ValueError unless 0 < step < 4 and n >= 1, for a bad grid, and where alpha = 0.

    >>> import torch
    >>> from diffusion_core import GeometricVE, annealed_langevin, ring, uniform
    >>> schedule, seeded = GeometricVE(0.01, 10.0), torch.Generator().manual_seed(0)
    >>> start = schedule.noise((500, 2), seeded)
    >>> walk = ring().denoiser(schedule), schedule, start, uniform(20)
    >>> states = list(annealed_langevin(*walk, n=5, step=0.5, generator=seeded))
    >>> # the start, 21 levels of 5 steps, the denoised image; the ring's radius
    >>> len(states), round(states[-1].norm(dim=1).median().item(), 1)
    (107, 1.4)
    """
    n = require_count(n, "n, the number of Langevin steps a level,")
    if not 0 < step < 4:
        raise ValueError(f"step, a share of each level's variance, must lie in (0, 4), got {step}; from 4 on the chain diverges. NCSN's epsilon / sigma_L^2 is 0.2")
    denoise, times, alpha, sigma = checked_grid(denoise, schedule, x, times)
    require_signal(times, alpha)
    yield x
    before = float(alpha[0])
    for t, a, s in zip(times, alpha.tolist(), sigma.tolist()):
        if s == 0:
            break
        x = a / before * x
        before = a
        for _ in range(n):
            x = x + step / 2 * (a * denoise(x, t) - x) + math.sqrt(step) * s * normal_like(x, generator)
            yield x
    if times[-1] == 0:
        yield denoise(x, times[-1] if sigma[-1] > 0 else times[-2])


def annealed_variance(ratio: float, step: float, n: int) -> float:
    r"""$\frac{s_n^2}{\sigma_i^2}=(1-\frac\eta2)^{2n}\Big(\gamma^2-\frac1{1-\eta/4}\Big)+\frac1{1-\eta/4}$: the variance of the noise after n steps at level i, in units of $\sigma_i^2$.

    For a point mass as data and a chain that arrives from level $\sigma_{i-1}=\gamma\sigma_i$ with that level's variance; $\gamma$ = ratio, $\eta$ = step. Song and Ermon 2020,
    proposition 3, in our step. Raises ValueError unless ratio >= 1, 0 < step < 4 and n >= 1.

    >>> from diffusion_core import annealed_variance
    >>> # settles at 1 / (1 - 0.4 / 4)
    >>> [round(annealed_variance(ratio=2.0, step=0.4, n=n), 3) for n in (1, 5, 50)]
    [2.96, 1.421, 1.111]
    """
    n = require_count(n, "n, the number of Langevin steps a level,")
    if not (1 <= ratio < math.inf and 0 < step < 4):
        raise ValueError(f"need a ratio of neighboring levels of at least 1 and a step in (0, 4), got {ratio} and {step}")
    settled = 1 / (1 - step / 4)
    return (1 - step / 2) ** (2 * n) * (ratio**2 - settled) + settled


def annealed_step(ratio: float, n: int) -> float:
    r"""The step $\eta\in(0,2]$ whose `annealed_variance(ratio, step, n)` is nearest to 1. Song and Ermon 2020, technique 4.

    The variance is above 1 at every step (the chain arrives too wide and settles too wide), so this is the step where it is smallest. Raises ValueError unless
    ratio > 1 and n >= 1.

    >>> from diffusion_core import annealed_step, annealed_variance
    >>> step = annealed_step(ratio=1.5, n=5)
    >>> round(step, 2), round(annealed_variance(1.5, step, 5), 2)
    (0.54, 1.2)
    """
    n = require_count(n, "n, the number of Langevin steps a level,")
    if not 1 < ratio < math.inf:
        raise ValueError(f"ratio, of neighboring noise levels, must be larger than 1, got {ratio}")
    low, high = 0.0, 2.0
    for _ in range(8):  # each round narrows the interval 100 times about the lowest point of a fine grid
        grid = torch.linspace(low, high, 202, dtype=torch.float64)[1:].tolist()
        best = min(grid, key=lambda step: annealed_variance(ratio, step, n))
        width = (high - low) / 201
        low, high = max(0.0, best - width), min(2.0, best + width)
    return best


def ladder_ratio(dims: int, overlap: float = 0.5) -> float:
    r"""The ratio $\gamma$ of neighboring noise levels with $\Phi(\sqrt{2D}(\gamma-1)+3\gamma)-\Phi(\sqrt{2D}(\gamma-1)-3\gamma)$ = overlap. Song and Ermon 2020, technique 2.

    D = dims. In many dimensions the length of noise of level $\sigma_i$ is near $\mathcal N(\sqrt D\sigma_i,\sigma_i^2/2)$; overlap is the probability, by that law, that it lies
    within three standard deviations of the mean length at the level before, $\gamma\sigma_i$. The ladder from $\sigma_1$ to $\sigma_L$ has $L=1+\log(\sigma_1/\sigma_L)/\log\gamma$ levels.
    Raises ValueError for an overlap outside (0, 0.99], and where it is reached by no ratio: in few dimensions ($\sqrt{2D}\le3$) shells of all ratios overlap.

    >>> import math
    >>> from diffusion_core import ladder_ratio
    >>> ratio = ladder_ratio(dims=28 * 28)
    >>> # and the levels from 50 down to 0.01
    >>> round(ratio, 3), math.ceil(1 + math.log(50 / 0.01) / math.log(ratio))
    (1.082, 110)
    """
    dims = require_count(dims, "dims, the number of dimensions,")
    if not 0 < overlap <= 0.99:
        raise ValueError(f"overlap, a probability, must lie in (0, 0.99], got {overlap}; Song and Ermon's is 0.5")
    root = math.sqrt(2 * dims)

    def excess(log_gap: float) -> float:
        gap = math.exp(log_gap)
        return _normal_cdf(root * gap + 3 * (1 + gap)) - _normal_cdf(root * gap - 3 * (1 + gap)) - overlap

    low, high = math.log(1e-9), math.log(1e3)
    if excess(high) > 0:
        raise ValueError(f"in {dims} dimensions levels of every ratio overlap by more than {overlap}; choose the ratio by hand, such as 2")
    return 1 + math.exp(_bisected(excess, low, high))


def _bisected(f: Callable[[float], float], low: float, high: float) -> float:
    """The root of a function that is positive at low and not at high."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return (low + high) / 2


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))
