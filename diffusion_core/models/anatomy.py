"""What a network is made of, as its own forward pass tells it: stages, shapes, who feeds whom, weights and multiply-adds."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


class Stage(NamedTuple):
    """One module that a network's `forward` calls, one of its inputs, or its output.

    name: the module's path in the network ("down.0.0"), the input's name, or "output". kind: the module's class, "input" or "output".
    shape: of its output for one sample, the first one where it returns several tensors. parameters: its own. multiply_adds: for one sample.
    sources: the names of the stages whose outputs reach it with no other stage between.

    >>> import torch
    >>> from diffusion_core import UNet
    >>> from diffusion_core.models import stages
    >>> found = stages(UNet(), torch.zeros(1, 1, 28, 28), torch.zeros(1))
    >>> next(stage for stage in found if stage.name == "up.1.0").sources
    ('grow.0', 'down.0.0', 'embed')
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    sources: tuple[str, ...]


def stages(net: nn.Module, *inputs: Any, **named: Any) -> list[Stage]:
    """Runs `net(*inputs, **named)` once and returns its inputs, the modules that its `forward` calls, in that order, and its output.

    What happens inside a stage is the stage's own, and what happens between stages (concatenation, resampling, a residual sum) is followed but no
    stage. A stage's sources are those of its positional arguments. A module that is called twice counts its parameters once.

    inputs: (B, ...) each, the first of them a tensor; multiply-adds (half the floating-point operations of matrix products and convolutions, as
    `torch.utils.flop_counter` counts them) are divided by B. Gradients and training are left as they are.
    Raises ValueError when the first input is no tensor with a batch.

    >>> import torch
    >>> from diffusion_core import MLP
    >>> from diffusion_core.models import stages
    >>> net = MLP(2, width=16, depth=2, features=8)
    >>> for stage in stages(net, torch.zeros(1, 2), torch.zeros(1)):
    ...     weights, work = stage.parameters, stage.multiply_adds
    ...     print(stage.name, stage.shape, weights, work, *stage.sources)
    x (2,) 0 0
    c () 0 0
    first (16,) 176 160 x c
    hidden.0 (16,) 272 256 first
    last (2,) 34 32 hidden.0
    output (2,) 0 0 last
    """
    if not inputs or not isinstance(inputs[0], Tensor) or inputs[0].ndim < 1 or len(inputs[0]) == 0:
        raise ValueError("stages: the first input must be a tensor with at least one sample, such as x of net(x, c)")
    from torch.utils.flop_counter import FlopCounterMode  # here, since an import of the package does without it

    batch, found = len(inputs[0]), []
    origins, counter = _Origins(), FlopCounterMode(display=False)
    for name, value in inspect.signature(net.forward).bind(*inputs, **named).arguments.items():
        if isinstance(value, Tensor):
            origins.set([value], [name])
            found.append(Stage(name, "input", tuple(value.shape[1:]), 0, 0, ()))

    seen: set[int] = set()
    entered: dict[str, tuple[int, tuple[str, ...]]] = {}

    def enter(name: str, arguments: tuple[Any, ...]) -> None:
        if origins.inside == 0:
            entered[name] = counter.get_total_flops(), origins.of(arguments)
        origins.inside += 1

    def leave(name: str, module: nn.Module, output: Any) -> None:
        origins.inside -= 1
        if origins.inside == 0:
            before, sources = entered[name]
            weights = {id(p): p.numel() for p in module.parameters() if id(p) not in seen}
            seen.update(weights)
            found.append(Stage(name, type(module).__name__, _shape(output), sum(weights.values()), (counter.get_total_flops() - before) // (2 * batch), sources))
            origins.set(_tensors(output), [name])

    hooks = []
    for name, module in net.named_modules():
        if module is not net:
            hooks.append(module.register_forward_pre_hook(lambda module, arguments, name=name: enter(name, arguments)))
            hooks.append(module.register_forward_hook(lambda module, arguments, output, name=name: leave(name, module, output)))
    try:
        with torch.no_grad(), origins, counter, sdpa_kernel(SDPBackend.MATH):  # the counter sees products, and not into a fused kernel
            output = net(*inputs, **named)
    finally:
        for hook in hooks:
            hook.remove()
    return [*found, Stage("output", "output", _shape(output), 0, 0, origins.of(output))]


class _Origins(TorchFunctionMode):
    """Remembers, for every tensor that is made outside of all stages, from which stages' outputs it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.known: dict[int, tuple[Tensor, tuple[str, ...]]] = {}

    def of(self, value: Any) -> tuple[str, ...]:
        names = (name for tensor in _tensors(value) if id(tensor) in self.known for name in self.known[id(tensor)][1])
        return tuple(dict.fromkeys(names))

    def set(self, tensors: Iterable[Tensor], names: Iterable[str]) -> None:
        names = tuple(names)
        self.known.update({id(tensor): (tensor, names) for tensor in tensors})  # holding the tensor keeps its id from being given away

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.inside == 0:
            self.set(_tensors(result), self.of((args, kwargs)))
        return result


def _shape(output: Any) -> tuple[int, ...]:
    """For one sample, of the first tensor where there are several, and () where there is none."""
    return next((tuple(tensor.shape[1:]) for tensor in _tensors(output)), ())


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
