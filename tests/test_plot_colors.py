"""Colors stay apart for those who see fewer of them, and stand out from the paper."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from diffusion_core import plots

ROLES = {"data": plots.DATA, "noise": plots.NOISE, "model": plots.MODEL, "exact": plots.EXACT, "wrong": plots.WRONG}

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency" (IEEE TVCG 15(6), 2009):
# table for severity 1, acting on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


def linear_rgb(colors) -> np.ndarray:
    c = np.array([to_rgb(color) for color in colors])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def luminance(colors) -> np.ndarray:
    return linear_rgb(colors) @ XYZ[1]


def lab(colors, sight: str) -> np.ndarray:
    """CIE L*a*b* (D65) of colors as seen."""
    xyz = np.clip(linear_rgb(colors) @ SIGHT[sight].T, 0, 1) @ XYZ.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)


def closest(colors, sight: str) -> float:
    points = lab(colors, sight)
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(points, 2))


@pytest.mark.parametrize(("sight", "travellers", "roles"), [("normal", 40, 40), ("protanopia", 30, 20), ("deuteranopia", 30, 20), ("tritanopia", 20, 20)])
def test_colors_stay_apart(sight: str, travellers: float, roles: float) -> None:
    assert closest(plots.TRAVELLERS, sight) >= travellers
    assert closest(ROLES.values(), sight) >= roles


def test_the_measure_of_colors_finds_a_bad_pair() -> None:
    """The red and the green of traffic lights are apart for normal sight and near for a deuteranope."""
    pair = ("#c0504d", "#7f7f3f")
    assert closest(pair, "normal") > 40 and closest(pair, "deuteranopia") < 20


def test_lines_stand_out_from_the_paper() -> None:
    """WCAG 2 asks 3 : 1 of what carries meaning; the lightest traveller has 2.7 and is told by its marker too, and ink has far more."""
    contrast = 1.05 / (luminance([*ROLES.values(), *plots.TRAVELLERS, plots.INK]) + 0.05)
    assert (contrast[:5] >= 3).all() and (contrast[5:] >= 2.7).all() and contrast[-1] > 12
    assert len(set(plots.MARKERS)) == len(plots.TRAVELLERS) == 8


def test_colormaps() -> None:
    at = np.linspace(0, 1, 65)
    assert (np.diff(luminance(plots.SEQUENTIAL(at))) < 0).all()
    middle = luminance(plots.DIVERGING(at))
    assert (np.diff(middle[:33]) > 0).all() and (np.diff(middle[32:]) < 0).all() and middle[32] > 0.99
