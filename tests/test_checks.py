"""The book's executable proofs: what passes, what fails, what is refused because it could not fail; and the choice of the device."""

import math

import numpy as np
import pytest
import torch

from diffusion_core import by_device, check, check_below, device


@pytest.mark.parametrize("call", [
    lambda: check("a", 1.0, 1.1, atol=0.11), lambda: check("a", [1.0, 100.0], [1.0, 101.0], rtol=0.01), lambda: check("a", torch.tensor([1.0, 2.0]), 1.5, atol=0.5), lambda: check("a", 1.0, 1.4, stderr=0.1),
    lambda: check("a", torch.ones(2, requires_grad=True), np.ones(2), atol=1e-9), lambda: check("a", [[1.0], [2.0]], [1.0], atol=1.0), lambda: check("a", 10.0, 11.0, atol=0.5, rtol=0.05),
    lambda: check("a", [1.0, 2.0], [1.4, 2.0], stderr=[0.1, 1e-3]), lambda: check_below("a", [1.0, 2.0], 2.0), lambda: check_below("a", [1.0, 2.0], [1.5, 2.5]), lambda: check("a", 0.0, 0.0, atol=1e-300),
])
def test_true_claims_pass(call, capsys):
    call()
    out = capsys.readouterr().out
    assert out.startswith("✓ a: ") and out.count("\n") == 1


@pytest.mark.parametrize("call", [
    lambda: check("a", 1.0, 1.1, atol=0.09), lambda: check("a", [1.0, 100.0], [1.0, 102.0], rtol=0.01), lambda: check("a", 1.0, 1.6, stderr=0.1), lambda: check("a", math.nan, 1.0, atol=1.0),
    lambda: check("a", 1.0, math.nan, atol=1.0), lambda: check("a", 1.0, math.nan, rtol=1.0), lambda: check("a", [math.nan, 1.0], [math.nan, 1.0], atol=1.0), lambda: check("a", math.inf, 1.0, atol=1.0),
    lambda: check("a", 1.0, math.inf, atol=1.0), lambda: check("a", 1.0, math.inf, rtol=0.1), lambda: check("a", 1.0, [1.0, -math.inf], rtol=0.1), lambda: check("a", [1.0, 2.0], [1.0, 2.6], stderr=0.1), lambda: check("a", -1.0, 1.0, rtol=1.0), lambda: check_below("a", [1.0, 3.0], 2.0),
    lambda: check_below("a", math.nan, 2.0), lambda: check_below("a", 1.0, math.nan), lambda: check_below("a", math.inf, 2.0), lambda: check_below("a", -math.inf, 2.0),
])
def test_false_claims_fail(call, capsys):
    with pytest.raises(AssertionError, match="a: "):
        call()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("call", "message"), [
    (lambda: check("a", 1.0, 1.0), "give a positive, finite atol"), (lambda: check("a", 1.0, 1.0, atol=math.inf), "finite"), (lambda: check("a", 1.0, 1.0, rtol=math.inf), "finite"),
    (lambda: check("a", 1.0, 1.0, atol=math.nan), "finite"), (lambda: check("a", 1.0, 1.0, atol=-1.0, rtol=2.0), "positive"), (lambda: check("a", [], 1.0, atol=1.0), "empty"),
    (lambda: check("a", 1.0, [], atol=1.0), "empty"), (lambda: check("a", 1.0, 1.0, atol=0.1, stderr=0.1), "not both"), (lambda: check("a", 1.0, 1.0, stderr=0.0), "positive and finite"),
    (lambda: check("a", 1.0, 1.0, stderr=math.inf), "positive and finite"), (lambda: check("a", 1.0, 1.0, stderr=math.nan), "positive and finite"),
    (lambda: check("a", [[1.0], [2.0]], [[1.0, 2.0]], atol=1.0), "neither can be repeated"), (lambda: check("a", [1.0, 2.0, 3.0], [1.0, 2.0], atol=1.0), "neither can be repeated"), (lambda: check_below("a", 1.0, math.inf), "cannot fail"),
    (lambda: check_below("a", [], 1.0), "empty"),
])
def test_claims_that_could_not_fail_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_line_does_not_depend_on_the_measured_value(capsys):
    for got in (1.0, 1.0 + 1e-9):
        check("law", got, 1.0, atol=1e-6)
        check("mean", got, 1.0, stderr=0.1 * got)
        check_below("error", got, 2.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == lines[3:] and lines[0] == "✓ law: |got - want| <= 1e-06" and lines[1] == "✓ mean: |got - want| <= 5 standard errors" and lines[2] == "✓ error: at most 2"


def test_the_message_names_the_worst_place():
    with pytest.raises(AssertionError, match=r"law: got .*9\.0.*want .*3\.0.*deviation 6.000e\+00 where 1.000e\+00 is allowed \(index \(2,\)\)"):
        check("law", [1.5, 2.0, 9.0], [1.0, 2.0, 3.0], atol=1.0)
    with pytest.raises(AssertionError, match=r"index \(1,\)"):
        check("law", [1.0, math.nan, 1.5], 1.0, atol=0.1)


def test_device(monkeypatch):
    assert device() == torch.device("cpu") and by_device(cpu=1, gpu=2) == 1
    monkeypatch.setenv("DIFFUSION_CORE_DEVICE", "abacus")
    with pytest.raises(ValueError, match="no such device here; use one of cpu"):
        device()
    monkeypatch.setenv("DIFFUSION_CORE_DEVICE", "cuda:99")
    with pytest.raises(ValueError, match="no such device"):
        device()
    monkeypatch.delenv("DIFFUSION_CORE_DEVICE")
    assert device().type in ("cpu", "cuda", "mps")
    with pytest.raises(TypeError):
        by_device(1, 2)
