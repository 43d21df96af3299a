r"""The loop.

`fit` minimizes the mean of a loss, `denoising_loss` unless told otherwise, with AdamW and returns an exponential moving average of the weights. Everything that happens
at a step follows from its number and the seed (the learning rate, the decay of the average, the random numbers), so the run is the same run
wherever it is picked up and on however many processes. Derived in chapter 06.
"""

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_core.denoiser import Denoiser
from diffusion_core.losses.denoising import Loss, denoising_loss
from diffusion_core.losses.times import Times, uniform_times
from diffusion_core.losses.weights import Weight
from diffusion_core.progress import Progress
from diffusion_core.training import identity, processes
from diffusion_core.training.arguments import check_checkpointing, check_functions, check_settings, checked_data
from diffusion_core.training.batches import AdaptiveTimes, Data, drop_labels
from diffusion_core.training.interrupt import Deferred
from diffusion_core.training.pace import ema_decay, ema_update, learning_rate
from diffusion_core.training.resume import Checkpoints
from diffusion_core.training.state import State


class Diverged(FloatingPointError):
    """The loss or its gradient was not finite at `step`. `denoiser`: the averaged one until then. `losses`: of the steps before.

    >>> import torch
    >>> from diffusion_core import MLP, Denoiser, LinearVP, fit, targets
    >>> from diffusion_core.training import Diverged
    >>> too_steep = lambda schedule, t, target: torch.tensor(float("inf"))
    >>> denoiser = Denoiser(MLP(2, width=8), LinearVP(), targets.v)
    >>> try:
    ...     fit(denoiser, torch.randn(100, 2), steps=5, weight=too_steep)
    ... except Diverged as error:
    ...     finite = all(p.isfinite().all() for p in error.denoiser.parameters())
    ...     print(error.step, len(error.losses), finite)
    0 0 True
    """

    def __init__(self, message: str, step: int, denoiser: Denoiser, losses: Tensor):
        super().__init__(message)
        self.step, self.denoiser, self.losses = step, denoiser, losses


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
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
) -> tuple[Denoiser, Tensor]:
    r"""Train a denoiser; returns (a copy of it with averaged weights, frozen and in evaluation mode; the loss of every step, (steps,)).

    data: x0 (N, *D) in the network's dtype, or (x0, {"label": (N,) int64, ...}): conditions that go with each sample to the network.

    batch_size: samples per step, of all processes together. weight, times: of the loss and its times, as in `losses`.

    loss: `loss(denoiser, x0, t, weight, generator, **cond) -> (B,)`, such as `hybrid_loss(steps)`. `AdaptiveTimes`, such as
    `LossSecondMoment(steps)`, get the losses of every step, of all processes, and the mean that is minimized and returned is the weighted one.

    lr: the peak of the rate. warmup: steps that it rises, a twentieth of all by default. ema: the largest decay of the average.

    clip: gradients longer than this are shortened to it. label_dropout: the share of labels, drawn sample by sample, replaced by "no class" (`net.num_classes`).

    precision: "fp32", "bf16" (autocast; weights and average stay fp32), or "auto": bf16 for images where the hardware computes in it.

    generator: seeds the run; at one seed, one machine and a fixed number of threads the result repeats bit for bit.

    progress: None shows it to whoever watches (`progress.watched`), False to nobody.

    checkpoint: a folder for `checkpoint.safetensors`, written every `checkpoint_every` steps (a twentieth of the run by default) and at the end.
    Killed at any moment and called again with the same arguments, `fit` goes on from there and ends with the same weights, losses and times, bit for
    bit; a finished run is handed back without training. The weights that the denoiser brings are then overwritten. Without a generator the
    checkpoint's seed is used. Ctrl-C ends the step, writes, and raises KeyboardInterrupt; a second one raises at once. `load` reads the checkpoint.
    One run a folder: a second one is refused, and of two that begin at the same time one stops when it sees the other's checkpoint.
    What a network, a loss or times keep elsewhere than in tensors of the network or in a state_dict of adaptive times is not saved.

    The data and the denoiser move to `device()`; the denoiser keeps the raw weights of the last step.

    The same call works under `torchrun` and `accelerate launch`: samples, times, dropped labels and noise are those of one process, each process
    computes its share of every batch, and gradients are averaged, so that the result is one process's up to rounding. Every process needs the whole
    data. The loss then gets a `processes.Share` for its generator, and draws with `normal_like`: a loss of yours that calls
    `torch.randn(generator=generator)` raises TypeError there. The first process alone writes and shows progress. Dropout and batch normalization, which look
    beyond a process's own rows, stay each process's own: with them several processes are another run than one, and goes on to another end when resumed.

    Raises ValueError for data or settings that cannot be meant, and for a checkpoint that is damaged, foreign or of another run (other data, network,
    path, target, loss, settings or seed); OSError when one cannot be written, while the one before stands; ImportError without accelerate.
    Raises `Diverged` at the first loss or gradient that is not finite: no update is made from it, so the denoiser holds the last good weights, the
    exception the average, the folder its last checkpoint.

    Chapter 06.

    >>> import torch
    >>> from diffusion_core import MLP, Denoiser, LinearVP, fit, targets
    >>> denoiser = Denoiser(MLP(2, width=8), LinearVP(), targets.v)
    >>> average, losses = fit(denoiser, torch.randn(100, 2), steps=5, batch_size=10)
    >>> losses.shape, average(torch.zeros(3, 2), 0.5).shape
    (torch.Size([5]), torch.Size([3, 2]))
    """
    accelerator = processes.join()
    x0, cond = checked_data(denoiser, data, label_dropout, batch_size, accelerator.num_processes)
    check_settings(steps, lr, ema, clip, precision, warmup)
    check_functions(weight, times, loss, generator)
    check_checkpointing(denoiser, times, checkpoint, checkpoint_every)
    steps, batch_size, warmup = int(steps), int(batch_size), int(steps // 20 if warmup is None else warmup)
    bf16 = precision == "bf16" or (precision == "auto" and x0.ndim == 4 and _has_bf16(accelerator.device))
    run: dict[str, Any] = {}
    if checkpoint is not None or accelerator.num_processes > 1:
        run = {
            **{"steps": steps, "batch_size": batch_size, "lr": lr, "ema": ema, "warmup": warmup, "clip": clip, "label_dropout": label_dropout},
            **{"precision": "bf16" if bf16 else "fp32", "device": accelerator.device.type, "data": identity.data_record(x0, cond)},
            **{name: identity.described(value) for name, value in {"weight": weight, "times": times, "loss": loss}.items()},
            **identity.model_record(denoiser),
            "frozen": ", ".join(name for name, parameter in denoiser.named_parameters() if not parameter.requires_grad) or "nothing",
        }
    if accelerator.num_processes > 1:
        processes.check_equal(accelerator, run)
    x0, cond = x0.to(accelerator.device), {name: value.to(accelerator.device) for name, value in cond.items()}

    adamw = torch.optim.AdamW(denoiser.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    objective, optimizer = accelerator.prepare(_Objective(denoiser, loss, weight, bf16), adamw)
    average = copy.deepcopy(denoiser).requires_grad_(False)
    seed = processes.shared_seed(accelerator, generator)
    chance, noise = torch.Generator(), torch.Generator(accelerator.device)
    mine = processes.rows_of(accelerator, batch_size)
    share: Any = noise if accelerator.num_processes == 1 else processes.Share(noise, mine, batch_size)
    adaptive = times if isinstance(times, AdaptiveTimes) else None
    null: Any = getattr(denoiser.net, "num_classes", None)
    state = State(denoiser, average, adamw, adaptive)
    checkpoints = None
    if checkpoint is not None:
        checkpoints = Checkpoints(accelerator, checkpoint, checkpoint_every or math.ceil(steps / 20), run, state)
        seed = checkpoints.resume(seed, generator is not None)

    denoiser.train()
    with Progress(steps, progress if accelerator.is_main_process else False, len(state.losses)) as line, Deferred(checkpoints is not None) as interrupt:
        for step in range(len(state.losses), steps):
            for stream, its_seed in zip((chance, noise), processes.seeds_of(seed, step)):
                stream.manual_seed(its_seed)
            rows = torch.randint(len(x0), (batch_size,), generator=chance)
            batch = {name: value[rows[mine]] for name, value in cond.items()}
            if label_dropout > 0:
                batch["label"] = drop_labels(cond["label"][rows], label_dropout, null, chance)[mine]
            t = times(denoiser.schedule, batch_size, chance)[mine]
            importance = adaptive.weights(t) if adaptive else None

            for group in optimizer.param_groups:
                group["lr"] = lr * learning_rate(step, steps, warmup)
            losses = objective(x0[rows[mine]], t, share, batch)
            mean = (losses if importance is None else importance.to(losses.device, losses.dtype) * losses).mean()
            accelerator.backward(mean)
            norm = accelerator.clip_grad_norm_(denoiser.parameters(), clip)
            mean, norm = torch.stack([accelerator.reduce(mean.detach(), "mean"), norm]).tolist()
            if not (math.isfinite(mean) and math.isfinite(norm)):
                optimizer.zero_grad()
                raise Diverged(_diagnosis(mean, norm, step, steps, lr), step, average.eval(), torch.tensor(state.losses))
            optimizer.step()
            optimizer.zero_grad()
            ema_update(average, denoiser, ema_decay(step, ema))
            if adaptive:
                adaptive.update(*accelerator.gather((t.to(losses), losses.detach())))
            state.losses.append(mean)
            line.advance(mean)
            if checkpoints:
                checkpoints.after_step(steps, interrupt.pressed)
    denoiser.eval()
    return average.eval(), torch.tensor(state.losses)


class _Objective(nn.Module):
    """The losses of a batch as one module, so that a call of it is where accelerate sees the processes' gradients begin."""

    def __init__(self, denoiser: Denoiser, loss: Loss, weight: Weight | None, bf16: bool):
        super().__init__()
        self.denoiser, self.loss, self.weight, self.bf16 = denoiser, loss, weight, bf16

    def forward(self, x0: Tensor, t: Tensor, generator: torch.Generator, cond: dict[str, Tensor]) -> Tensor:
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=self.bf16):
            return self.loss(self.denoiser, x0, t, self.weight, generator, **cond)


def _has_bf16(where: torch.device) -> bool:
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if where.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _diagnosis(loss: float, norm: float, step: int, steps: int, lr: float) -> str:
    return (
        f"fit stopped at step {step} of {steps}: the loss is {loss} and its gradient's length {norm}. The denoiser keeps the weights before this step. "
        f"Lower lr (now {lr}), or look at the loss weight where the schedule has no signal or no noise."
    )
