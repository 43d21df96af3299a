"""Networks in plain torch. They know nothing of diffusion: a batch, one number per sample and perhaps a class in, a batch out."""

from .autoencoder import VAE
from .dit import DiT
from .mlp import MLP
from .stages import Stage, stages
from .unet import UNet

__all__ = ["MLP", "VAE", "DiT", "Stage", "UNet", "stages"]
