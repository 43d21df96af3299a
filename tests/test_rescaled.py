"""The two paths made from paths, against the papers that propose them: numpy in their letters."""

import math

import numpy as np
import pytest
import torch
from paths import f64, one_thread  # noqa: F401

from diffusion_core import DDPM, CosineVP, GeometricVE, Shifted, Straight, SubVP, ZeroTerminalSNR, linear_betas, scaled_linear_betas


@pytest.mark.parametrize("betas", [linear_betas(), scaled_linear_betas()])
def test_zero_terminal_snr_is_lin_et_al_but_for_the_end_that_stays(betas):
    """Algorithm 1 keeps sqrt(abar) at its first knot, t = 1/N, ours keeps it at t = 0: both are affine in sqrt(abar) and end at 0."""
    root = np.sqrt(np.cumprod(1 - betas.numpy()))
    theirs = (root - root[-1]) * root[0] / (root[0] - root[-1])
    ours = ZeroTerminalSNR(DDPM(betas))(torch.arange(1, len(betas) + 1, dtype=torch.float64) / len(betas))[0].numpy()
    assert ours[-1] == theirs[-1] == 0
    np.testing.assert_allclose(ours, theirs * (ours[0] / theirs[0]), rtol=1e-9, atol=1e-15)
    assert ours[0] == pytest.approx((root[0] - root[-1]) / (1 - root[-1]), rel=1e-12)


def test_shift_of_a_cosine_path_is_that_of_simple_diffusion():
    """Hoogeboom et al. 2023: logsnr(t) = -2 log tan(pi t / 2) + 2 log(64 / d); at equal log-SNR the paths agree, VP as they are."""
    for side in (32, 128, 512):
        plain, shifted, t = CosineVP(), Shifted(CosineVP(), side / 64), f64([0.1, 0.5, 0.93])
        torch.testing.assert_close(shifted.log_snr(t), plain.log_snr(t) + 2 * math.log(64 / side), rtol=1e-12, atol=0)
        for made, wanted in zip(shifted(t), plain(plain.time(shifted.log_snr(t)))):
            torch.testing.assert_close(made, wanted, rtol=1e-12, atol=0)


def test_shift_of_a_straight_path_is_the_time_shift_of_sd3():
    t = f64([0.0, 0.2, 0.6, 1.0])
    moved = 3 * t / (1 + 2 * t)
    torch.testing.assert_close(torch.stack(Shifted(Straight(), 3.0)(t)), torch.stack([1 - moved, moved]), rtol=1e-14, atol=1e-16)


def test_shift_of_an_exploding_path_scales_the_noise_alone():
    alpha, sigma = Shifted(GeometricVE(0.01, 50.0), 4.0)(f64([0.0, 0.5, 1.0]))
    assert alpha.tolist() == [1, 1, 1]
    torch.testing.assert_close(sigma, 4 * GeometricVE(0.01, 50.0)(f64([0.0, 0.5, 1.0]))[1])


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda: Shifted(CosineVP(), 0.0), "positive and finite"), (lambda: Shifted(CosineVP(), math.inf), "positive and finite"),
    (lambda: Shifted(SubVP(), 2.0), "SubVP keeps neither"), (lambda: ZeroTerminalSNR(SubVP()), "variance-preserving"), (lambda: ZeroTerminalSNR(Straight()), "variance-preserving"),
])
def test_what_cannot_be_rescaled_raises(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
