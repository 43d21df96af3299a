"""What the command line and the file of a run may name: schedules, targets, networks, times, weights and losses of the package, and no more."""

from collections.abc import Callable
from typing import Any

from diffusion_core import losses, models, schedules, targets
from diffusion_core.importance import LossSecondMoment
from diffusion_core.training.words import Phrase, Words, phrase


def _itself(value: Any) -> Callable[[], Any]:
    """The builder of a thing that is there already and takes no arguments."""

    def itself() -> Any:
        return value

    return itself


SCHEDULES: Words = {
    "LinearVP": schedules.LinearVP,
    "CosineVP": schedules.CosineVP,
    "SigmoidVP": schedules.SigmoidVP,
    "SubVP": schedules.SubVP,
    "DDPM": schedules.DDPM,
    "GeometricVE": schedules.GeometricVE,
    "EDM": schedules.EDM,
    "Straight": schedules.Straight,
    "Learned": schedules.Learned,
    "Shifted": schedules.Shifted,
    "ZeroTerminalSNR": schedules.ZeroTerminalSNR,
}
PARTS_OF_SCHEDULES: Words = {
    "linear_betas": schedules.linear_betas,
    "scaled_linear_betas": schedules.scaled_linear_betas,
    "cosine_betas": schedules.cosine_betas,
    "MonotoneLogSNR": schedules.MonotoneLogSNR,
}
TARGETS: Words = {
    "x0": _itself(targets.x0),
    "eps": _itself(targets.eps),
    "v": _itself(targets.v),
    "score": _itself(targets.score),
    "velocity": _itself(targets.velocity),
    "edm": targets.edm,
}
NETWORKS: Words = {"MLP": models.MLP, "UNet": models.UNet, "DiT": models.DiT}
TIMES: Words = {
    "uniform": _itself(losses.uniform_times),
    "lognormal": losses.lognormal_times,
    "discrete": losses.discrete_times,
    "LossSecondMoment": LossSecondMoment,
}
WEIGHTS: Words = {
    "plain": _itself(None),
    "uniform": _itself(losses.uniform),
    "snr": _itself(losses.snr),
    "v_weight": _itself(losses.v_weight),
    "truncated_snr": _itself(losses.truncated_snr),
    "min_snr": losses.min_snr,
    "edm_weight": losses.edm_weight,
    "vlb": _itself(losses.vlb),
}
LOSSES: Words = {"denoising_loss": _itself(losses.denoising_loss), "hybrid_loss": losses.hybrid_loss}


def schedule(text: str) -> Phrase:
    """A path. `DDPM` alone has the thousand betas of Ho et al. 2020, `Learned` alone the log-SNR that `MonotoneLogSNR()` starts with."""
    usual = {"betas": phrase("linear_betas(1000)", PARTS_OF_SCHEDULES), "net": phrase("MonotoneLogSNR", PARTS_OF_SCHEDULES)}
    return phrase(text, SCHEDULES, PARTS_OF_SCHEDULES, usual)


def target(text: str, sigma_data: float) -> Phrase:
    """What the network predicts. `edm` takes the run's own sigma_data."""
    return phrase(text, TARGETS, given={"sigma_data": sigma_data})


def network(text: str, shape: tuple[int, ...], classes: int | None) -> Phrase:
    """A network for samples of this shape, (dim,) or (C, H, W), with this many classes or none."""
    given = {"dim": shape[0]} if len(shape) == 1 else {"channels": shape[0]}
    return phrase(text, NETWORKS, given={**given, "num_classes": classes})


def times(text: str) -> Phrase:
    """How the times of a batch are drawn."""
    return phrase(text, TIMES)


def weight(text: str, sigma_data: float) -> Phrase:
    """The weight of the loss, over time. `edm_weight` takes the run's own sigma_data."""
    return phrase(text, WEIGHTS, given={"sigma_data": sigma_data})


def loss(text: str) -> Phrase:
    """What is minimized."""
    return phrase(text, LOSSES)
