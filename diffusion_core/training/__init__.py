"""Training: one loop for a spiral on a laptop and for images on several GPUs. Derived in chapter 06."""

from diffusion_core.training.loop import AdaptiveTimes, Data, Diverged, drop_labels, ema_decay, ema_update, fit, learning_rate

__all__ = ["AdaptiveTimes", "Data", "Diverged", "drop_labels", "ema_decay", "ema_update", "fit", "learning_rate"]
