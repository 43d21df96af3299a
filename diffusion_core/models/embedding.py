"""What every network of this folder does with its conditions: a number becomes waves, a class becomes a vector."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fourier_features(c: Tensor, n: int, period: float = 64.0) -> Tensor:
    r"""Waves of one number per sample: $\cos(\omega_k c),\ \sin(\omega_k c)$ with $\omega_k = 2\pi\,2^{k}/\text{period}$, $k = 0..n/2-1$.

    A network sees small differences of `c` in the fast waves and large ones in the slow waves; the slowest does not repeat within
    `period`, so the features tell apart every two values of a range that long.

    c: (B,). n: an even number of features. Returns (B, n), computed in float32 at least, in the dtype of c. Raises ValueError for a c of another shape.
    Source: Tancik et al. 2020 (Fourier features); VDM, Kingma et al. 2021, feeds them the log-SNR.

    >>> import torch
    >>> from diffusion_core.models.embedding import fourier_features
    >>> fourier_features(torch.tensor([0.0, 16.0]), 2).round(decimals=3).tolist()
    [[1.0, 0.0], [-0.0, 1.0]]
    """
    if not isinstance(c, Tensor) or c.ndim != 1:
        raise ValueError(f"c must be a tensor of shape (B,), one number a sample, got {_shown(c)}; samplers take a Denoiser(net, schedule, target), which makes c from t")
    dtype = torch.promote_types(c.dtype, torch.float32)  # half precision has no digits left for an angle of a thousand turns
    omega = 2 * torch.pi / period * 2.0 ** torch.arange(n // 2, device=c.device, dtype=dtype)
    angle = c[:, None] * omega
    return torch.cat([angle.cos(), angle.sin()], dim=1).to(c.dtype)


def _shown(value: object) -> str:
    """A condition in an error: its dtype and shape, or what it is instead of a tensor."""
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


class LabelEmbedding(nn.Module):
    """One learned vector for each of `num_classes` classes, and one more, with index `num_classes`, for "no class given".

    The extra vector makes one network both conditional and unconditional (classifier-free guidance): training replaces some
    labels by `num_classes`, and sampling without a label uses the same index.

    >>> import torch
    >>> from diffusion_core.models.embedding import LabelEmbedding
    >>> labels, x = LabelEmbedding(10, width=4), torch.zeros(3, 2)
    >>> torch.equal(labels(None, like=x), labels(torch.full((3,), 10), like=x))
    True
    """

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}; None builds a network without classes")
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.randn(num_classes + 1, width))

    def forward(self, label: Tensor | None, like: Tensor) -> Tensor:
        """label: (B,) int64 in 0..num_classes, or None for no class at all; like: anything with B rows. Returns (B, width)."""
        if label is None:
            label = torch.full((len(like),), self.num_classes, device=like.device)
        if not isinstance(label, Tensor) or label.dtype not in (torch.int64, torch.int32) or label.shape != (len(like),):
            raise ValueError(f"label must be an int64 tensor of shape ({len(like)},), one class a sample, got {_shown(label)}")
        try:
            return F.embedding(label, self.weight)
        except IndexError as error:
            raise ValueError(f"labels must lie in 0..{self.num_classes} ({self.num_classes} for no class), got {int(label.min())}..{int(label.max())}") from error
