r"""A small diffusion transformer, DiT, top to bottom as in figure 3 of Peebles and Xie 2023, with adaLN-Zero blocks.

    x -> patches -> one token each, plus its position -> [block .. block]
      -> norm, modulation, head -> patches back in place

An image becomes a sequence of tokens, and every token sees every other in every block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from .embedding import LabelEmbedding, fourier_features


def positions(rows: int, columns: int, width: int, like: Tensor) -> Tensor:
    r"""The fixed position code of a grid of tokens: for a token in row r and column s, $[\sin\omega_ks,\ \cos\omega_ks,\ \sin\omega_kr,\ \cos\omega_kr]$.

    With $\omega_k=10^{-4k/n}$, $k=0..n-1$, $n=\text{width}/4$, the fastest wave has a period of $2\pi$ tokens, the slowest one of almost $2\pi\,10^4$ at a large width.

    Returns (rows * columns, width), row by row, in the dtype and on the device of `like`.
    Source: Vaswani et al. 2017, section 3.5; two axes, the column first, as in the code of He et al. 2022 (MAE) and of DiT.

    >>> import torch
    >>> from diffusion_core.models.dit import positions
    >>> code = positions(2, 3, 8, like=torch.zeros(()))
    >>> code.shape, code[0].tolist()
    (torch.Size([6, 8]), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    omega = 10000.0 ** (-torch.arange(width // 4, device=like.device, dtype=dtype) / (width // 4))
    row, column = (torch.arange(n, device=like.device, dtype=dtype)[:, None] * omega for n in (rows, columns))
    row, column = (torch.cat([angle.sin(), angle.cos()], dim=1) for angle in (row, column))
    return torch.cat([column.repeat(rows, 1), row.repeat_interleave(columns, dim=0)], dim=1).to(like.dtype)


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Each token normalized to mean 0 and variance 1 over its channels, then scaled by 1 + scale and shifted: adaptive layer norm. h: (B, N, C).

    >>> import torch
    >>> from diffusion_core.models.dit import modulate
    >>> h = modulate(torch.randn(2, 5, 64), shift=torch.tensor(3.0), scale=torch.tensor(1.0))
    >>> torch.allclose(h.mean(-1), torch.tensor(3.0), atol=1e-5), torch.allclose(h.std(-1, correction=0), torch.tensor(2.0), atol=1e-4)
    (True, True)
    """
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:], eps=1e-6), 1 + scale)


class Attention(nn.Module):
    """Self-attention over the N tokens. h: (B, N, C) -> (B, N, C).

    >>> import torch
    >>> from diffusion_core.models.dit import Attention
    >>> attention, h, order = Attention(8, heads=2), torch.randn(1, 5, 8), torch.tensor([4, 2, 0, 1, 3])
    >>> torch.allclose(attention(h[:, order]), attention(h)[:, order], atol=1e-6)
    True
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, N, C/heads)
        if forward_ad.unpack_dual(q).tangent is None:
            h = F.scaled_dot_product_attention(q, k, v)
        else:
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels know no forward-mode derivative
                h = F.scaled_dot_product_attention(q, k, v)
        return self.out(h.transpose(1, 2).flatten(2))


class Block(nn.Module):
    r"""A transformer block with adaLN-Zero: $h\leftarrow h+g_1\,\mathrm{attention}(m(h;b_1,a_1))$, then $h\leftarrow h+g_2\,\mathrm{mlp}(m(h;b_2,a_2))$.

    $m(h;b,a)=(1+a)\,\mathrm{norm}(h)+b$ is `modulate`, and the shifts $b$, scales $a$ and gates $g$ of the sample's channels are linear in the
    embedding. That layer starts at zero, so a new block is the identity. h: (B, N, C), embedding: (B, C). Returns (B, N, C).
    Source: Peebles and Xie 2023, section 3.2.

    >>> import torch
    >>> from diffusion_core import DiT
    >>> h, embedding = torch.randn(2, 49, 96), torch.randn(2, 96)
    >>> torch.equal(DiT(width=96).blocks[0](h, embedding), h)
    True
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        b1, a1, g1, b2, a2, g2 = self.modulation(embedding)[:, None].chunk(6, dim=-1)
        h = h + g1 * self.attention(modulate(h, b1, a1))
        return h + g2 * self.mlp(modulate(h, b2, a2))


class DiT(nn.Module):
    r"""A transformer on the patches of an image, conditioned on `c` and the label by a scale, a shift and a gate per channel (adaLN-Zero).

    channels: of the image. patch: a token is a patch x patch tile; halving it makes four times as many tokens, and sixteen times the work of
    attention's product. width: channels of a token, a multiple of 4. depth: blocks. heads: of the attention, a divisor of width.
    num_classes: gives the network an optional `label`; the index `num_classes`, or no label at all, is "no class".
    learned_variance: twice the channels come out, the second half for the variance (`Denoiser.predict_with_variance`).

    net(x, c, label=None): x (B, channels, H, W) with H and W divisible by `patch`, c (B,), label (B,) int64.
    Returns (B, channels, H, W), with learned_variance (B, 2 channels, H, W), in x's dtype, all zeros before training.
    Raises ValueError for sizes that cannot be built, for an x that has no whole patches, and for a label without classes.

    The position code is fixed, not learned: it has no weights and is computed for the grid at hand, so that an image of any size passes. On a grid
    larger than those of the training, the network meets positions that it has never seen.

    `torch.func.jvp` works. Second derivatives (`implicit_score_matching` trains through them) ask for attention's plain kernel:
    call the network inside `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.
    Source: Peebles and Xie 2023, figure 3; the page "The networks, drawn from their own shapes". Blocks, modulation, position code and head are those of
    their code (equal to diffusers' `DiTTransformer2DModel` on copied weights); its ends differ: 32 waves of `c` in place of 256 of the step's index,
    Glorot's start for the layers after them and unit normals for the classes in place of normals of 0.02, images of any size in place of square latents,
    and labels that the training drops, not the network.

    >>> import torch
    >>> from diffusion_core import DiT
    >>> net = DiT(channels=1, patch=2, width=32, depth=2, num_classes=10)
    >>> x = torch.randn(5, 1, 28, 28)
    >>> torch.equal(net(x, torch.zeros(5), label=torch.arange(5)), torch.zeros_like(x))
    True
    >>> net(torch.randn(5, 1, 16, 32), torch.zeros(5)).shape
    torch.Size([5, 1, 16, 32])
    """

    def __init__(
        self,
        channels: int = 1,
        patch: int = 2,
        width: int = 96,
        depth: int = 6,
        heads: int = 4,
        num_classes: int | None = None,
        learned_variance: bool = False,
    ):
        super().__init__()
        if min(channels, patch, width, depth, heads) < 1 or width % 4 or width % heads:
            raise ValueError(f"DiT: channels, patch and depth must be positive and width a multiple of 4 and of heads, got {channels=}, {patch=}, {depth=}, {width=}, {heads=}")
        self.channels, self.patch, self.width, self.num_classes, self.learned_variance = channels, patch, width, num_classes, learned_variance

        self.embed = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = LabelEmbedding(num_classes, width) if num_classes is not None else None
        self.stem = nn.Linear(channels * patch**2, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, (1 + learned_variance) * channels * patch**2)

        for name, layer in self.named_modules():
            if isinstance(layer, nn.Linear):
                start = nn.init.zeros_ if name.endswith(("modulation", "head")) else nn.init.xavier_uniform_
                start(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        self._check(x, label)
        embedding = self.embed(fourier_features(c, 32))
        if self.labels is not None:
            embedding = embedding + self.labels(label, like=x)
        embedding = F.silu(embedding)

        tiles = F.pixel_unshuffle(x, self.patch)  # (B, channels * patch^2, rows, columns)
        rows, columns = tiles.shape[2:]
        h = self.stem(tiles.flatten(2).mT) + positions(rows, columns, self.width, like=x)
        for block in self.blocks:
            h = block(h, embedding)

        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=-1)
        tiles = self.head(modulate(h, shift, scale)).mT.unflatten(2, (rows, columns))
        return F.pixel_shuffle(tiles, self.patch).to(x.dtype)

    def _check(self, x: Tensor, label: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % self.patch or x.shape[3] % self.patch:
            raise ValueError(f"DiT: expected x of shape (B, {self.channels}, H, W) with H and W multiples of {self.patch}, got {tuple(x.shape)}; pad the image or take another patch")
        if label is not None and self.labels is None:
            raise ValueError("DiT: got a label, but the network was built without classes; pass num_classes=... to DiT")
