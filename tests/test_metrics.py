"""Distances between samples against hand-computed values, closed forms and scipy; the packaged classifiers."""

import json
import math
import sys
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats
import torch
from safetensors import safe_open
from torch import nn

from diffusion_core.data import images
from diffusion_core.metrics import (
    class_accuracy,
    energy_distance,
    energy_kernel,
    floor,
    frechet_distance,
    frechet_feature_distance,
    gaussian_kernel,
    mmd2,
    permutation_test,
    sliced_wasserstein,
)
from diffusion_core.pretrained import FOLDER, pretrained


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


class Pixels(nn.Module):
    """A classifier one can compute by hand: the features are the pixels, the class is the largest of them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Flatten()
        self.unit = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x) * self.unit


# Sliced Wasserstein


def test_wasserstein_by_hand():
    assert sliced_wasserstein(column(0, 1), column(1, 0)) == 0
    assert sliced_wasserstein(column(0), column(0, 2), p=1) == pytest.approx(1)
    assert sliced_wasserstein(column(0), column(0, 2), p=2) == pytest.approx(math.sqrt(2))
    # Thirds against halves: the staircases differ by 0, 1, 1, 2 on pieces of lengths 1/3, 1/6, 1/6, 1/3.
    assert sliced_wasserstein(column(0, 1, 4), column(0, 2), p=1) == pytest.approx(1 / 6 + 1 / 6 + 2 / 3)


@pytest.mark.parametrize(("n", "m"), [(300, 300), (300, 217), (7, 64)])
def test_wasserstein_on_a_line_is_scipys(n, m):
    x, y = torch.randn(n, 1, generator=seeded()), 0.2 + 1.3 * torch.randn(m, 1, generator=seeded(1))
    assert sliced_wasserstein(x, y, p=1) == pytest.approx(scipy.stats.wasserstein_distance(x[:, 0].double(), y[:, 0].double()), rel=1e-12)


def test_wasserstein_squared_is_the_cheapest_assignment():
    x, y = torch.randn(40, 1, generator=seeded()).double(), torch.rand(40, 1, generator=seeded(1)).double()
    cost = (x - y.T).square().numpy()
    best = cost[scipy.optimize.linear_sum_assignment(cost)].mean()
    assert sliced_wasserstein(x, y) ** 2 == pytest.approx(best, rel=1e-12)


def test_sliced_wasserstein_of_a_shift():
    d, shift = 5, torch.tensor([3.0, 0, -1, 2, 0])
    x = torch.randn(100, d, generator=seeded())
    got = sliced_wasserstein(x, x + shift, projections=20_000, generator=seeded(1)) ** 2
    # (theta . m)^2 = |m|^2 b with b ~ Beta(1/2, (d-1)/2), whose variance is 2 (d-1) / (d^2 (d+2)).
    m2 = float(shift.square().sum())
    assert abs(got - m2 / d) < 5 * m2 * math.sqrt(2 * (d - 1) / (d**2 * (d + 2)) / 20_000)


def test_sliced_wasserstein_flattens_scales_and_is_symmetric():
    x, y = torch.randn(30, 2, 3, generator=seeded()), torch.rand(20, 2, 3, generator=seeded(1))
    value = sliced_wasserstein(x, y, generator=seeded(2))
    assert value == pytest.approx(sliced_wasserstein(y.flatten(1), x.flatten(1), generator=seeded(2)), rel=1e-12)
    assert sliced_wasserstein(3 * x, 3 * y, generator=seeded(2)) == pytest.approx(3 * value, rel=1e-6)
    assert value > 0.1


# Energy distance, MMD, permutation test


def test_energy_distance_by_hand_and_scipy():
    assert energy_distance(column(0, 0), column(1, 1)) == pytest.approx(2)
    assert energy_distance(column(0, 2), column(0, 2)) == pytest.approx(0, abs=1e-15)
    x, y = torch.randn(50, 1, generator=seeded()), torch.rand(70, 1, generator=seeded(1))
    assert energy_distance(x, y) == pytest.approx(scipy.stats.energy_distance(x[:, 0].double(), y[:, 0].double()) ** 2, rel=1e-10)


def test_mmd_is_the_mean_over_pairs():
    x, y = torch.randn(6, 3, generator=seeded()).double(), torch.rand(4, 3, generator=seeded(1)).double()
    pooled = torch.cat([x, y]).numpy()
    width = np.median([np.linalg.norm(pooled[i] - pooled[j]) for i in range(10) for j in range(i)])
    # The median of 45 distances: torch and numpy agree on it because 45 is odd.

    def mean(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(np.mean([[np.exp(-float((p - q).square().sum()) / (2 * width**2)) for q in b] for p in a]))

    assert mmd2(x, y) == pytest.approx(mean(x, x) + mean(y, y) - 2 * mean(x, y), rel=1e-10)


@pytest.mark.parametrize("kernel", [energy_kernel, gaussian_kernel])
def test_permutation_p_values_are_uniform_when_nothing_differs(kernel):
    g = seeded(3)
    p = [
        permutation_test(torch.randn(15, 2, generator=g), torch.randn(10, 2, generator=g), kernel, permutations=49, generator=g)
        for _ in range(250)
    ]
    assert set(p) <= {k / 50 for k in range(1, 51)}
    ranks = np.bincount((np.rint(np.array(p) * 50).astype(int) - 1) // 5, minlength=10)
    assert scipy.stats.chisquare(ranks).pvalue > 1e-3
    assert scipy.stats.binomtest(sum(value <= 0.1 for value in p), 250, 0.1).pvalue > 1e-3


@pytest.mark.parametrize("kernel", [energy_kernel, gaussian_kernel])
def test_permutation_test_sees_a_shift_and_a_spread(kernel):
    x, y = torch.randn(100, 2, generator=seeded()), torch.randn(100, 2, generator=seeded(1))
    assert permutation_test(x, y + 0.8, kernel, generator=seeded(2)) == 1 / 501
    assert permutation_test(x, 2.5 * y, kernel, generator=seeded(2)) == 1 / 501
    assert permutation_test(x, y, kernel, generator=seeded(2)) > 0.01


def test_permutation_test_counts_ties():
    assert permutation_test(torch.zeros(5, 1), torch.zeros(4, 1), generator=seeded()) == 1
    # 20 partitions of six points into 3 + 3; the observed one and its mirror image are the most extreme: p is near 1/10.
    p = permutation_test(column(0, 1, 2), column(10, 11, 12), permutations=4000, generator=seeded())
    assert abs(p - 0.1) < 5 * math.sqrt(0.1 * 0.9 / 4000)


# Fréchet distance


def spd(d: int, seed: int, rank: int | None = None) -> torch.Tensor:
    a = torch.randn(d, rank or d, generator=seeded(seed), dtype=torch.float64)
    return a @ a.T / d


def test_frechet_distance_closed_forms():
    one = torch.ones(1, 1)
    assert frechet_distance(torch.tensor([1.0]), 4 * one, torch.tensor([-2.0]), 25 * one) == pytest.approx(9 + (2 - 5) ** 2)
    a, b = torch.tensor([1.0, 4.0, 0.0]), torch.tensor([9.0, 1.0, 16.0])
    zero = torch.zeros(3)
    assert frechet_distance(zero, a.diag(), zero, b.diag()) == pytest.approx(4 + 1 + 16)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=seeded(), dtype=torch.float64)).Q
    assert frechet_distance(zero, turn @ a.double().diag() @ turn.T, zero, turn @ b.double().diag() @ turn.T) == pytest.approx(21)
    assert frechet_distance(zero, spd(3, 0), zero, spd(3, 0)) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_is_scipys_square_root():
    mean_x, mean_y = torch.randn(6, generator=seeded(0)).double(), torch.randn(6, generator=seeded(1)).double()
    x, y = spd(6, 2), spd(6, 3)
    product_root = scipy.linalg.sqrtm((x @ y).numpy()).real
    want = float((mean_x - mean_y).square().sum() + x.trace() + y.trace()) - 2 * float(np.trace(product_root))
    assert frechet_distance(mean_x, x, mean_y, y) == pytest.approx(want, rel=1e-10)


def test_frechet_distance_of_singular_covariances():
    zero = torch.zeros(6)
    x, y = spd(6, 0, rank=2), spd(6, 1, rank=3)
    left, right = (torch.linalg.cholesky(c + 1e-13 * torch.eye(6, dtype=torch.float64)) for c in (x, y))
    # tr (X^1/2 Y X^1/2)^1/2 is the nuclear norm of L^T R for any factors X = L L^T, Y = R R^T.
    want = x.trace() + y.trace() - 2 * torch.linalg.svdvals(left.T @ right).sum()
    assert frechet_distance(zero, x, zero, y) == pytest.approx(float(want), abs=1e-5)


def test_frechet_feature_distance_fits_mean_and_covariance():
    x, y = torch.randn(50, 1, 1, 3, generator=seeded()).double(), 2 * torch.rand(40, 1, 1, 3, generator=seeded(1)).double()
    fits = [a for z in (x, y) for a in (z.reshape(-1, 3).mean(0), torch.from_numpy(np.cov(z.reshape(-1, 3).numpy().T)))]
    assert frechet_feature_distance(x, y, Pixels()) == pytest.approx(frechet_distance(*fits), rel=1e-10)
    assert frechet_feature_distance(x, x + 1, Pixels()) == pytest.approx(3, rel=1e-10)


# Class accuracy, the floor


def test_class_accuracy_by_hand():
    x = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])[:, None, None]
    assert class_accuracy(x, torch.tensor([1, 0, 2, 2]), Pixels()) == 0.75


def test_floor_splits_without_overlap_and_averages():
    seen = []

    def spy(a: torch.Tensor, b: torch.Tensor) -> float:
        seen.append((a.flatten().tolist(), b.flatten().tolist()))
        return float(len(seen))

    assert floor(spy, torch.arange(20.0)[:, None], 6, 9, repeats=3, generator=seeded()) == pytest.approx((2, 1))
    for a, b in seen:
        assert (len(a), len(b)) == (6, 9) and len(set(a) | set(b)) == 15
    assert len({tuple(a) for a, _ in seen}) == 3


def test_floor_with_labels_splits_each_class_in_proportion():
    labels = torch.tensor([0] * 30 + [1] * 60)

    def classes(a: torch.Tensor, b: torch.Tensor) -> float:
        assert a.long().bincount().tolist() == [10, 20] and b.long().bincount().tolist() == [15, 30]
        return float(len(a))

    assert floor(classes, labels.float(), 30, 45, labels=labels, generator=seeded()) == (30, 0)


def test_floors_are_positive_and_fall_with_the_number_of_points():
    real = torch.randn(4000, 2, generator=seeded())
    for metric in (partial(sliced_wasserstein, generator=seeded(1)), energy_distance, mmd2):
        (few, _), (many, _) = floor(metric, real, 50, 50, generator=seeded(2)), floor(metric, real, 800, 800, generator=seeded(2))
        assert 0 < many < few / 2


# Errors


@pytest.mark.parametrize("metric", [sliced_wasserstein, energy_distance, mmd2, permutation_test, partial(frechet_feature_distance, classifier=Pixels())])
def test_bad_samples_are_refused(metric):
    with pytest.raises(ValueError, match=r"same D, got \(4, 2\) and \(4, 3\)"):
        metric(torch.zeros(4, 2), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="NaN or inf"):
        metric(torch.tensor([[0.0, math.nan]] * 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"at least \d points, got 4 and 0"):
        metric(torch.zeros(4, 2), torch.zeros(0, 2))


def test_other_bad_arguments_are_refused():
    x = torch.zeros(4, 1)
    with pytest.raises(ValueError, match="p = 0.5"):
        sliced_wasserstein(x, x, p=0.5)
    with pytest.raises(ValueError, match="permutations must be at least 1, got 0"):
        permutation_test(x, x, permutations=0)
    with pytest.raises(ValueError, match="half of all pairs of points coincide"):
        mmd2(x, x)
    for order in (math.inf, math.nan):
        with pytest.raises(ValueError, match=f"finite and at least 1, got p = {order}"):
            sliced_wasserstein(x, x, p=order)
    with pytest.raises(ValueError, match="projections must be a positive integer, got 2.5"):
        sliced_wasserstein(x, x, projections=2.5)
    with pytest.raises(ValueError, match="permutations must be at least 1, got 2.5"):
        permutation_test(x, x, permutations=2.5)
    for n, m, repeats, message in ((0, 1, 2, "n must be"), (1, 1.5, 2, "m must be"), (1, 1, 1, "repeats must be an integer of at least 2")):
        with pytest.raises(ValueError, match=message):
            floor(energy_distance, x, n, m, repeats=repeats)
    with pytest.raises(ValueError, match=r"labels of shape \(N,\), got 4 images and 4 labels of shape \(4, 1\)"):
        class_accuracy(x, torch.zeros(4, 1), Pixels())
    with pytest.raises(ValueError, match="4 images and 3 labels"):
        class_accuracy(x, torch.zeros(3), Pixels())
    with pytest.raises(ValueError, match="classifier.eval"):
        class_accuracy(x, torch.zeros(4), Pixels().train())
    with pytest.raises(ValueError, match=r"n = 3, m = 2 of 4"):
        floor(energy_distance, x, 3, 2)
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(3,\)"):
        floor(energy_distance, x, 2, 2, labels=torch.zeros(3))


# The packaged classifiers


@pytest.mark.parametrize(("name", "least"), [("digits", 0.985), ("fashion", 0.88)])
def test_packaged_classifiers_are_as_good_as_their_file_says(name, least):
    network = pretrained(f"{name}_classifier")
    x, labels = images(name, "test")
    accuracy = class_accuracy(x, labels, network)
    path = FOLDER / f"{name}_classifier.safetensors"
    with safe_open(path, "pt") as file:
        training = json.loads(file.metadata()["training"])
    assert accuracy >= least and accuracy == pytest.approx(training["test_accuracy"], abs=1e-3)
    assert training["command"] == f"python scripts/train_classifier.py {name}" and path.stat().st_size < 500_000
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert network.features(x[:3]).shape == (3, 64)


def test_feature_distance_ranks_what_is_done_to_digits():
    network = pretrained("digits_classifier")
    x, labels = images("digits", "test")
    far = partial(frechet_feature_distance, classifier=network)
    low, _ = floor(far, x, 500, 1500, labels=labels, repeats=2, generator=seeded())
    blurred = nn.functional.avg_pool2d(x[:500], 3, stride=1, padding=1, count_include_pad=False)
    noise = torch.randn(500, 1, 28, 28, generator=seeded())
    assert 3 * low < far(blurred, x[500:]) < far(noise, x[500:])
    few_classes = x[labels < 8][:500]
    assert far(few_classes, x[500:]) > 10 * low


@pytest.mark.parametrize("damage", ["one bit", "cut short"])
def test_damaged_weights_are_named_and_never_loaded(monkeypatch, tmp_path, damage):
    raw = bytearray((FOLDER / "digits_classifier.safetensors").read_bytes())
    if damage == "one bit":
        raw[-1] ^= 1
    else:
        del raw[1000:]
    (tmp_path / "digits_classifier.safetensors").write_bytes(raw)
    monkeypatch.setattr(sys.modules["diffusion_core.pretrained"], "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"digits_classifier\.safetensors is damaged: .* bytes.*train_classifier\.py digits"):
        pretrained("digits_classifier")
    with pytest.raises(FileNotFoundError, match=r"fashion_classifier\.safetensors is missing; .*train_classifier\.py fashion"):
        pretrained("fashion_classifier")


def test_unknown_networks_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown network 'lenet'.*'digits_classifier', 'fashion_classifier'"):
        pretrained("lenet")


def test_kernels_are_exact_for_near_points():
    z = torch.tensor([[1e6, 0.0], [1e6, 1e-3]], dtype=torch.float64)
    assert -energy_kernel(z)[0, 1] == pytest.approx(1e-3, rel=1e-9)
