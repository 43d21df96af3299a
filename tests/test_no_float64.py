"""A device without float64, such as Apple's mps, played by the CPU: tensors that say they are there, refuse float64 and refuse to meet tensors elsewhere."""

import pytest
import torch
from paths import generator, one_thread  # noqa: F401
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map

from diffusion_core import (
    DDPM,
    Denoiser,
    Empirical,
    Gaussian,
    GaussianMixture,
    GeometricVE,
    LearnedVariance,
    LinearVP,
    analytic_variance,
    ancestral,
    annealed_langevin,
    churned_heun,
    clipped,
    continuous_vlb,
    ddim,
    ddim_inversion,
    denoising_loss,
    denoising_score_matching,
    discretized_log_prob,
    divergence,
    dpmpp_2m,
    euler_maruyama,
    explicit_score_matching,
    exponential_multistep,
    forward_euler_maruyama,
    gaussian_kl,
    heun,
    hutchinson,
    hybrid_loss,
    implicit_score_matching,
    jacobian,
    langevin,
    last,
    linear_betas,
    mala,
    metrics,
    ode_decode,
    ode_encode,
    ode_log_likelihood,
    predictor_corrector,
    score_at,
    score_of,
    sliced_score_matching,
    sliced_score_matching_vr,
    targets,
    transition_variance,
    uniform,
    unipc,
    vlb,
)
from diffusion_core.likelihood.bounds import _stratified
from diffusion_core.losses import min_snr

MPS = torch.device("mps")


class There(Tensor):
    """A tensor on the other device."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class Device(TorchFunctionMode):
    """Every call of torch passes here: `There` tensors stay there, and what mps would refuse is refused."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func == Tensor.device.__get__:
            return MPS if isinstance(args[0], There) else func(*args)
        leaves = [torch.device(leaf) if isinstance(leaf, str) and leaf in ("cpu", "mps") else leaf for leaf in tree_iter((args, kwargs or {}))]
        tensors, places = ([leaf for leaf in leaves if isinstance(leaf, kind)] for kind in (Tensor, torch.device))
        moves = func in (Tensor.to, Tensor.cpu)
        if func is Tensor.cpu or (places and places[0].type == "cpu"):
            lands = False
        elif places or (func is Tensor.to and len(tensors) == 2):
            lands = bool(places) or isinstance(tensors[1], There)
        else:
            lands = any(isinstance(t, There) for t in tensors)
        if lands and not moves and any(t.ndim > 0 and not isinstance(t, There) for t in tensors):
            raise RuntimeError(f"{func.__name__}: expected all tensors to be on the same device, but found mps and cpu")
        args, kwargs = tree_map(lambda leaf: torch.device("cpu") if isinstance(leaf, torch.device) else leaf, (args, kwargs or {}))
        value = func(*args, **kwargs)
        return value if isinstance(value, torch.Size) else tree_map(lambda leaf: _placed(leaf, lands) if isinstance(leaf, Tensor) else leaf, value)


def _placed(tensor, lands):
    if lands and tensor.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
    if isinstance(tensor, There) == lands:
        return tensor
    return tensor.as_subclass(There if lands else Tensor)


def there(x):
    return x.float().as_subclass(There)


def test_the_device_refuses_what_mps_refuses():
    with Device():
        x = there(torch.ones(3))
        assert x.device.type == "mps" and (2 * x + torch.tensor(1.0)).device.type == "mps" and x.cpu().device.type == "cpu" and torch.zeros(2, device=x.device).device.type == "mps"
        assert torch.ones(3, dtype=torch.float64).to(x.device, torch.float32).device.type == "mps" and torch.ones(3).to(x).device.type == "mps"
        for refused in (x.double, lambda: x.to(torch.float64), lambda: torch.ones(3, dtype=torch.float64).to(x.device), lambda: torch.zeros(2, dtype=torch.float64, device=x.device)):
            with pytest.raises(TypeError, match="float64"):
                refused()
        for refused in (lambda: x + torch.ones(3), lambda: torch.where(x > 0, x, torch.ones(3)), lambda: x.__setitem__(x > 0, torch.ones(3))):
            with pytest.raises(RuntimeError, match="same device"):
                refused()
    assert torch.ones(3).device.type == "cpu"


class Both(nn.Module):
    """A network of two outputs without arrays of weights."""

    learned_variance = True

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, c):
        return torch.cat([self.gain * x, torch.tanh(x) * c.reshape(-1, *[1] * (x.ndim - 1)) / 20], 1)


