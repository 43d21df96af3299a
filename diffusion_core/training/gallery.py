"""Samples of a trained denoiser for `python -m diffusion_core.training --samples`: drawn by all processes, written by one."""

from pathlib import Path

import torch
from torch import Tensor

from diffusion_core.denoiser import Denoiser, clipped
from diffusion_core.extras import needing
from diffusion_core.samplers import ddim, last, log_snr_grid
from diffusion_core.samplers.spread import spread

SHOWN = 64


def draw_samples(denoiser: Denoiser, shape: tuple[int, ...], classes: int | None, n: int, steps: int, seed: int, batch_size: int = 64) -> Tensor:
    """n samples (n, *shape) by DDIM on even log-SNRs, in batches over all processes; sample i is asked to be of class i modulo `classes`. Images are clipped to [-1, 1]."""
    schedule, where = denoiser.schedule, next(denoiser.parameters()).device
    times = log_snr_grid(schedule, steps)

    def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
        cond = {"label": (rows % classes).to(where)} if classes else {}

        def denoise(x: Tensor, t: Tensor | float) -> Tensor:
            return denoiser(x, t, **cond)

        start = schedule.noise((len(rows), *shape), generator, device=where, t=times[0])
        return last(ddim(clipped(denoise) if len(shape) == 3 else denoise, schedule, start, times))

    return spread(draw, n, batch_size, torch.Generator().manual_seed(seed))


def write_samples(samples: Tensor, folder: Path) -> str:
    """All samples into samples.safetensors, a picture of them into samples.png (the first 64 images, or every point); says so. Raises ImportError without matplotlib."""
    with needing("writing samples", extra="train"):
        from safetensors.torch import save_file
    save_file({"x": samples.contiguous()}, folder / "samples.safetensors")
    picture = folder / "samples.png"
    if samples.ndim == 4:
        with needing("a picture of the samples", extra="plot"):
            from PIL import Image

            from diffusion_core.plots import tile
        Image.fromarray(tile(samples[:SHOWN])).save(picture)
    else:
        with needing("a picture of the samples", extra="plot"):
            from matplotlib.figure import Figure

            from diffusion_core.plots import points_2d
        figure = Figure(figsize=(5, 5))
        points_2d(samples, ax=figure.add_subplot(aspect="equal"))
        figure.savefig(picture, dpi=100)
    return f"{len(samples):,} in {folder / 'samples.safetensors'}, seen in {picture}"
