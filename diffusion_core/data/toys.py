r"""The two-dimensional toys, and the book's eight fixed noises."""

import math

import torch
from torch import Tensor

from diffusion_core.doors import is_count, on_cpu, require_count


def travellers(*shape: int) -> Tensor:
    """The eight noises that travel through the book: (8, *shape), float32, standard normal.

    Traveller i is drawn on the CPU from a generator of its own with the seed i, so it is the same in every chapter that asks for this
    shape, however many others are looked at, and on every device it is moved to.

    >>> import torch
    >>> from diffusion_core import travellers
    >>> noise = travellers(1, 28, 28)
    >>> noise.shape
    torch.Size([8, 1, 28, 28])
    >>> seeded = torch.Generator().manual_seed(3)
    >>> torch.equal(noise[3], torch.randn(1, 28, 28, generator=seeded))
    True
    """
    if not all(is_count(size, least=0) for size in shape):
        raise ValueError(f"the shape of one noise is given as integers, travellers(1, 28, 28), got travellers{shape}")
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(8)])


def toy(name: str, n: int, generator: torch.Generator | None = None) -> Tensor:
    r"""n points (n, 2), float32, of a two-dimensional toy: "moons", "spiral", "checkerboard" or "swiss_roll".

    Each is shifted and scaled by constants of its population, the same in both directions, to $E[x]=0$ and $E\|x\|^2=2$: its
    standard deviation, averaged over the coordinates, is 1 (`sigma_data=1`). Raises ValueError for another name or a negative n.

    >>> import torch
    >>> from diffusion_core import toy
    >>> x = toy("moons", 20000, torch.Generator().manual_seed(0))
    >>> round(x.square().sum(dim=1).mean().item(), 1)
    2.0
    """
    if name not in TOYS:
        raise ValueError(f"unknown toy {name!r}: there are {', '.join(map(repr, TOYS))}")
    n = require_count(n, "n, the number of points,", least=0)
    generator = on_cpu(generator)
    return TOYS[name](torch.rand(n, generator=generator), torch.rand(n, generator=generator), torch.randn(n, 2, generator=generator))


def _moons(u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    """Two half circles of radius 1, one upside down and moved by (1, 1/2), blurred by s = .07."""
    s = 0.07
    upper = (v < 0.5)[:, None]
    angle = torch.pi * u
    arc = torch.stack([angle.cos(), angle.sin()], dim=1)
    points = torch.where(upper, arc, torch.tensor([1.0, 0.5]) - arc) + s * noise
    variance = 0.75 + (0.5625 - 1 / math.pi) + 2 * s**2
    return (points - torch.tensor([0.5, 0.25])) / math.sqrt(variance / 2)


def _spiral(u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    """One arm r = angle of two turns; r = 4 pi sqrt(u) spreads the points evenly along it; blurred by s = .3."""
    s, end = 0.3, 4 * math.pi
    r = end * u.sqrt()
    points = torch.stack([r.cos(), r.sin()], dim=1) * r[:, None] + s * noise
    mean = torch.tensor([1 / math.pi, -2.0])
    variance = end**2 / 2 + 2 * s**2 - float(mean.square().sum())
    return (points - mean) / math.sqrt(variance / 2)


def _checkerboard(u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    """Uniform on the eight dark unit squares of a 4 x 4 board."""
    x, y = 4 * u, 2 * v
    y = y + y.floor() + x.floor() % 2
    return (torch.stack([x, y], dim=1) - 2) / math.sqrt(4 / 3)


def _swiss_roll(u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    """The cross-section of the Swiss roll: r = angle from 3 pi / 2 to 9 pi / 2, uniform in the angle, blurred by s = .4."""
    s = 0.4
    r = 1.5 * math.pi * (1 + 2 * u)
    points = torch.stack([r * r.cos(), r * r.sin()], dim=1) + s * noise
    mean = torch.tensor([2.0, 2 / (3 * math.pi)])
    variance = 9.75 * math.pi**2 - float(mean.square().sum()) + 2 * s**2
    return (points - mean) / math.sqrt(variance / 2)


TOYS = {"moons": _moons, "spiral": _spiral, "checkerboard": _checkerboard, "swiss_roll": _swiss_roll}
