"""The DiT: how it starts, what its output may depend on, and equality with diffusers' DiT on copied weights."""

import copy

import pytest
import torch
from awake import awake, image
from diffusers import DiTTransformer2DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion_core import Denoiser, DiT, LinearVP, denoising_loss, images, implicit_score_matching, targets
from diffusion_core.models import dit
from diffusion_core.models.embedding import fourier_features

DITS = [
    (dict(channels=1, patch=2, width=16, depth=1), (1, 28, 28)),
    (dict(channels=3, patch=4, width=24, depth=2, heads=3), (3, 32, 32)),
    (dict(channels=3, patch=1, width=8, depth=1, heads=1), (3, 4, 6)),
    (dict(channels=1, patch=3, width=8, depth=2, heads=2), (1, 9, 6)),
]


@pytest.mark.parametrize("settings, shape", DITS)
def test_it_returns_an_image_like_its_input_and_starts_at_zero(settings, shape):
    net, x = DiT(**settings), image(2, *shape)
    out = net(x, torch.zeros(2))
    assert out.shape == x.shape and out.dtype == x.dtype
    assert torch.equal(out, torch.zeros_like(x))
    assert awake(net)(x, torch.zeros(2)).std() > 0


def test_a_new_block_is_the_identity_and_a_new_modulation_is_the_plain_norm():
    net = DiT(width=16, depth=2)
    h, embedding = image(3, 5, 16), image(3, 16)
    for block in net.blocks:
        assert torch.equal(block(h, embedding), h)
    normal = (h - h.mean(-1, keepdim=True)) / (h.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    assert torch.equal(net.modulation(embedding), torch.zeros(3, 32))
    assert torch.allclose(dit.modulate(h, torch.zeros(1), torch.zeros(1)), normal, atol=1e-6)
    faint = 1e-3 * h  # here the norm's 1e-6 is half of what it divides by
    assert torch.allclose(dit.modulate(faint, torch.zeros(1), torch.zeros(1)), (faint - faint.mean(-1, keepdim=True)) / (faint.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt(), atol=1e-5)


def test_the_linear_layers_that_do_not_start_at_zero_have_glorots_range():
    torch.manual_seed(0)
    net = DiT(width=128, depth=1)
    attention = net.blocks[0].attention
    for layer, ins, outs in ((attention.qkv, 128, 384), (attention.out, 128, 128), (net.blocks[0].mlp[2], 512, 128), (net.embed[0], 32, 128)):
        bound = (6 / (ins + outs)) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound and torch.equal(layer.bias, torch.zeros(outs))


def test_every_weight_takes_part():
    net = awake(DiT(width=16, depth=2, num_classes=3))
    net(image(2, 1, 8, 8), torch.tensor([-1.0, 2.0]), label=torch.tensor([0, 3])).square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


def test_training_wakes_the_zeros_from_the_head_inwards():
    """At the start only the head has a gradient; a step later the gates and the last modulation have one; then every weight does."""
    torch.manual_seed(0)
    net = DiT(width=16, depth=2, num_classes=2)
    x, y, c, label = image(8, 1, 8, 8), image(8, 1, 8, 8).flip(0), torch.linspace(-4, 4, 8), torch.arange(8) % 3
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step() -> set[str]:
        optimizer.zero_grad()
        (net(x, c, label=label) - y).square().mean().backward()
        moving = {name for name, p in net.named_parameters() if p.grad.abs().max() > 0}
        optimizer.step()
        return moving

    every = {name for name, _ in net.named_parameters()}
    zeros = {name for name in every if "modulation" in name}
    assert step() == {"head.weight", "head.bias"}
    second = step()
    assert zeros <= second and not any(name.startswith(("embed", "labels")) or "attention" in name for name in second)
    assert step() == every


def test_the_parameters_are_those_counted_by_hand():
    def linear(i, o):
        return i * o + o

    w, depth = 24, 3
    block = linear(w, 6 * w) + linear(w, 3 * w) + linear(w, w) + linear(w, 4 * w) + linear(4 * w, w)
    want = linear(32, w) + linear(w, w) + 11 * w  # embedding of c, ten classes and "no class"
    want += linear(3 * 16, w) + depth * block + linear(w, 2 * w) + linear(w, 3 * 16)
    assert sum(p.numel() for p in DiT(channels=3, patch=4, width=w, depth=depth, num_classes=10).parameters()) == want


def test_attention_is_torchs_multihead_attention_over_the_tokens():
    ours = awake(dit.Attention(16, heads=4)).double()
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    h = image(2, 7, 16).double()
    assert torch.allclose(ours(h), theirs(h, h, h, need_weights=False)[0], rtol=0, atol=1e-10)


class Handed(nn.Module):
    """Stands in for diffusers' embedding of time and class and hands out ours."""

    def __init__(self, embedding: torch.Tensor):
        super().__init__()
        self.embedding = embedding

    def forward(self, *args, **kwargs) -> torch.Tensor:
        return self.embedding


def test_the_whole_network_is_diffusers_dit():
    """Weights copied, their embedding of time and class replaced by ours: patches, positions, blocks, head and the way back agree."""
    channels, patch, width, depth, heads, size = 3, 2, 24, 2, 3, 8
    ours = awake(DiT(channels, patch, width, depth, heads, num_classes=5, learned_variance=True)).double()
    theirs = DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=width // heads, in_channels=channels, out_channels=2 * channels, num_layers=depth, sample_size=size,
        patch_size=patch, num_embeds_ada_norm=5, norm_eps=1e-6,
    ).double()  # fmt: skip
    x, c, label = image(4, channels, size, size).double(), torch.linspace(-3, 3, 4).double(), torch.tensor([0, 4, 5, 2])
    embedding = ours.embed(fourier_features(c, 32)) + ours.labels.weight[label]

    with torch.no_grad():
        theirs.pos_embed.proj.weight.copy_(ours.stem.weight.unflatten(1, (channels, patch, patch)))
        theirs.pos_embed.proj.bias.copy_(ours.stem.bias)
        for mine, block in zip(ours.blocks, theirs.transformer_blocks, strict=True):
            block.norm1.emb = Handed(embedding)
            block.norm1.linear.load_state_dict(mine.modulation.state_dict())
            for layer, weight, bias in zip((block.attn1.to_q, block.attn1.to_k, block.attn1.to_v), mine.attention.qkv.weight.chunk(3), mine.attention.qkv.bias.chunk(3)):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
            block.attn1.to_out[0].load_state_dict(mine.attention.out.state_dict())
            block.ff.net[0].proj.load_state_dict(mine.mlp[0].state_dict())
            block.ff.net[2].load_state_dict(mine.mlp[2].state_dict())
        theirs.proj_out_1.load_state_dict(ours.modulation.state_dict())
        # Within a patch their channels come last, ours first.
        theirs.proj_out_2.weight.copy_(ours.head.weight.unflatten(0, (2 * channels, patch**2)).transpose(0, 1).flatten(0, 1))
        theirs.proj_out_2.bias.copy_(ours.head.bias.unflatten(0, (2 * channels, patch**2)).T.flatten())
        want = theirs(x, timestep=torch.zeros(4, dtype=torch.long), class_labels=label).sample
    # Their position code is stored in float32.
    assert torch.allclose(ours(x, c, label=label), want, rtol=0, atol=1e-5 * want.abs().max().item())


def test_the_position_code_is_its_formula():
    code = dit.positions(3, 4, 8, like=torch.zeros((), dtype=torch.float64))
    for r in range(3):
        for s in range(4):
            waves = [f(omega * i) for i in (s, r) for f in (torch.sin, torch.cos) for omega in (torch.tensor(1.0), torch.tensor(0.01))]
            assert torch.allclose(code[4 * r + s], torch.stack(waves).double(), atol=1e-7)


def test_the_position_code_in_half_precision_is_the_exact_one_rounded():
    exact = dit.positions(32, 32, 64, like=torch.zeros((), dtype=torch.float64))
    half = dit.positions(32, 32, 64, like=torch.zeros((), dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16 and (half.double() - exact).abs().max() < torch.finfo(torch.bfloat16).eps


def tiles_permuted(x: torch.Tensor, patch: int, order: torch.Tensor) -> torch.Tensor:
    tiles = nn.functional.pixel_unshuffle(x, patch)
    return nn.functional.pixel_shuffle(tiles.flatten(2)[..., order].reshape(tiles.shape), patch)


def test_the_order_of_the_patches_enters_through_the_position_code_alone(monkeypatch):
    net, x, c = awake(DiT(width=16, depth=2)).double(), image(2, 1, 6, 8).double(), torch.tensor([0.0, 1.0]).double()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    assert not torch.allclose(net(tiles_permuted(x, 2, order), c), tiles_permuted(net(x, c), 2, order), atol=1e-3)
    monkeypatch.setattr(dit, "positions", lambda rows, columns, width, like: torch.zeros(rows * columns, width, dtype=like.dtype))
    assert torch.allclose(net(tiles_permuted(x, 2, order), c), tiles_permuted(net(x, c), 2, order), atol=1e-10)


def test_rows_and_columns_are_told_apart():
    net, x = awake(DiT(width=16, depth=1)), image(1, 1, 8, 8)
    assert not torch.allclose(net(x.mT, torch.zeros(1)).mT, net(x, torch.zeros(1)), atol=1e-3)


def test_c_and_label_change_the_output_of_their_own_sample():
    net, x = awake(DiT(width=16, depth=1, num_classes=4)), image(2, 1, 8, 8)
    c, label = torch.tensor([-3.0, 1.0]), torch.tensor([1, 2])
    out = net(x, c, label=label)
    assert (net(x, c + torch.tensor([0.5, 0.0]), label=label) - out).flatten(1).abs().amax(1).gt(1e-4).tolist() == [True, False]
    assert (net(x, c, label=torch.tensor([1, 0])) - out).flatten(1).abs().amax(1).gt(1e-4).tolist() == [False, True]


def test_no_label_is_the_last_index():
    net, x, c = awake(DiT(width=16, depth=1, num_classes=4)), image(2, 1, 8, 8), torch.zeros(2)
    assert torch.equal(net(x, c), net(x, c, label=torch.tensor([4, 4])))
    assert not torch.equal(net(x, c), net(x, c, label=torch.tensor([3, 3])))


def test_a_sample_does_not_see_the_rest_of_its_batch():
    net, x, c = awake(DiT(width=16, depth=2)).double(), image(3, 1, 8, 8).double(), torch.tensor([0.0, 1.0, 2.0]).double()
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(net(x[order], c[order]), net(x, c)[order], rtol=1e-9, atol=1e-12)
    assert torch.allclose(net(x[1:2], c[1:2]), net(x, c)[1:2], rtol=1e-9, atol=1e-12)


def test_learned_variance_doubles_the_channels():
    net = DiT(channels=3, width=16, depth=1, learned_variance=True)
    assert net(image(2, 3, 8, 8), torch.zeros(2)).shape == (2, 6, 8, 8)
    denoiser, x = Denoiser(awake(net), LinearVP(), targets.eps), image(2, 3, 8, 8)
    y, v = denoiser.predict_with_variance(x, 0.5)
    assert y.shape == v.shape == x.shape and torch.equal(denoiser.predict(x, 0.5), y)


@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-4), (torch.bfloat16, 0.05), (torch.float16, 0.005)])
def test_other_precisions_return_the_dtype_of_x(dtype, close):
    """In float32 the fastest wave of c turns 1,500 times by c = 3, which leaves its phase four digits."""
    net = DiT(width=32, depth=2)
    with torch.no_grad():
        for layer in (net.head, net.modulation, *(block.modulation for block in net.blocks)):
            layer.weight.copy_(0.1 * image(*layer.weight.shape))
    x, c = image(2, 1, 8, 8), torch.tensor([-2.0, 3.0])
    full = net(x, c)
    other = copy.deepcopy(net).to(dtype)(x.to(dtype), c.to(dtype))
    assert other.dtype == dtype and (other.float() - full).norm() < close * full.norm()


