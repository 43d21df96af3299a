"""Likelihood: variational bounds (`bounds`), the exact value under the probability flow (`flow`), Gaussians (`gaussians`) and bits a dimension (`units`)."""

from .bounds import VLB, ContinuousVLB, continuous_vlb, vlb
from .flow import ODELikelihood, ode_decode, ode_encode, ode_log_likelihood
from .gaussians import discretized_log_prob, gaussian_kl
from .units import bits_per_dim, mean_and_stderr

__all__ = [
    "ContinuousVLB", "ODELikelihood", "VLB", "bits_per_dim", "continuous_vlb", "discretized_log_prob", "gaussian_kl", "mean_and_stderr", "ode_decode", "ode_encode", "ode_log_likelihood", "vlb",
]
