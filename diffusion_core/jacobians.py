r"""Jacobians of a field x -> f(x), their trace (the divergence), and Hutchinson's estimate of it, in one place.

f takes and returns (B, *D) and treats each sample alone: row b of its value depends on row b of x only (no batch normalization). Everything here
is differentiable, in x and in what f is made of, so that a loss may train through it; under `torch.no_grad()` and `torch.inference_mode()` the
results carry no graph. Derived in chapters 09 (score matching) and 16 (likelihood).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from diffusion_core.doors import drawn_on, require_callable, require_count

__all__ = ["divergence", "draw_probes", "hutchinson", "jacobian", "score_of"]

Field = Callable[[Tensor], Tensor]


def jacobian(f: Field, x: Tensor) -> Tensor:
    r"""$J_{ij}=\partial f_i/\partial x_j$ of each sample, (B, *D, *D): the output's coordinates first. d backward passes, d the number of coordinates.

    x: (B, *D). Raises ValueError for a value of another shape, and for one that no differentiable path connects with x.

    >>> import torch
    >>> from diffusion_core import jacobian
    >>> matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> jacobian(lambda x: x @ matrix.T, torch.zeros(1, 2)).tolist()
    [[[1.0, 2.0], [3.0, 4.0]]]
    """
    build = torch.is_grad_enabled()
    with _recording():
        x, y = _recorded(f, x)
        rows = [_pull_back(y, x, _unit(y, i), build) for i in range(_coordinates(x))]
    return torch.stack(rows, 1).reshape(len(x), *x.shape[1:], *x.shape[1:])


def divergence(f: Field, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""$(f(x),\ \mathrm{tr}\,J=\sum_i\partial f_i/\partial x_i)$: (B, *D) and (B,), exact, in d backward passes.

    x: (B, *D). Raises ValueError as `jacobian` does.

    >>> import torch
    >>> from diffusion_core import divergence
    >>> value, trace = divergence(lambda x: x**2, torch.tensor([[1.0, 2.0]]))
    >>> value.tolist(), trace.tolist()  # 2 x_1 + 2 x_2
    ([[1.0, 4.0]], [6.0])
    """
    build = torch.is_grad_enabled()
    with _recording():
        x, y = _recorded(f, x)
        trace = sum((_pull_back(y, x, _unit(y, i), build)[:, i] for i in range(_coordinates(x))), y.new_zeros(len(x)))
    return (y, trace) if build else (y.detach(), trace.detach())


