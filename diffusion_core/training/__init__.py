"""Training: one loop for a spiral on a laptop and for images on several GPUs.

`fit` is called in a script or a notebook; `python -m diffusion_core.training --help` says how to train from the shell, and `load_run` brings
the result of that into a notebook.
"""

from diffusion_core.training.batches import AdaptiveTimes, Data, drop_labels
from diffusion_core.training.checkpoint import load
from diffusion_core.training.loop import Diverged, fit
from diffusion_core.training.pace import ema_decay, ema_update, learning_rate
from diffusion_core.training.run import load_run

__all__ = ["AdaptiveTimes", "Data", "Diverged", "drop_labels", "ema_decay", "ema_update", "fit", "learning_rate", "load", "load_run"]