CHAIN = DDPM(linear_betas(8, 0.02, 0.5))
NET = Denoiser(Both(), CHAIN, targets.v)
LEVELS = torch.randint(256, (6, 2), generator=generator(1)) / 127.5 - 1
POINTS = torch.randn(6, 2, generator=generator(2))
MIXTURE = GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], [0.2, 0.4])
FULL = GaussianMixture([[-1.0, 0.0]], [[[0.5, 0.2], [0.2, 0.3]]])
EXACT = Gaussian([0.1, -0.2], 0.3)
T = torch.tensor([1, 2, 3, 4, 8, 1]) / 8
G = lambda: generator(3)
LAWS = {
    f"{name} {law}": (lambda x, world=world, law=law: getattr(world, law)(x, torch.tensor(0.8), torch.linspace(0.2, 0.9, 6)))
    for name, world in (("mixture", MIXTURE), ("full", FULL), ("empirical", Empirical(POINTS.flip(0).contiguous()))) for law in ("log_prob", "score", "posterior_mean", "posterior_cov", "hessian")
}
CALLS = {
    **LAWS,
    "ddim": lambda x: last(ddim(EXACT.denoiser(CHAIN), CHAIN, x, uniform(8), 0.5, G())), "ancestral": lambda x: last(ancestral(EXACT.denoiser(CHAIN), CHAIN, x, uniform(8), transition_variance, G())),
    "ancestral, learned": lambda x: last(ancestral(NET, CHAIN, x, uniform(8), LearnedVariance(NET), G())),
    **{f"solver {i}": (lambda x, solver=solver: last(solver(EXACT.denoiser(CHAIN), CHAIN, x, uniform(8)))) for i, solver in enumerate((heun, dpmpp_2m, exponential_multistep, unipc))},
    "euler_maruyama": lambda x: last(euler_maruyama(EXACT.denoiser(CHAIN), CHAIN, x, uniform(8), 0.5, G())), "forward": lambda x: last(forward_euler_maruyama(CHAIN, x, uniform(8)[:-1].flip(0), G())),
    "corrector": lambda x: last(predictor_corrector(EXACT.denoiser(CHAIN), CHAIN, x, uniform(8), generator=G())), "churn": lambda x: last(churned_heun(EXACT.denoiser(CHAIN), CHAIN, x, uniform(8)[1:], 2.0, generator=G())),
    "inversion": lambda x: last(ddim_inversion(EXACT.denoiser(CHAIN), CHAIN, x, uniform(8))), "clipped": lambda x: clipped(NET)(x, T),
    "langevin": lambda x: last(langevin(MIXTURE.score, x, torch.linspace(0.01, 0.1, 6), 3, G())), "mala": lambda x: last(mala(MIXTURE.log_prob, x, torch.linspace(0.01, 0.1, 6), 3, G())),
    "acceptance": lambda x: (chains := mala(MIXTURE.log_prob, x, 0.5, 3, G()), last(chains), chains.acceptance)[2],
    "annealed": lambda x: last(annealed_langevin(MIXTURE.denoiser(GeometricVE(0.1, 5.0)), GeometricVE(0.1, 5.0), x, uniform(4), 2, 0.3, G())),
    "score_at": lambda x: score_at(MIXTURE.denoiser(CHAIN), CHAIN, T)(x), "score_of": lambda x: score_of(MIXTURE.log_prob)(x), "jacobian": lambda x: jacobian(MIXTURE.score, x),
    "divergence": lambda x: divergence(MIXTURE.score, x)[1], "hutchinson": lambda x: hutchinson(MIXTURE.score, x, 2, "gaussian", G())[1], "signs": lambda x: hutchinson(MIXTURE.score, x, 2, generator=G())[1],
    "explicit": lambda x: explicit_score_matching(torch.neg, x, MIXTURE.score), "implicit": lambda x: implicit_score_matching(torch.sin, x),
    "sliced": lambda x: sliced_score_matching(torch.sin, x, 2, generator=G()), "sliced, vr": lambda x: sliced_score_matching_vr(torch.sin, x, 2, generator=G()),
    "denoising": lambda x: denoising_score_matching(torch.neg, x, torch.linspace(0.1, 1, 6), G()),
    "denoising_loss": lambda x: denoising_loss(NET, x, T, min_snr(), G()),
    "analytic": lambda x: last(ancestral(EXACT.denoiser(CHAIN), CHAIN, x, uniform(8), analytic_variance(EXACT.denoiser(CHAIN), CHAIN, x, uniform(8), G()), G())),
    "kl": lambda x: gaussian_kl(x, torch.linspace(0.1, 1, 6), 0.5 * x, x.square() + 0.1), "density": lambda x: discretized_log_prob(x, 0.9 * x, x.square() + 0.1, None),
    **{f"vlb, {name}": (lambda x, v=v: vlb(NET, CHAIN, x, uniform(8), v, None, 2, G()).total) for name, v in (("posterior", None), ("learned", LearnedVariance(NET)))},
    "vlb, floor": lambda x: vlb(EXACT.denoiser(GeometricVE()), GeometricVE(), x, uniform(8), levels=None, generator=G()).bits_per_dim,
    "continuous": lambda x: continuous_vlb(EXACT.denoiser(LinearVP()), LinearVP(), x, 0.01, None, 2, G()).total,
    **{f"flow, {kind}": (lambda x, kind=kind: ode_log_likelihood(EXACT.denoiser(CHAIN), CHAIN, x, 0.2, trace=kind, generator=G()).log_prob) for kind in ("exact", "rademacher")},
    "encode": lambda x: ode_encode(EXACT.denoiser(CHAIN), CHAIN, x, 0.2), "decode": lambda x: ode_decode(EXACT.denoiser(CHAIN), CHAIN, x, 0.2),
    "hybrid": lambda x: hybrid_loss(8, 0.1, None)(NET, x, T, generator=G()),
}
ON_LEVELS = {
    "vlb, levels": lambda x: vlb(NET, CHAIN, x, uniform(8), generator=G()).total, "continuous, levels": lambda x: continuous_vlb(NET, CHAIN, x, 0.05, generator=G()).total,
    "decoder": lambda x: discretized_log_prob(x, 0.9 * x, torch.linspace(0.1, 1, 6)), "hybrid, levels": lambda x: hybrid_loss(8, 0.1)(NET, x, T, generator=G()),
}


