"""Jacobians, traces and Hutchinson's estimate: closed forms, every sign vector enumerated, Gauss-Hermite nodes, large samples."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from paths import f64, generator, one_thread  # noqa: F401

from diffusion_core import divergence, draw_probes, hutchinson, jacobian, ring, score_of, two_peaks

A = f64([[1.0, -2.0, 0.5], [0.3, 0.7, 1.1], [-0.8, 0.2, -1.5]])
B = f64([[0.4, 1.0, -0.6], [0.9, -0.3, 0.2], [0.1, 0.8, 0.5]])
SHAPES = {"scalars": (), "vectors": (3,), "images": (1, 3, 1)}


def field(x):
    """A tanh(B x): its Jacobian A diag(1 - tanh^2) B is not symmetric."""
    return (torch.tanh(x.reshape(-1, 3) @ B.T.to(x)) @ A.T.to(x)).reshape(x.shape)


def field_jacobian(x):
    return torch.einsum("ij,bj,jk->bik", A, 1 - torch.tanh(x.reshape(-1, 3) @ B.T) ** 2, B)


def points(n=4, seed=1):
    return torch.randn(n, 3, generator=generator(seed), dtype=torch.float64)


def traces(m):
    return m.diagonal(dim1=-2, dim2=-1).sum(-1)


# ---------------------------------------------------------------------------------------------- exact


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("shape", [(3,), (1, 3, 1), (3, 1)])
def test_jacobian_and_divergence_are_the_closed_form(n, shape):
    x = points(n).reshape(n, *shape)
    want = field_jacobian(x)
    assert float((want - want.mT).abs().max()) > 0.3
    torch.testing.assert_close(jacobian(field, x), want.reshape(n, *shape, *shape), rtol=1e-12, atol=1e-13)
    value, trace = divergence(field, x)
    torch.testing.assert_close(value, field(x), rtol=0, atol=0)
    torch.testing.assert_close(trace, traces(want), rtol=1e-12, atol=1e-13)


def test_scalars():
    x = f64([-1.0, 0.3, 2.0])
    cube = lambda u: u**3
    torch.testing.assert_close(jacobian(cube, x), 3 * x**2)
    torch.testing.assert_close(divergence(cube, x)[1], 3 * x**2)
    torch.testing.assert_close(hutchinson(cube, x, 2, generator=generator(1))[1], 3 * x**2)  # v^2 = 1


def test_float32_stays_float32():
    x = points().float()
    for got, want in ((jacobian(field, x), field_jacobian(points())), (divergence(field, x)[1], traces(field_jacobian(points())))):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    value, trace = hutchinson(field, x, draw_probes(points(), 3, generator=generator(1)))  # probes in float64
    assert value.dtype == trace.dtype == torch.float32 and trace.shape == (4,)


def test_the_field_is_called_once():
    calls = []
    spy = lambda u: calls.append(1) or field(u)
    for ask in (lambda: jacobian(spy, points()), lambda: divergence(spy, points()), lambda: hutchinson(spy, points(), 5)):
        calls.clear()
        ask()
        assert len(calls) == 1


# ---------------------------------------------------------------------------------------------- Hutchinson


def test_hutchinson_is_the_mean_of_quadratic_forms():
    x, v = points(), draw_probes(points(), 6, "gaussian", generator(2))
    value, trace = hutchinson(field, x, v)
    torch.testing.assert_close(value, field(x), rtol=0, atol=0)
    want = torch.einsum("nbi,bij,nbj->nb", v, field_jacobian(x), v).mean(0)
    torch.testing.assert_close(trace, want, rtol=1e-12, atol=1e-12)
    images = x.reshape(4, 3, 1, 1)
    torch.testing.assert_close(hutchinson(field, images, v.reshape(6, 4, 3, 1, 1))[1], want, rtol=1e-12, atol=1e-12)


def one_probe_each(x, v):
    """The estimate from each of the probes (n, 3) alone, at the single point x (1, 3): (n,)."""
    return hutchinson(field, x.expand(len(v), 3), v[None])[1]


def test_rademacher_mean_and_variance_over_every_sign_vector():
    """All 2^3 probes are equally likely: no sampling is left. The variance is that of the symmetric part S, 2 sum_{i != j} S_ij^2."""
    x = points(1)
    estimates = one_probe_each(x, f64(list(itertools.product([-1.0, 1.0], repeat=3))))
    j = field_jacobian(x)[0]
    s = (j + j.T) / 2
    off = s - torch.diag(s.diagonal())
    torch.testing.assert_close(estimates.mean(), j.trace())
    torch.testing.assert_close(estimates.var(correction=0), 2 * (off**2).sum())
    assert abs(float(2 * ((j - torch.diag(j.diagonal())) ** 2).sum()) / float(2 * (off**2).sum()) - 1) > 0.2  # J in the place of S would be wrong


def test_gaussian_mean_and_variance_by_exact_cubature():
    """Three Gauss-Hermite nodes a coordinate integrate every polynomial of degree 5: both moments exactly. The variance is 2 ||S||_F^2."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    v = f64(list(itertools.product(nodes, repeat=3)))
    w = f64([math.prod(c) for c in itertools.product(weights / weights.sum(), repeat=3)])
    x = points(1)
    estimates = one_probe_each(x, v)
    j = field_jacobian(x)[0]
    mean = (w * estimates).sum()
    torch.testing.assert_close(mean, j.trace())
    torch.testing.assert_close((w * (estimates - mean) ** 2).sum(), 2 * (((j + j.T) / 2) ** 2).sum())


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
@pytest.mark.parametrize("probes", [1, 4])
def test_the_variance_of_drawn_estimates_falls_as_one_over_n(kind, probes):
    n, x = 40_000, points(1)
    with torch.no_grad():
        estimates = hutchinson(field, x.expand(n, 3), probes, kind, generator(3))[1]
    j = field_jacobian(x)[0]
    s = (j + j.T) / 2
    want = 2 * (s**2).sum() - (2 * (s.diagonal() ** 2).sum() if kind == "rademacher" else 0)
    squares = (estimates - j.trace()) ** 2
    assert abs(float(estimates.mean() - j.trace())) < 5 * float(estimates.std()) / math.sqrt(n)
    assert abs(float(squares.mean() - want / probes)) < 5 * float(squares.std()) / math.sqrt(n)


