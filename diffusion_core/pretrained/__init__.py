"""Small networks that the package carries, and their loader. A script of the project trains each of them again."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import nn

from diffusion_core import carried, targets
from diffusion_core.denoiser import Denoiser
from diffusion_core.extras import needing
from diffusion_core.models import UNet
from diffusion_core.models.classifier import Classifier
from diffusion_core.schedules import DDPM, linear_betas

__all__ = ["digits_denoiser", "pretrained"]

FOLDER = Path(__file__).parent


class Carried(NamedTuple):
    """How to build a network, the SHA-256 of its weights, and the script that trains it.

    >>> from diffusion_core.pretrained import NETWORKS
    >>> NETWORKS["digits"].trained_by
    'scripts/train_pretrained.py'
    """

    build: Callable[[], nn.Module]
    sha256: str
    trained_by: str


def digits_denoiser() -> Denoiser:
    """The untrained network of `pretrained("digits")`: a U-Net of 439 k weights that predicts v on DDPM's path of 1,000 steps and takes a label.

    >>> from diffusion_core.pretrained import digits_denoiser
    >>> sum(p.numel() for p in digits_denoiser().parameters())
    438692
    """
    return Denoiser(UNet(channels=1, width=32, mult=(1, 2), patch=2, num_classes=10), DDPM(linear_betas(1000)), targets.v)


NETWORKS = {
    "digits": Carried(digits_denoiser, "2d42644eab68d1bfdec22c89a63ed1e0c1a7827f2c7c9dcb4098becebfaea380", "scripts/train_pretrained.py"),
    "digits_classifier": Carried(Classifier, "a505dec7ca2d62cbeb99d2bea02e53beb4bee66d534d2624fff0413f73574520", "scripts/train_classifier.py digits"),
    "fashion_classifier": Carried(Classifier, "e2af2cfc4d62bb2066479ead7d53df470b51f7ca59042a53836a7078be8fa4bd", "scripts/train_classifier.py fashion"),
}


def pretrained(name: str) -> nn.Module:
    """A network the package carries, on the CPU, in evaluation mode, its weights frozen (gradients still flow to its input).

    "digits": a class-conditional `Denoiser` of the digits, called `denoiser(x, t, label=...)` or without a label (`digits_denoiser`).
    "digits_classifier", "fashion_classifier": `models.classifier.Classifier`, accuracy 0.9905 and 0.8955 on the 2,000 test images of its set.

    Raises ValueError for an unknown name or a damaged file, FileNotFoundError for a missing one, ImportError without safetensors (the extra `train`).

    >>> import torch
    >>> from diffusion_core import images, pretrained
    >>> digits, labels = images("digits", "test")
    >>> classifier = pretrained("digits_classifier")
    >>> int((classifier(digits[:100]).argmax(1) == labels[:100]).sum()) >= 97
    True
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}: the package carries {', '.join(map(repr, NETWORKS))}")
    with needing("pretrained", extra="train"):
        from safetensors.torch import load

    build, sha256, trained_by = NETWORKS[name]
    cure = f"install diffusion_core again, or train it anew: python {trained_by}"
    raw = carried.read(FOLDER / f"{name}.safetensors", sha256, "network", cure)
    network = build()
    network.load_state_dict(load(raw))
    return network.requires_grad_(False).eval()