def hutchinson(f: Field, x: Tensor, probes: int | Tensor = 1, kind: str = "rademacher", generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    r"""$(f(x),\ \frac1n\sum_kv_k^\top J\,v_k)$: (B, *D) and (B,), unbiased for $\mathrm{tr}\,J$ since $\mathbb E\,vv^\top=I$. Hutchinson 1990.

    One backward pass a probe. With $S=(J+J^\top)/2$ the variance of one probe is $2\sum_{i\ne j}S_{ij}^2$ for Rademacher and $2\|S\|_F^2$ for Gaussian
    probes; where J is symmetric, S = J.

    probes: how many are drawn for each sample, as by `draw_probes(x, probes, kind, generator)`, or the probes themselves, (n, B, *D): those keep
    their values from call to call, which an ODE solver needs. Raises ValueError as `jacobian` and `draw_probes` do.

    >>> import torch
    >>> from diffusion_core import hutchinson
    >>> matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x, seeded = torch.zeros(1, 2), torch.Generator().manual_seed(0)
    >>> _, trace = hutchinson(lambda x: x @ matrix.T, x, probes=1000, generator=seeded)
    >>> abs(trace.item() - 5) < 0.8  # five standard errors
    True
    """
    v = probes if isinstance(probes, Tensor) else draw_probes(x, probes, kind, generator)
    _require_batch(x)
    if v.ndim != x.ndim + 1 or v.shape[1:] != x.shape or len(v) == 0:
        raise ValueError(f"probes must have shape (n, {', '.join(map(str, x.shape))}) for x of shape {tuple(x.shape)}, got {tuple(v.shape)}")
    build = torch.is_grad_enabled()
    with _recording():
        x, y = _recorded(f, x)
        trace = sum(((_pull_back(y, x, one, build) * one.reshape(len(x), -1)).sum(1) for one in v.to(y)), y.new_zeros(len(x))) / len(v)
    return (y, trace) if build else (y.detach(), trace.detach())


def draw_probes(x: Tensor, n: int = 1, kind: str = "rademacher", generator: torch.Generator | None = None) -> Tensor:
    """(n, B, *D) independent probes, n for each sample of x (B, *D): signs ("rademacher") or standard normal numbers ("gaussian").

    In the dtype and on the device of x, drawn on the generator's. Raises ValueError for n < 1, for another kind, and for an x that is no such batch.

    >>> import torch
    >>> from diffusion_core import draw_probes
    >>> probes = draw_probes(torch.zeros(3, 2), n=100)
    >>> probes.shape, probes.unique().tolist()
    (torch.Size([100, 3, 2]), [-1.0, 1.0])
    """
    _require_batch(x)
    n = require_count(n, "n, the number of probes,")
    where = drawn_on(generator, x.device)
    shape = (n, *x.shape)
    if kind == "rademacher":
        return (2 * torch.randint(2, shape, generator=generator, device=where) - 1).to(x)
    if kind == "gaussian":
        return torch.randn(shape, generator=generator, dtype=x.dtype, device=where).to(x.device)
    raise ValueError(f'kind must be "rademacher" or "gaussian", got {kind!r}')


def score_of(log_prob: Callable[[Tensor], Tensor]) -> Field:
    r"""The score $x\mapsto\nabla_x\log p(x)$ of a log-density `log_prob`: (B, *D) -> (B,), normalized or not, by one backward pass.

    An energy model's is `score_of(lambda x: -energy(x))`. Differentiable in x and in the parameters. The score raises ValueError for values that are
    not (B,), and for those that no differentiable path connects with x.

    >>> import torch
    >>> from diffusion_core import score_of
    >>> score = score_of(lambda x: -x.square().sum(1) / 2)
    >>> score(torch.tensor([[1.0, -2.0]])).tolist()
    [[-1.0, 2.0]]
    """

    require_callable(log_prob, "log_prob", "x -> the log-density, (B, *D) -> (B,)")

    def score(x: Tensor) -> Tensor:
        build = torch.is_grad_enabled()
        with _recording():
            x = _tracked(x)
            value = log_prob(x)
            if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
                raise ValueError(f"a log-density must give one number a sample, shape ({len(x)},), got {_shown(value)}; sum over the coordinates")
            return _pull_back(value, x, torch.ones_like(value), build).reshape(x.shape)

    return score


def evaluated(f: Field, x: Tensor) -> Tensor:
    """f(x). Raises ValueError unless it has the shape of x."""
    require_callable(f, "a field, such as a score,", "x -> (B, *D)")
    y = f(x)
    if not isinstance(y, Tensor) or y.shape != x.shape:
        raise ValueError(f"a field, such as a score, must return the shape of x, {tuple(x.shape)}, got {_shown(y)}")
    return y


@contextmanager
def _recording() -> Iterator[None]:
    """Graphs are recorded here, whatever is said outside."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _recorded(f: Field, x: Tensor) -> tuple[Tensor, Tensor]:
    """x with a graph that starts at it, and f there."""
    x = _tracked(x)
    return x, evaluated(f, x)


def _tracked(x: Tensor) -> Tensor:
    _require_batch(x)
    x = x.clone() if x.is_inference() else x
    return x if x.requires_grad else x.detach().requires_grad_()


def _require_batch(x: Tensor) -> None:
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 1):
        raise ValueError(f"x must be a floating tensor of shape (B, *D), got {_shown(x)}")


def _pull_back(y: Tensor, x: Tensor, v: Tensor, build: bool) -> Tensor:
    r"""$v^\top J$, (B, d), J the Jacobian of y in x. The graph of y is kept: more than one may be asked for."""
    pulled = torch.autograd.grad(y, x, v, create_graph=build, retain_graph=True, allow_unused=True)[0] if y.requires_grad else None
    if pulled is None:
        raise ValueError("no differentiable path leads from x to the value: was it computed under torch.no_grad(), from a detached x, or does it not depend on x?")
    return pulled.reshape(len(x), -1)


def _unit(y: Tensor, i: int) -> Tensor:
    """The i-th basis vector for each sample, in the shape of y."""
    unit = torch.zeros_like(y).reshape(len(y), -1)
    unit[:, i] = 1
    return unit.reshape(y.shape)


def _coordinates(x: Tensor) -> int:
    return math.prod(x.shape[1:])


def _shown(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
