"""A U-Net for small images, top to bottom as in the figures of DDPM (Ho et al. 2020) and ADM (Dhariwal and Nichol 2021).

    x -> patch -> stem -> [block .. block, down] per level -> block, attention, block
      -> [block .. block, up] per level -> unpatch

Each block on the way down leaves its output on a stack; its mirror image on the way up takes it off again and sees both.
The page "The networks, drawn from their own shapes" draws it to scale.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embedding import LabelEmbedding, fourier_features

GROUPS = 8


def zeroed(layer: nn.Module) -> nn.Module:
    """The same layer with all its parameters set to zero: at the start it adds nothing.

    >>> from torch import nn
    >>> from diffusion_core.models.unet import zeroed
    >>> zeroed(nn.Linear(2, 1)).weight.tolist()
    [[0.0, 0.0]]
    """
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Block(nn.Module):
    r"""A residual block: $x + \mathrm{conv}(\mathrm{silu}((1 + a)\,\mathrm{norm}(\mathrm{conv}(\mathrm{silu}(\mathrm{norm}(x)))) + b))$, where $(a, b)$ is linear in the embedding.

    x: (B, in, H, W), embedding: (B, E). Returns (B, out, H, W). The second convolution starts at zero, so a new block is the identity
    (or the 1x1 convolution that matches the channels). Source: ADM, section 3 ("adaptive group normalization"), also called FiLM.

    >>> import torch
    >>> from diffusion_core.models.unet import Block
    >>> x, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 32)
    >>> torch.equal(Block(8, 8, 32)(x, embedding), x)
    True
    """

    def __init__(self, channels_in: int, channels_out: int, embedding: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.scale_shift = nn.Linear(embedding, 2 * channels_out)
        self.norm2 = nn.GroupNorm(GROUPS, channels_out, affine=False)
        self.conv2 = zeroed(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.scale_shift(embedding)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(F.silu(h))


class Attention(nn.Module):
    """Self-attention over the H x W positions, added to its input; it starts as the identity. x: (B, C, H, W) -> (B, C, H, W).

    >>> import torch
    >>> from diffusion_core.models.unet import Attention
    >>> x = torch.randn(2, 8, 4, 4)
    >>> torch.equal(Attention(8, heads=2)(x), x)
    True
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(1, (3, self.heads, -1)).flatten(-2).mT.unbind(1)  # each (B, heads, H*W, C/heads)
        h = F.scaled_dot_product_attention(q, k, v).mT.reshape(x.shape)
        return x + self.out(h)


class UNet(nn.Module):
    r"""U-Net with group normalization, a scale and a shift per channel from `c` and the label, and attention at the lowest resolution.

    channels: of the image. width: of the first level; level i has `width * mult[i]` channels and half the resolution of level i - 1.
    blocks: residual blocks per level and direction. patch: the network works on patch x patch tiles, each stacked into
    channels (space to depth): patch 2 makes a step about three times cheaper. heads: of the attention; 0 leaves the attention out.
    num_classes: gives the network an optional `label`; the index `num_classes`, or no label at all, is "no class".
    learned_variance: twice the channels come out, the second half for the variance (`Denoiser.predict_with_variance`).

    net(x, c, label=None): x (B, channels, H, W) with H and W divisible by `patch * 2**(len(mult) - 1)`, c (B,), label (B,) int64.
    Returns (B, channels, H, W), with learned_variance (B, 2 channels, H, W), in x's dtype, all zeros before training.
    Raises ValueError for widths that the 8 normalization groups do not divide, for a size that cannot be halved, a label without classes.

    Second derivatives (`implicit_score_matching` trains through them) ask for attention's plain kernel: call the network inside
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`, or build it with heads=0.

    >>> import torch
    >>> from diffusion_core import UNet
    >>> net = UNet(channels=3, width=16, mult=(1, 2), num_classes=10)
    >>> x, c = torch.randn(5, 3, 32, 32), torch.zeros(5)
    >>> net(x, c, label=torch.arange(5)).shape
    torch.Size([5, 3, 32, 32])
    >>> torch.equal(net(x, c), net(x, c, label=torch.full((5,), 10)))
    True
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        mult: tuple[int, ...] = (1, 2),
        blocks: int = 1,
        patch: int = 1,
        heads: int = 2,
        num_classes: int | None = None,
        learned_variance: bool = False,
    ):
        super().__init__()
        if min(channels, width, blocks, patch, *mult) < 1 or width % GROUPS:
            raise ValueError(f"UNet: channels, blocks, patch and mult must be positive and width a multiple of {GROUPS}, got {channels=}, {blocks=}, {patch=}, {mult=}, {width=}")
        if heads < 0 or (heads and width * mult[-1] % heads):
            raise ValueError(f"UNet: heads={heads} must divide the {width * mult[-1]} channels of the lowest level, or be 0 for no attention")
        self.channels, self.patch, self.num_classes, self.learned_variance = channels, patch, num_classes, learned_variance
        self.multiple = patch * 2 ** (len(mult) - 1)
        widths = [width * m for m in mult]
        emb = 4 * width

        self.embed = nn.Sequential(nn.Linear(32, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.labels = LabelEmbedding(num_classes, emb) if num_classes is not None else None
        self.stem = nn.Conv2d(channels * patch**2, width, 3, padding=1)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        # A level going up undoes its level going down, last block first: each takes its own input and its mirror image's output, hence 2 * here.
        for here, before in zip(widths, [width, *widths]):
            self.down.append(nn.ModuleList(Block(before if i == 0 else here, here, emb) for i in range(blocks)))
            self.up.insert(0, nn.ModuleList(Block(2 * here, before if i == blocks - 1 else here, emb) for i in range(blocks)))
        self.shrink = nn.ModuleList(nn.Conv2d(w, w, 3, stride=2, padding=1) for w in widths[:-1])
        self.grow = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in reversed(widths[:-1]))

        low = widths[-1]
        self.middle = nn.ModuleList([Block(low, low, emb), Block(low, low, emb)])
        self.attention = Attention(low, heads) if heads else nn.Identity()

        self.norm = nn.GroupNorm(GROUPS, width)
        self.head = zeroed(nn.Conv2d(width, (1 + learned_variance) * channels * patch**2, 3, padding=1))

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        self._check(x, label)
        embedding = self.embed(fourier_features(c, 32))
        if self.labels is not None:
            embedding = embedding + self.labels(label, like=x)
        embedding = F.silu(embedding)

        h = self.stem(F.pixel_unshuffle(x, self.patch))
        skips = []
        for level, blocks in enumerate(self.down):
            if level > 0:
                h = self.shrink[level - 1](h)
            for block in blocks.children():
                h = block(h, embedding)
                skips.append(h)

        h = self.middle[0](h, embedding)
        h = self.attention(h)
        h = self.middle[1](h, embedding)

        for level, blocks in enumerate(self.up):
            if level > 0:
                h = self.grow[level - 1](F.interpolate(h, scale_factor=2, mode="nearest"))
            for block in blocks.children():
                h = block(torch.cat([h, skips.pop()], dim=1), embedding)

        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch).to(x.dtype)

    def _check(self, x: Tensor, label: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError(f"UNet: expected x of shape (B, {self.channels}, H, W) with H and W multiples of {self.multiple}, got {tuple(x.shape)}; pad the image or use fewer levels")
        if label is not None and self.labels is None:
            raise ValueError("UNet: got a label, but the network was built without classes; pass num_classes=... to UNet")
