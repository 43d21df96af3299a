"""Counts: an integer of numpy gives what Python's gives, bit for bit, in the same dtype; a float, a truth, text and one too small are refused by name.

Generators: one of another device does where the CPU draws; a seed is refused.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_core import (
    DDPM,
    EDM,
    MLP,
    Denoiser,
    Empirical,
    LinearVP,
    LossSecondMoment,
    MonotoneLogSNR,
    annealed_langevin,
    annealed_step,
    annealed_variance,
    asinh_grid,
    bits_per_dim,
    continuous_vlb,
    cosine_betas,
    discrete_times,
    discretized_log_prob,
    draw_probes,
    exponential_multistep,
    fit,
    hybrid_loss,
    karras_grid,
    ladder_ratio,
    langevin,
    last,
    linear_betas,
    log_snr_grid,
    mala,
    metrics,
    plots,
    predictor_corrector,
    ring,
    scaled_linear_betas,
    spread,
    targets,
    toy,
    travellers,
    uniform,
    uniform_times,
    unipc,
)

VP, WORLD, X = LinearVP(), ring(), torch.tensor([[0.5, -0.5], [1.0, 0.25]])
DENOISE = WORLD.denoiser(VP)
LEVELS = torch.tensor([[-1.0, 1.0]])
POINTS = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def network(**settings: bool) -> MLP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP(2, width=8, depth=1, **settings)


def trained(n: int) -> Tensor:
    denoiser = Denoiser(network(), VP, targets.eps)
    fit(denoiser, torch.randn(64, 2, generator=seeded()), steps=n, batch_size=n, warmup=n, generator=seeded())
    return torch.cat([weight.flatten() for weight in denoiser.parameters()])


def second_moment(n: int) -> Tensor:
    times = LossSecondMoment(n, n)
    for _ in range(3):
        times.update(torch.arange(1, 4) / 3, torch.tensor([1.0, 2.0, 3.0]))
    return torch.cat([times.probabilities, times.weights(torch.tensor([1.0])), times(VP, 5, seeded())])


def hybrid(n: int) -> Tensor:
    denoiser = Denoiser(network(learned_variance=True), DDPM(linear_betas(30)), targets.eps)
    return hybrid_loss(n, levels=n)(denoiser, LEVELS, 1.0, generator=seeded())


CALLS = {  # each with the least count that it takes
    "linear_betas": (linear_betas, 21),
    "scaled_linear_betas": (scaled_linear_betas, 1),
    "cosine_betas": (cosine_betas, 1),
    "uniform": (uniform, 1),
    "log_snr_grid": (lambda n: log_snr_grid(EDM(), n), 1),
    "karras_grid": (lambda n: karras_grid(EDM(), n), 1),
    "asinh_grid": (lambda n: asinh_grid(EDM(), n), 1),
    "uniform_times": (lambda n: uniform_times(VP, n, seeded()), 1),
    "discrete_times": (lambda n: discrete_times(n)(VP, 7, seeded()), 1),
    "LossSecondMoment": (second_moment, 3),
    "hybrid_loss": (hybrid, 2),
    "draw_probes": (lambda n: draw_probes(X, n, generator=seeded()), 1),
    "bits_per_dim": (lambda n: bits_per_dim(1.5, n), 1),
    "bits_per_dim of levels": (lambda n: bits_per_dim(1.5, 2, n), 2),
    "discretized_log_prob": (lambda n: discretized_log_prob(LEVELS, LEVELS / 2, 0.5, n), 2),
    "continuous_vlb": (lambda n: continuous_vlb(DENOISE, VP, X, samples=n, levels=None, t_min=1e-3, generator=seeded()).total, 1),
    "Mixture.sample": (lambda n: WORLD.sample(n, seeded()), 1),
    "Empirical.sample": (lambda n: Empirical(X).sample(n, seeded()), 1),
    "toy": (lambda n: toy("moons", n, seeded()), 0),
    "travellers": (lambda n: travellers(n, n), 0),
    "langevin": (lambda n: last(langevin(WORLD.score, X, 0.1, n, seeded())), 1),
    "mala": (lambda n: last(mala(WORLD.log_prob, X, 0.1, n, seeded()))[0], 1),
    "annealed_langevin": (lambda n: last(annealed_langevin(DENOISE, VP, X, uniform(5)[1:], n, generator=seeded())), 1),
    "annealed_variance": (lambda n: torch.tensor(annealed_variance(1.5, 0.1, n)), 1),
    "annealed_step": (lambda n: torch.tensor(annealed_step(1.5, n)), 1),
    "ladder_ratio": (lambda n: torch.tensor(ladder_ratio(n)), 5),
    "exponential_multistep": (lambda n: last(exponential_multistep(DENOISE, VP, X, uniform(5)[1:], order=n)), 1),
    "unipc": (lambda n: last(unipc(DENOISE, VP, X, uniform(5)[1:], order=n, corrector=n)), 1),
    "predictor_corrector": (lambda n: last(predictor_corrector(DENOISE, VP, X, uniform(5)[1:], corrections=n, generator=seeded())), 0),
    "spread": (lambda n: spread(lambda rows, generator: torch.randn(len(rows), 2, generator=generator), n, batch_size=n, generator=seeded()), 1),
    "fit": (trained, 1),
    "plots.tile": (lambda n: torch.from_numpy(plots.tile(torch.zeros(5, 1, 2, 2), n).copy()), 1),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_an_integer_of_numpy_is_an_integer(name, kind):
    call, least = CALLS[name]
    n = max(least, 3)
    want, got = call(n), call(kind(n))
    assert got.dtype == want.dtype and torch.equal(got, want)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("wrong", [True, 3.0, np.float64(3), "3", None, torch.tensor(3)], ids=repr)
def test_what_is_no_integer_is_refused(name, wrong):
    if wrong is None and name in ("bits_per_dim of levels", "discretized_log_prob", "exponential_multistep", "unipc", "plots.tile", "hybrid_loss"):
        pytest.skip("None has a meaning there")
    with pytest.raises(ValueError, match="integer|polynomial|seed"):
        CALLS[name][0](wrong)


@pytest.mark.parametrize("name", CALLS)
def test_the_least_count_is_taken_and_one_less_is_refused(name):
    call, least = CALLS[name]
    call(least)
    with pytest.raises(ValueError):  # three of them have a least count of their own: fewer betas leave (0, 1), fewer dimensions have no ratio
        call(least - 1)


class Elsewhere:
    """A generator of another device: none can be made without one."""

    device = torch.device("cuda")


ON_THE_CPU = {  # computed there whatever the device
    "Mixture.sample": lambda generator: WORLD.sample(5, generator),
    "toy": lambda generator: toy("spiral", 5, generator),
    "MonotoneLogSNR": lambda generator: MonotoneLogSNR(generator=generator).centers.detach(),
    "LossSecondMoment": lambda generator: LossSecondMoment(5)(VP, 5, generator),
    "sliced_wasserstein": lambda generator: torch.tensor(metrics.sliced_wasserstein(X, 2 * X, 5, generator=generator)),
    "permutation_test": lambda generator: torch.tensor(metrics.permutation_test(POINTS[:20], POINTS[20:], permutations=50, generator=generator)),
    "floor": lambda generator: torch.tensor(metrics.floor(metrics.energy_distance, POINTS, 10, 10, generator=generator)),
}


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_a_generator_of_another_device_seeds_what_is_drawn_on_the_cpu(name, monkeypatch):
    call, asked, randint = ON_THE_CPU[name], [], torch.randint

    def drawn(*arguments, generator=None, **settings):
        if not isinstance(generator, Elsewhere):
            return randint(*arguments, generator=generator, **settings)
        asked.append(settings["device"])
        return torch.tensor(7)

    monkeypatch.setattr(torch, "randint", drawn)
    assert torch.equal(call(Elsewhere()), call(torch.Generator().manual_seed(7)))
    assert asked == [Elsewhere.device]
    assert not torch.equal(call(torch.Generator().manual_seed(8)), call(torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_a_seed_is_no_generator(name):
    with pytest.raises(ValueError, match=r"got int 7; a seed n becomes torch.Generator\(\).manual_seed\(n\)"):
        ON_THE_CPU[name](7)
