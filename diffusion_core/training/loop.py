r"""Training: one loop for a spiral on a laptop and for images on several GPUs.

`fit` minimizes the mean of a loss, `denoising_loss` unless told otherwise, with AdamW and returns an exponential moving average of the weights. Everything that happens
at a step follows from its number and the seed (the learning rate, the decay of the average, the random numbers of each process), so the
run is the same run wherever it is picked up. Derived in chapter 06.
"""

import copy
import math
import warnings
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_core.denoiser import Denoiser
from diffusion_core.devices import device
from diffusion_core.losses import Loss, Times, Weight, denoising_loss, uniform_times
from diffusion_core.progress import Progress
from diffusion_core.schedules import Schedule

Data = Tensor | tuple[Tensor, dict[str, Tensor]]


@runtime_checkable
class AdaptiveTimes(Protocol):
    """Times that learn from the losses where to look more often, such as `LossSecondMoment`."""

    def __call__(self, schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor: ...

    def weights(self, t: Tensor) -> Tensor: ...

    def update(self, t: Tensor, losses: Tensor) -> None: ...


class Diverged(FloatingPointError):
    """The loss or its gradient was not finite at `step`. `denoiser`: the averaged one until then. `losses`: of the steps before."""

    def __init__(self, message: str, step: int, denoiser: Denoiser, losses: Tensor):
        super().__init__(message)
        self.step, self.denoiser, self.losses = step, denoiser, losses


def learning_rate(step: int, steps: int, warmup: int) -> float:
    r"""The fraction of the peak rate at a step: a linear rise over `warmup` steps times the cosine $\frac12(1+\cos\pi n/N)$, which ends at zero."""
    return min(1.0, (step + 1) / (warmup + 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def ema_decay(step: int, decay: float) -> float:
    r"""The decay of the average at step n, $\min(\text{decay}, \frac{1+n}{10+n})$: a memory of a tenth of the run so far, until that is longer than decay's own.

    With a constant decay $d$ a run of N steps keeps $d^N$ of its random start (0.999 and 1000 steps: 37 %). With the ramp the start's share after N
    steps is $\prod_n\frac{1+n}{10+n}=1/\binom{N+9}{9}$, and step n counts in proportion to about $n^8$: the power-function average of
    EDM2 (Karras et al. 2024, section 3.1).
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model for the parameters; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for kept, new in zip(average.buffers(), model.buffers()):
        kept.copy_(new)


def fit(
    denoiser: Denoiser,
    data: Data,
    steps: int,
    *,
    batch_size: int = 256,
    lr: float = 2e-3,
    weight: Weight | None = None,
    times: Times | AdaptiveTimes = uniform_times,
    loss: Loss = denoising_loss,
    ema: float = 0.999,
    warmup: int | None = None,
    clip: float = 1.0,
    precision: str = "auto",
    label_dropout: float = 0.0,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
) -> tuple[Denoiser, Tensor]:
    r"""Train a denoiser; returns (a copy of it with averaged weights, frozen and in evaluation mode; the loss of every step, (steps,)).

    data: x0 (N, *D) in the network's dtype, or (x0, {"label": (N,) int64, ...}): conditions that go with each sample to the network.
    batch_size: samples per step, of all processes together. weight, times: of the loss and its times, as in `losses`.
    loss: `loss(denoiser, x0, t, weight, generator, **cond) -> (B,)`, such as `hybrid_loss(steps)`. `AdaptiveTimes`, such as
    `LossSecondMoment(steps)`, get the losses of every step, of all processes, and the mean that is minimized and returned is the weighted one.
    lr: the peak of the rate; warmup: steps that it rises, a twentieth of all by default. ema: the largest decay of the average.
    clip: gradients longer than this are shortened to it. label_dropout: the share of labels, drawn sample by sample, replaced by "no class" (`net.num_classes`).
    precision: "fp32", "bf16" (autocast; weights and average stay fp32), or "auto": bf16 for images where the hardware computes in it.
    generator: seeds the run; at one seed, one machine and a fixed number of threads the result repeats bit for bit.
    progress: None shows it to whoever watches (`progress.watched`), False to nobody.

    The data and the denoiser move to `device()`; the denoiser keeps the raw weights of the last step. The same call works under
    `accelerate launch`: each process takes its share of every batch with its own random numbers, and gradients are averaged.
    Raises ValueError for data or settings that cannot be meant, ImportError without accelerate, and `Diverged` at the first loss or
    gradient that is not finite: no update is made from it, so the denoiser holds the last good weights, the exception the average.
    """
    accelerator = _accelerator()
    x0, cond = _checked(denoiser, data, label_dropout, batch_size, accelerator.num_processes)
    _check_settings(steps, lr, ema, clip, precision, warmup)
    warmup = steps // 20 if warmup is None else warmup
    x0, cond = x0.to(accelerator.device), {name: value.to(accelerator.device) for name, value in cond.items()}
    bf16 = precision == "bf16" or (precision == "auto" and x0.ndim == 4 and _has_bf16(accelerator.device))

    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    objective, optimizer = accelerator.prepare(_Objective(denoiser, loss, weight, bf16), optimizer)
    average = copy.deepcopy(denoiser).requires_grad_(False)
    seed = _shared_seed(accelerator, generator)
    chance, noise = torch.Generator(), torch.Generator(accelerator.device)
    local = batch_size // accelerator.num_processes
    adaptive = times if isinstance(times, AdaptiveTimes) else None
    null: Any = getattr(denoiser.net, "num_classes", None)
    history: list[float] = []

    denoiser.train()
    with Progress(steps, progress if accelerator.is_main_process else False) as line:
        for step in range(steps):
            for stream, its_seed in zip((chance, noise), _seeds_of(seed, accelerator.process_index, step)):
                stream.manual_seed(its_seed)
            rows = torch.randint(len(x0), (local,), generator=chance)
            batch = {name: value[rows] for name, value in cond.items()}
            if label_dropout > 0:
                batch["label"] = drop_labels(batch["label"], label_dropout, null, chance)
            t = times(denoiser.schedule, local, chance)
            importance = adaptive.weights(t) if adaptive else None

            for group in optimizer.param_groups:
                group["lr"] = lr * learning_rate(step, steps, warmup)
            losses = objective(x0[rows], t, noise, batch)
            mean = (losses if importance is None else importance.to(losses.device, losses.dtype) * losses).mean()
            accelerator.backward(mean)
            norm = accelerator.clip_grad_norm_(denoiser.parameters(), clip)
            mean, norm = torch.stack([accelerator.reduce(mean.detach(), "mean"), norm]).tolist()
            if not (math.isfinite(mean) and math.isfinite(norm)):
                optimizer.zero_grad()
                raise Diverged(_diagnosis(mean, norm, step, steps, lr), step, average.eval(), torch.tensor(history))
            optimizer.step()
            optimizer.zero_grad()
            ema_update(average, denoiser, ema_decay(step, ema))
            if adaptive:
                adaptive.update(*accelerator.gather((t.to(losses), losses.detach())))
            history.append(mean)
            line.advance(mean)
    denoiser.eval()
    return average.eval(), torch.tensor(history)


def drop_labels(label: Tensor, rate: float, null: int, generator: torch.Generator | None = None) -> Tensor:
    """Each label by itself becomes `null` with probability `rate`. label: (B,) -> (B,). Drawn on the generator's device."""
    where = generator.device if generator is not None else label.device
    dropped = torch.rand(label.shape, generator=generator, device=where) < rate
    return torch.where(dropped.to(label.device), null, label)


class _Objective(nn.Module):
    """The losses of a batch as one module, so that a call of it is where accelerate sees the processes' gradients begin."""

    def __init__(self, denoiser: Denoiser, loss: Loss, weight: Weight | None, bf16: bool):
        super().__init__()
        self.denoiser, self.loss, self.weight, self.bf16 = denoiser, loss, weight, bf16

    def forward(self, x0: Tensor, t: Tensor, generator: torch.Generator, cond: dict[str, Tensor]) -> Tensor:
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=self.bf16):
            return self.loss(self.denoiser, x0, t, self.weight, generator, **cond)


def _accelerator() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, which accelerate imports, misses ipywidgets
            from accelerate import Accelerator
    except ImportError as error:
        raise ImportError('fit needs accelerate: pip install "diffusion-core[train]"') from error
    return Accelerator(cpu=device().type == "cpu", mixed_precision="no")


def _shared_seed(accelerator: Any, generator: torch.Generator | None) -> int:
    """One seed for all processes, drawn on the first of them."""
    from accelerate.utils import broadcast

    where = generator.device if generator is not None else "cpu"
    seed = torch.randint(2**62, (1,), generator=generator, device=where)
    return int(broadcast(seed.to(accelerator.device)))


def _seeds_of(seed: int, process: int, step: int) -> list[int]:
    """Two: for the choice of samples and times, on the CPU like the schedules' float64, and for the noise, on the device."""
    return np.random.SeedSequence((seed, process, step)).generate_state(2).tolist()


def _has_bf16(where: torch.device) -> bool:
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if where.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _check_settings(steps: int, lr: float, ema: float, clip: float, precision: str, warmup: int | None) -> None:
    if steps < 1 or not lr > 0 or not clip > 0 or (warmup is not None and warmup < 0):
        raise ValueError(f"fit: steps, lr and clip must be positive and warmup not negative, got {steps=}, {lr=}, {clip=}, {warmup=}")
    if not 0 <= ema < 1:
        raise ValueError(f"fit: ema={ema} is the decay of the average and must lie in [0, 1); 0 keeps the last weights")
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"fit: precision={precision!r}; expected 'auto', 'fp32' or 'bf16'")


def _checked(denoiser: Denoiser, data: Data, label_dropout: float, batch_size: int, processes: int) -> tuple[Tensor, dict[str, Tensor]]:
    x0, cond = data if isinstance(data, tuple) else (data, {})
    if not any(parameter.requires_grad for parameter in denoiser.parameters()):
        raise ValueError("fit: no weight asks for a gradient; denoiser.requires_grad_(True) unfreezes what an earlier fit returned")
    dtype = next(denoiser.parameters()).dtype
    if x0.dtype != dtype:
        raise ValueError(f"fit: the data are {x0.dtype} and the network is {dtype}; convert one of them (images: floats in [-1, 1])")
    if x0.ndim < 1 or len(x0) == 0:
        raise ValueError(f"fit: expected data of shape (N, *D) with at least one sample, got {tuple(x0.shape)}")
    if not x0.isfinite().all():
        raise ValueError(f"fit: {int((~x0.isfinite()).flatten(1).any(1).sum())} of {len(x0)} samples hold a NaN or an infinity; remove them")
    if batch_size < 1 or batch_size % processes:
        raise ValueError(f"fit: batch_size={batch_size} must be a positive multiple of the {processes} processes")
    for name, value in cond.items():
        if len(value) != len(x0):
            raise ValueError(f"fit: {len(value)} values of {name!r} for {len(x0)} samples; give one for each")
    classes = getattr(denoiser.net, "num_classes", None)
    if "label" in cond and classes is not None and not ((cond["label"] >= 0) & (cond["label"] < classes)).all():
        raise ValueError(f"fit: labels must lie in 0..{classes - 1}, got {int(cond['label'].min())}..{int(cond['label'].max())}")
    if not 0 <= label_dropout < 1 or (label_dropout > 0 and ("label" not in cond or classes is None)):
        raise ValueError(f"fit: label_dropout={label_dropout} must lie in [0, 1) and needs labels in the data and a network with num_classes")
    return x0, cond


def _diagnosis(loss: float, norm: float, step: int, steps: int, lr: float) -> str:
    return (
        f"fit stopped at step {step} of {steps}: the loss is {loss} and its gradient's length {norm}. The denoiser keeps the weights before this step. "
        f"Lower lr (now {lr}), or look at the loss weight where the schedule has no signal or no noise."
    )
