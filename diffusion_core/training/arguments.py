"""The door of `fit`: what cannot be meant is refused here, before anything is computed."""

from typing import Any

import torch
from torch import Tensor, nn

from diffusion_core.denoiser import Denoiser
from diffusion_core.doors import drawn_on, is_count, require_callable
from diffusion_core.training.batches import AdaptiveTimes, Data

LARGEST = 20.0  # times sigma_data: images left at 0 .. 255 are at some 80 times


def check_settings(steps: int, lr: float, ema: float, clip: float, precision: str, warmup: int | None) -> None:
    if not is_count(steps) or not lr > 0 or not clip > 0 or (warmup is not None and not is_count(warmup, least=0)):
        raise ValueError(f"fit: steps must be a positive integer, lr and clip positive and warmup an integer that is not negative, got {steps=}, {lr=}, {clip=}, {warmup=}")
    if not 0 <= ema < 1:
        raise ValueError(f"fit: ema={ema} is the decay of the average and must lie in [0, 1); 0 keeps the last weights")
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"fit: precision={precision!r}; expected 'auto', 'fp32' or 'bf16'")


def checked_data(denoiser: Denoiser, data: Data, label_dropout: float, batch_size: int, processes: int) -> tuple[Tensor, dict[str, Tensor]]:
    if not (isinstance(denoiser, nn.Module) and hasattr(denoiser, "net") and hasattr(denoiser, "schedule")):
        raise ValueError(f"fit: expected a Denoiser first, got {type(denoiser).__name__}; a network becomes one by Denoiser(net, schedule, target)")
    x0, cond = data if isinstance(data, tuple) and len(data) == 2 else (data, {})
    if not isinstance(x0, Tensor) or not isinstance(cond, dict):
        raise ValueError(f"fit: data must be a tensor x0 (N, *D) or a pair (x0, {{'label': labels}}), got {_kinds(data)}; images('digits') gives x0, labels")
    if not any(parameter.requires_grad for parameter in denoiser.parameters()):
        raise ValueError("fit: no weight asks for a gradient; denoiser.requires_grad_(True) unfreezes what an earlier fit returned")
    dtype = next(denoiser.parameters()).dtype
    if x0.dtype != dtype:
        raise ValueError(f"fit: the data are {x0.dtype} and the network is {dtype}; convert one of them (images: floats in [-1, 1])")
    if x0.ndim < 1 or len(x0) == 0:
        raise ValueError(f"fit: expected data of shape (N, *D) with at least one sample, got {tuple(x0.shape)}")
    if not x0.isfinite().all():
        raise ValueError(f"fit: {int((~x0.isfinite()).reshape(len(x0), -1).any(1).sum())} of {len(x0)} samples hold a NaN or an infinity; remove them")
    size = float(torch.linalg.vector_norm(x0.cpu(), dtype=torch.float64)) / max(x0.numel(), 1) ** 0.5
    if size > LARGEST * denoiser.sigma_data:
        raise ValueError(
            f"fit: the data have a root mean square of {size:.3g}, and this denoiser is made for {denoiser.sigma_data:g}; "
            f"bring bytes to [-1, 1] by x / 127.5 - 1, or say Denoiser(net, schedule, target, sigma_data={size:.3g})"
        )
    if not is_count(batch_size) or batch_size % processes:
        several = f", a multiple of the {processes} processes" if processes > 1 else ""
        raise ValueError(f"fit: batch_size={batch_size!r} must be a positive integer{several}")
    for name, value in cond.items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            raise ValueError(f"fit: the values of {name!r} must be a tensor (N, ...), one for each sample, got {type(value).__name__}")
        if len(value) != len(x0):
            raise ValueError(f"fit: {len(value)} values of {name!r} for {len(x0)} samples; give one for each")
    classes = getattr(denoiser.net, "num_classes", None)
    if "label" in cond and classes is not None and not ((cond["label"] >= 0) & (cond["label"] < classes)).all():
        raise ValueError(f"fit: labels must lie in 0..{classes - 1}, got {int(cond['label'].min())}..{int(cond['label'].max())}")
    if not 0 <= label_dropout < 1 or (label_dropout > 0 and ("label" not in cond or classes is None)):
        raise ValueError(f"fit: label_dropout={label_dropout} must lie in [0, 1) and needs labels in the data and a network with num_classes")
    return x0, cond


def check_functions(weight: Any, times: Any, loss: Any, generator: Any) -> None:
    if weight is not None:
        require_callable(weight, "fit: weight", "(schedule, t, target) -> w, such as losses.snr or losses.min_snr(5.0), or None")
    require_callable(times, "fit: times", "(schedule, n, generator) -> t, such as uniform_times or discrete_times(1000)")
    require_callable(loss, "fit: loss", "(denoiser, x0, t, weight, generator, **cond) -> (B,), such as denoising_loss")
    drawn_on(generator)


def _kinds(data: Any) -> str:
    return f"({', '.join(type(part).__name__ for part in data)})" if isinstance(data, tuple) else type(data).__name__


def check_checkpointing(denoiser: Denoiser, times: Any, checkpoint: Any, every: int | None) -> None:
    if checkpoint is None:
        if every is not None:
            raise ValueError(f"fit: checkpoint_every={every} without a checkpoint; name the folder with checkpoint='runs/first'")
        return
    if every is not None and not is_count(every):
        raise ValueError(f"fit: checkpoint_every={every!r} is a number of steps and must be a positive integer")
    if isinstance(times, AdaptiveTimes) and not (hasattr(times, "state_dict") and hasattr(times, "load_state_dict")):
        raise ValueError(f"fit: {type(times).__name__} adapts and cannot be resumed; give it state_dict() -> {{name: tensor}} and load_state_dict(state)")
    strange = [name for name, value in denoiser.state_dict().items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise ValueError(f"fit: the network keeps something other than tensors ({', '.join(strange)}), which a checkpoint cannot hold; make them buffers")