def test_bf16_autocast_returns_the_dtype_of_x():
    net, x, c = awake(DiT(width=16, depth=1)), image(2, 1, 8, 8), torch.zeros(2)
    full = net(x, c)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, c)
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    assert (half - full).norm() < 0.1 * full.norm()


@pytest.mark.parametrize("batch", [1, 3])
def test_its_jacobian_is_the_finite_difference(batch):
    net, x = awake(DiT(width=16, depth=2)).double(), image(batch, 1, 6, 8).double()
    c = torch.linspace(-1, 1, batch, dtype=torch.float64)
    v, h = image(batch, 1, 6, 8).flip(-1).double(), 1e-5
    slope = torch.func.jvp(lambda x: net(x, c), (x,), (v,))[1]
    assert torch.allclose(slope, (net(x + h * v, c) - net(x - h * v, c)) / (2 * h), rtol=1e-4, atol=1e-6)
    net = net.float()
    single = torch.func.jvp(lambda x: net(x, c.float()), (x.float(),), (v.float(),))[1]
    assert single.dtype == torch.float32 and torch.allclose(single.double(), slope, rtol=1e-2, atol=1e-3)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_and_compile_change_nothing():
    net, x, c = awake(DiT(width=16, depth=1)), image(2, 1, 8, 8), torch.tensor([0.0, 1.0])
    out = net(x, c)
    one_by_one = torch.func.vmap(lambda x, c: net(x[None], c[None])[0])(x, c)
    assert torch.allclose(one_by_one, out, atol=1e-5)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x, c), out, atol=1e-6)