def test_rademacher_is_exact_for_a_diagonal_jacobian():
    x = points()
    torch.testing.assert_close(hutchinson(lambda u: u**3, x, 1, generator=generator(4))[1], (3 * x**2).sum(1))


def test_probes_are_what_they_are_called():
    x = torch.zeros(50, 2, 3)
    signs, normal = (draw_probes(x, 400, kind, generator(5)) for kind in ("rademacher", "gaussian"))
    assert signs.shape == normal.shape == (400, 50, 2, 3) and signs.dtype == normal.dtype == torch.float32
    assert set(signs.unique().tolist()) == {-1.0, 1.0} and abs(float(signs.mean())) < 5 / math.sqrt(signs.numel())
    assert scipy.stats.kstest(normal.flatten().numpy(), "norm").pvalue > 1e-3
    for v in (signs, normal):  # no two coordinates, samples or probes share a draw
        flat = v.reshape(400, -1).double()
        correlation = flat.T @ flat / 400 - torch.eye(300)
        correlation.fill_diagonal_(0)
        assert float(correlation.abs().max()) < 6 / math.sqrt(400)
        assert float((flat[:-1] * flat[1:]).mean().abs()) < 5 / math.sqrt(flat.numel())
    assert draw_probes(torch.zeros(2, dtype=torch.float64), kind="gaussian").shape == (1, 2)
    assert draw_probes(torch.zeros(2, dtype=torch.float64), kind="gaussian").dtype == draw_probes(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


def test_probes_come_from_the_generator():
    x = points()
    for kind in ("rademacher", "gaussian"):
        drawn = hutchinson(field, x, 3, kind, generator(6))[1]
        assert torch.equal(drawn, hutchinson(field, x, draw_probes(x, 3, kind, generator(6)))[1])
        assert not torch.equal(drawn, hutchinson(field, x, 3, kind, generator(7))[1])
    assert torch.equal(hutchinson(field, x, 3, generator=generator(6))[1], hutchinson(field, x, 3, "rademacher", generator(6))[1])


# ---------------------------------------------------------------------------------------------- graphs


@pytest.mark.parametrize("how", ["jacobian", "divergence", "hutchinson"])
@pytest.mark.parametrize("leaf", [True, False])
def test_a_loss_trains_through_them(how, leaf):
    """f = theta x^3: the trace is 3 theta sum x^2, and so on."""
    x, theta = points(), f64(0.7).requires_grad_()
    x = x.requires_grad_(leaf)
    f = lambda u: theta * u**3
    trace = {"jacobian": lambda: traces(jacobian(f, x)), "divergence": lambda: divergence(f, x)[1], "hutchinson": lambda: hutchinson(f, x, 2)[1]}[how]()
    torch.testing.assert_close(torch.autograd.grad(trace.sum(), theta, retain_graph=True)[0], 3 * (x.detach() ** 2).sum())
    if leaf:
        torch.testing.assert_close(torch.autograd.grad(trace.sum(), x)[0], 6 * 0.7 * x.detach())
    assert x.requires_grad == leaf and x.grad is None and theta.grad is None


def test_the_value_carries_its_graph_too():
    theta = f64(0.7).requires_grad_()
    for value, _ in (divergence(lambda u: theta * u**3, points()), hutchinson(lambda u: theta * u**3, points())):
        torch.testing.assert_close(torch.autograd.grad(value.sum(), theta)[0], (points() ** 3).sum())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("leaf", [True, False])
def test_without_gradients_the_values_are_the_same_and_carry_no_graph(mode, leaf):
    theta = f64(0.7).requires_grad_()
    f, x, v = (lambda u: theta * field(u)), points(), draw_probes(points(), 2)
    want = [jacobian(f, x), *divergence(f, x), *hutchinson(f, x, v), score_of(lambda u: -theta * (u**4).sum(1))(x)]
    with mode():
        x = (x + 0).requires_grad_(leaf)  # made here: under inference_mode, a tensor that autograd refuses
        got = [jacobian(f, x), *divergence(f, x), *hutchinson(f, x, v), score_of(lambda u: -theta * (u**4).sum(1))(x)]
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b.detach())
        assert not a.requires_grad and b.requires_grad