@pytest.mark.parametrize("name", [*CALLS, *ON_LEVELS])
def test_it_works_there_as_on_the_cpu(name):
    call, x = (CALLS[name], POINTS) if name in CALLS else (ON_LEVELS[name], LEVELS)
    want = call(x)
    with Device():
        got = call(there(x))
        assert got.device.type == "cpu" if got.dtype == torch.float64 else got.device.type == "mps"
    torch.testing.assert_close(got.as_subclass(Tensor).detach().double(), want.detach().double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["hybrid", "hybrid, levels"])
def test_the_hybrid_loss_trains_there(name):
    call, x = (CALLS[name], POINTS) if name in CALLS else (ON_LEVELS[name], LEVELS)
    (want,) = torch.autograd.grad(call(x).sum(), NET.net.gain)
    with Device():
        loss = call(there(x)).sum()
    (got,) = torch.autograd.grad(loss.as_subclass(Tensor), NET.net.gain)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


METRICS = {
    "sliced_wasserstein": lambda x: metrics.sliced_wasserstein(x, 2 * x, 50, generator=G()), "energy_distance": lambda x: metrics.energy_distance(x, 2 * x),
    "permutation_test": lambda x: metrics.permutation_test(x, 2 * x, permutations=50, generator=G()), "frechet_distance": lambda x: metrics.frechet_distance(x.mean(0), x.T @ x, 2 * x.mean(0), 4 * x.T @ x),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_distance_of_samples_there_is_that_of_the_cpu(name):
    want = METRICS[name](POINTS)
    with Device():
        got = METRICS[name](there(POINTS))
    assert got == pytest.approx(want, rel=1e-5)


def test_a_generator_of_the_device_is_not_asked_for_float64(monkeypatch):
    """No generator can play mps, so torch.rand and torch.randperm note what they are asked for and draw on the CPU."""

    class Elsewhere:
        device = MPS

    asked, rand, randperm = [], torch.rand, torch.randperm
    monkeypatch.setattr(torch, "rand", lambda *size, generator, dtype, device: asked.append((dtype, device)) or rand(*size, dtype=dtype))
    monkeypatch.setattr(torch, "randperm", lambda n, generator, device: randperm(n))
    u = _stratified(50, Elsewhere())
    assert asked == [(torch.float32, MPS)] and u.dtype == torch.float64
    assert (50 * u).floor().sort().values.tolist() == list(range(50))
