"""The denoiser of digits that the package carries: what its file says, and that it draws digits."""

import json

import torch
from paths import generator, one_thread  # noqa: F401
from safetensors import safe_open

from diffusion_core import clipped, ddim, images, last, pretrained, uniform
from diffusion_core.metrics import class_accuracy, frechet_feature_distance
from diffusion_core.pretrained import FOLDER, digits_denoiser


def test_the_file_is_small_and_says_how_it_was_made():
    path = FOLDER / "digits.safetensors"
    with safe_open(path, "pt") as file:
        training = json.loads(file.metadata()["training"])
    assert path.stat().st_size < 1_000_000 and training["command"] == "python scripts/train_pretrained.py"
    assert training["class_accuracy"] > 0.94 and training["feature_distance"] < 2 * training["feature_distance_of_real"]
    network = pretrained("digits")
    assert not network.training and not any(p.requires_grad for p in network.parameters()) and all(p.dtype == torch.float32 for p in network.parameters())
    assert [p.shape for p in network.parameters()] == [p.shape for p in digits_denoiser().parameters()]


def test_it_draws_the_digits_that_it_is_asked_for():
    network, classifier = pretrained("digits"), pretrained("digits_classifier")
    x, labels = network.schedule.noise((100, 1, 28, 28), generator(1)), torch.arange(100) % 10
    drawn = last(ddim(clipped(lambda x, t: network(x, t, label=labels)), network.schedule, x, uniform(20))).clamp(-1, 1)
    free = last(ddim(clipped(network), network.schedule, x, uniform(20))).clamp(-1, 1)
    real, _ = images("digits", "test")
    assert class_accuracy(drawn, labels, classifier) >= 0.9
    assert class_accuracy(free, labels, classifier) < 0.4  # no class given, so none obeyed
    assert frechet_feature_distance(drawn, real, classifier) < 30  # 100 real digits: 11
    assert frechet_feature_distance(free, real, classifier) < 100  # their classes are not balanced; an untrained network: 2,000