def test_an_inference_tensor_outside_of_inference_mode():
    with torch.inference_mode():
        x = points() + 0
    torch.testing.assert_close(divergence(field, x)[1], traces(field_jacobian(points())))


# ---------------------------------------------------------------------------------------------- scores of log-densities


@pytest.mark.parametrize("world", [two_peaks(), ring()], ids=["two_peaks", "ring"])
def test_score_of_is_the_score(world):
    x = torch.randn(5, *world.event, generator=generator(8), dtype=torch.float64)
    torch.testing.assert_close(score_of(world.log_prob)(x), world.score(x), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(score_of(lambda u: world.log_prob(u) + 3.0)(x), world.score(x), rtol=1e-9, atol=1e-10)  # no constant matters
    torch.testing.assert_close(jacobian(score_of(world.log_prob), x), world.hessian(x), rtol=1e-8, atol=1e-8)


def test_score_of_trains_the_energy():
    """E = theta x^4 / 4: s = -theta x^3, and a loss of s has its derivatives in theta and in x."""
    theta, x = f64(0.7).requires_grad_(), points().requires_grad_()
    score = score_of(lambda u: -theta * (u**4).sum(1) / 4)(x)
    torch.testing.assert_close(score, -0.7 * x**3)
    by_theta, by_x = torch.autograd.grad(score.sum(), (theta, x))
    torch.testing.assert_close(by_theta, -(x.detach() ** 3).sum())
    torch.testing.assert_close(by_x, -3 * 0.7 * x.detach() ** 2)


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("ask", [jacobian, divergence, hutchinson], ids=["jacobian", "divergence", "hutchinson"])
@pytest.mark.parametrize(("f", "x", "message"), [
    (lambda x: x[:, :1], points(), "must return the shape of x"), (lambda x: None, points(), "got NoneType"),
    (lambda x: x.detach(), points(), "no differentiable path"), (lambda x: torch.ones_like(x), points(), "no differentiable path"),
    (lambda x: torch.ones_like(x, requires_grad=True) * 2, points(), "no differentiable path"),
    (field, torch.ones(2, 3, dtype=torch.int64), "floating tensor"), (field, 0.5, "floating tensor"), (field, torch.tensor(0.5), "floating tensor"),
])
def test_fields_that_cannot_be_differentiated(ask, f, x, message):
    with pytest.raises(ValueError, match=message):
        ask(f, x)


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda: hutchinson(field, points(), 0), "positive integer"), (lambda: hutchinson(field, points(), 1.0), "positive integer"), (lambda: hutchinson(field, points(), True), "positive integer"),
    (lambda: hutchinson(field, points(), kind="sphere"), '"rademacher" or "gaussian"'), (lambda: draw_probes(points(), 1, "Gaussian"), '"rademacher" or "gaussian"'),
    (lambda: hutchinson(field, points(), torch.ones(4, 3)), r"shape \(n, 4, 3\)"), (lambda: hutchinson(field, points(), torch.ones(2, 3, 3)), r"shape \(n, 4, 3\)"),
    (lambda: hutchinson(field, points(), torch.ones(0, 4, 3)), r"got \(0, 4, 3\)"), (lambda: hutchinson(lambda u: u, f64([1.0]), torch.ones(1)), r"shape \(n, 1\)"),
    (lambda: hutchinson(field, 0.5, torch.ones(1)), "floating tensor"), (lambda: draw_probes(0.5), "floating tensor"), (lambda: draw_probes(torch.tensor([1])), "floating tensor"),
    (lambda: score_of(lambda u: u)(points()), r"shape \(4,\), got torch.float64 of shape \(4, 3\)"), (lambda: score_of(lambda u: u.sum())(points()), "one number a sample"),
    (lambda: score_of(lambda u: 1.0)(points()), "got float"), (lambda: score_of(lambda u: u.detach().sum(1))(points()), "no differentiable path"),
    (lambda: score_of(lambda u: torch.ones(4, requires_grad=True) * 2)(points()), "no differentiable path"), (lambda: score_of(lambda u: u.sum(1))(torch.ones(2, 2, dtype=torch.int64)), "floating tensor"),
])
def test_what_cannot_be_meant_raises(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
