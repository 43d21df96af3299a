"""A small fully connected network for points in the plane and other short vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embedding import LabelEmbedding, fourier_features


class MLP(nn.Module):
    r"""`depth` hidden layers of `width` SiLU units on $[x, \text{waves of } c]$, and a linear layer back to `dim`.

    dim: of x. features: waves of c (even). gain: the weights of x in the first layer are drawn `gain` times larger than Kaiming's.
    num_classes: gives the network an optional `label`; the index `num_classes`, or no label at all, is "no class".
    learned_variance: twice the outputs, the second half for the variance (`Denoiser.predict_with_variance`).

    net(x, c, label=None): x (B, dim), c (B,), label (B,) int64. Returns (B, dim), with learned_variance (B, 2 dim).
    Raises ValueError for an x of another shape and for a label without classes.

    The start matters: with PyTorch's default (weights smaller by a factor of about 2.4, x entering as smoothly as c) the error of a
    learned score after ten seconds is two to five times as large (`benchmarks/score_error_2d.py`). Kaiming's scale (He et al. 2015,
    equation 10) keeps the signal's size through the layers, and `gain` lets the first layer bend within the width of a mode.

    >>> import torch
    >>> from diffusion_core import MLP
    >>> net = MLP(2, width=64, depth=2)
    >>> net(torch.randn(5, 2), torch.zeros(5)).tolist() == [[0.0, 0.0]] * 5
    True
    """

    def __init__(self, dim: int, width: int = 128, depth: int = 3, features: int = 8, gain: float = 4.0, num_classes: int | None = None, learned_variance: bool = False):
        super().__init__()
        if min(dim, width, depth, features) < 1 or features % 2:
            raise ValueError(f"MLP: dim, width and depth must be at least 1 and features even, got {dim=}, {width=}, {depth=}, {features=}")
        self.dim, self.features, self.num_classes, self.learned_variance = dim, features, num_classes, learned_variance
        self.first = nn.Linear(dim + features, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, 2 * dim if learned_variance else dim)
        self.labels = LabelEmbedding(num_classes, width) if num_classes is not None else None

        for layer in (self.first, *self.hidden):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        with torch.no_grad():
            self.first.weight[:, :dim] *= gain
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        self._check(x, label)
        h = self.first(torch.cat([x, fourier_features(c, self.features)], dim=1))
        if self.labels is not None:
            h = h + self.labels(label, like=x)
        for layer in self.hidden:
            h = layer(F.silu(h))
        return self.last(F.silu(h)).to(x.dtype)

    def _check(self, x: Tensor, label: Tensor | None) -> None:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"MLP: expected x of shape (B, {self.dim}), got {tuple(x.shape)}")
        if label is not None and self.labels is None:
            raise ValueError("MLP: got a label, but the network was built without classes; pass num_classes=... to MLP")
