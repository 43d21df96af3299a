"""Networks in plain torch. They know nothing of diffusion: a batch, one number per sample and perhaps a class in, a batch out."""

from .anatomy import Stage, stages
from .autoencoder import ELBO, VAE
from .classifier import Classifier
from .dit import DiT
from .mlp import MLP
from .unet import UNet

__all__ = ["ELBO", "MLP", "VAE", "Classifier", "DiT", "Stage", "UNet", "stages"]
