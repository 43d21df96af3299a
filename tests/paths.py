"""Every schedule of the package, for tests that hold on all of them, and the mathematics typed once more, without the package."""

import torch

from diffusion_core import (
    DDPM, EDM, CosineVP, GeometricVE, Learned, LinearVP, MonotoneLogSNR, SigmoidVP, Straight, SubVP, cosine_betas, linear_betas, scaled_linear_betas,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def f64(values) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


SCHEDULES = {
    "linear": LinearVP(),
    "linear_strong": LinearVP(0.5, 120.0),
    "cosine": CosineVP(),
    "sigmoid": SigmoidVP(),
    "sigmoid_sharp": SigmoidVP(-3.0, 3.0, 0.1),
    "ddpm_linear_1000": DDPM(linear_betas()),
    "ddpm_linear_49": DDPM(linear_betas(49)),
    "ddpm_cosine_1000": DDPM(cosine_betas()),
    "ddpm_cosine_10": DDPM(cosine_betas(10)),
    "ddpm_scaled_1000": DDPM(scaled_linear_betas()),
    "subvp": SubVP(),
    "geometric": GeometricVE(),
    "edm": EDM(),
    "straight": Straight(),
    "learned": Learned(MonotoneLogSNR(generator=generator(1))),
}
FLOORED = ("geometric", "learned")
NO_SIGNAL_AT_1 = ("cosine", "sigmoid", "sigmoid_sharp", "straight")
PRESERVING = tuple(name for name in SCHEDULES if name.startswith(("linear", "cosine", "sigmoid", "ddpm", "learned")))