def test_second_derivatives_with_the_plain_kernel():
    """Score matching that trains through the Jacobian: one weight's gradient against its finite difference."""
    net, x, c = awake(DiT(width=8, depth=1, heads=2)).double(), image(2, 1, 2, 4).double(), torch.zeros(2).double()
    weight = net.blocks[0].attention.qkv.weight

    def loss() -> torch.Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return implicit_score_matching(lambda x: net(x, c), x).sum()

    loss().backward()
    got, h = weight.grad[3, 2].item(), 1e-6
    with torch.no_grad():
        weight[3, 2] += h
    above = loss().item()
    with torch.no_grad():
        weight[3, 2] -= 2 * h
    assert got == pytest.approx((above - loss().item()) / (2 * h), rel=1e-4)


def test_it_learns_the_digits():
    """The noise's mean, zero, costs 1, and the best multiple of x_t 0.27; 60 steps bring a small DiT below 0.2."""
    torch.manual_seed(0)
    x0, label = images("digits")
    denoiser = Denoiser(DiT(patch=4, width=32, depth=2, num_classes=10), LinearVP(), targets.eps)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(60):
        rows = torch.arange(64 * step, 64 * (step + 1))
        t = torch.rand(64, generator=generator)
        loss = denoising_loss(denoiser, x0[rows], t, generator=generator, label=label[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1.0, abs=0.05)
    assert sum(losses[-10:]) / 10 < 0.2


@pytest.mark.parametrize("bad", [dict(width=18, heads=3), dict(width=8, heads=3), dict(depth=0), dict(patch=0), dict(channels=0), dict(heads=0)])
def test_settings_that_cannot_be_built(bad):
    with pytest.raises(ValueError, match="DiT: channels, patch and depth must be positive"):
        DiT(**bad)


def test_images_and_labels_that_it_cannot_take():
    net = DiT(patch=4, width=8, depth=1)
    with pytest.raises(ValueError, match=r"multiples of 4, got \(1, 1, 28, 30\)"):
        net(image(1, 1, 28, 30), torch.zeros(1))
    with pytest.raises(ValueError, match=r"multiples of 4, got \(1, 1, 30, 28\)"):
        net(image(1, 1, 30, 28), torch.zeros(1))
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        net(image(1, 3, 28, 28), torch.zeros(1))
    with pytest.raises(ValueError, match=r"got \(1, 28, 28\)"):
        net(image(1, 28, 28), torch.zeros(1))
    with pytest.raises(ValueError, match="num_classes"):
        net(image(1, 1, 28, 28), torch.zeros(1), label=torch.tensor([0]))
