"""Every schedule of the package, for tests that hold on all of them, and the mathematics typed once more, without the package."""

import math

import pytest
import torch

from diffusion_core import (
    DDPM,
    EDM,
    CosineVP,
    GeometricVE,
    Learned,
    LinearVP,
    MonotoneLogSNR,
    Shifted,
    SigmoidVP,
    Straight,
    SubVP,
    ZeroTerminalSNR,
    ancestral,
    cosine_betas,
    ddim,
    linear_betas,
    scaled_linear_betas,
    transition_variance,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For modules that import it: small tensors gain nothing from threads, and threads that wait for a busy core cost much."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    "cosine_shifted": Shifted(CosineVP(), 4.0),
    "straight_shifted": Shifted(Straight(), 3.0),
    "linear_zero_terminal": ZeroTerminalSNR(LinearVP()),
    "ddpm_zero_terminal_1000": ZeroTerminalSNR(DDPM(linear_betas())),
    "learned": Learned(MonotoneLogSNR(generator=generator(1))).requires_grad_(False),
}
FLOORED = ("geometric", "learned")
NO_SIGNAL_AT_1 = ("cosine", "sigmoid", "sigmoid_sharp", "straight", "cosine_shifted", "straight_shifted", "linear_zero_terminal", "ddpm_zero_terminal_1000")
PRESERVING = tuple(name for name in SCHEDULES if name.startswith(("linear", "cosine", "sigmoid", "ddpm", "learned")))

BAD_STARTS = [  # a state, a grid, and what a sampler says of the two
    *((torch.zeros(2), f64(times), "strictly decreasing") for times in ([0.0, 1.0], [1.0], [1.0, 0.5, 0.5], [[1.0, 0.0]], [1.0, math.nan, 0.0])),
    *((torch.zeros(2), f64(times), r"\[0, 1\]") for times in ([1.5, 0.0], [1.0, -0.1])),
    *((x, f64([1.0, 0.0]), "floating tensor") for x in (torch.zeros(2, dtype=torch.int64), 0.5, torch.tensor(0.5))),
]


class Spy:
    """A denoiser that notes the times at which it is called."""

    def __init__(self, denoise):
        self.denoise, self.times = denoise, []

    def __call__(self, x, t):
        self.times.append(float(t))
        return self.denoise(x, t)


class Perfect(torch.nn.Module):
    """The network that a training without end would give: it undoes the scaling of its input and predicts the target's mean from the exact world."""

    def __init__(self, world, schedule, target, sigma_data: float = 1.0):
        super().__init__()
        self.world, self.schedule, self.target, self.sigma_data = world, schedule, target, sigma_data

    def forward(self, x, log_snr):
        t = self.schedule.time(log_snr.double())
        alpha, sigma = (c.detach().reshape(-1, *[1] * (x.ndim - 1)) for c in self.schedule(t))
        x = x * torch.sqrt((alpha * self.sigma_data) ** 2 + sigma**2)
        image = self.world.posterior_mean(x, alpha.flatten(), sigma.flatten())
        a, b = (c.detach().reshape(alpha.shape) for c in self.target(self.schedule, t))
        return a * image + b * (x - alpha * image) / sigma


WALKS = {
    "ddim": lambda *a, **k: ddim(*a, **k), "ddim_half": lambda *a, **k: ddim(*a, eta=0.5, **k), "ddim_one": lambda *a, **k: ddim(*a, eta=1.0, **k),
    "ancestral": lambda *a, **k: ancestral(*a, **k), "ancestral_transition": lambda *a, **k: ancestral(*a, variance=transition_variance, **k),
}


def numbers(schedule, t):
    return (c.numpy() for c in schedule(t))
