"""The networks: shapes and types, how they start, what their output may and may not depend on."""

import contextlib
import math

import pytest
import torch
from awake import awake, image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion_core import implicit_score_matching
from diffusion_core.models import MLP, UNet
from diffusion_core.models.embedding import LabelEmbedding, fourier_features
from diffusion_core.models.unet import Attention, Block

UNETS = [
    (dict(channels=1, width=16, patch=2), (1, 28, 28)),
    (dict(channels=1, width=8), (1, 28, 28)),
    (dict(channels=3, width=8, mult=(1, 2, 2), patch=2), (3, 32, 32)),
    (dict(channels=3, width=8, mult=(2, 1, 3), blocks=2, heads=4), (3, 16, 32)),
    (dict(channels=1, width=24, mult=(1,), patch=4, heads=0), (1, 28, 28)),
]


@pytest.mark.parametrize("settings, shape", UNETS)
def test_a_unet_returns_an_image_like_its_input_and_starts_at_zero(settings, shape):
    net, x = UNet(**settings), image(2, *shape)
    out = net(x, torch.zeros(2))
    assert out.shape == x.shape and out.dtype == x.dtype
    assert torch.equal(out, torch.zeros_like(x))
    assert awake(net)(x, torch.zeros(2)).std() > 0


@pytest.mark.parametrize("settings, shape", UNETS)
def test_every_weight_of_a_unet_takes_part(settings, shape):
    net = awake(UNet(**settings, num_classes=3))
    net(image(2, *shape), torch.tensor([-1.0, 2.0]), label=torch.tensor([0, 3])).square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


def test_the_way_up_repeats_pixels_and_joins_each_block_with_its_mirror_image():
    net, seen = awake(UNet(width=8, heads=0)), {}
    for name in ("down.0.0", "up.0.0", "grow.0", "up.1.0"):
        net.get_submodule(name).register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
    net(image(2, 1, 8, 8), torch.zeros(2))
    assert torch.equal(seen["grow.0"][0], seen["up.0.0"][1].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    assert torch.equal(seen["up.1.0"][0], torch.cat([seen["grow.0"][1], seen["down.0.0"][1]], dim=1))


def test_float64_and_bf16_autocast_return_the_dtype_of_x():
    net = awake(UNet(width=8))
    x, c = image(2, 1, 8, 8), torch.zeros(2)
    full = net(x, c)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, c)
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    assert (half - full).norm() < 0.1 * full.norm()
    double = net.double()(x.double(), c.double())
    assert double.dtype == torch.float64 and torch.allclose(double.float(), full, atol=1e-3)


def test_the_parameters_of_a_unet_are_those_counted_by_hand():
    def conv(i, o, k):
        return i * o * k * k + o

    def linear(i, o):
        return i * o + o

    def block(i, o, e):
        skip = 0 if i == o else conv(i, o, 1)
        return 2 * i + conv(i, o, 3) + linear(e, 2 * o) + conv(o, o, 3) + skip

    w, e = 16, 64
    want = linear(32, e) + linear(e, e) + 11 * e  # embedding of c, ten classes and "no class"
    want += conv(4, w, 3)
    want += block(w, w, e) + conv(w, w, 3) + block(w, 2 * w, e)
    want += 2 * block(2 * w, 2 * w, e) + 2 * 2 * w + conv(2 * w, 6 * w, 1) + conv(2 * w, 2 * w, 1)
    want += block(4 * w, w, e) + conv(w, w, 3) + block(2 * w, w, e)
    want += 2 * w + conv(w, 4, 3)
    assert sum(p.numel() for p in UNet(width=w, patch=2, num_classes=10).parameters()) == want


@pytest.mark.parametrize("build, shape", [(lambda **k: UNet(width=8, **k), (1, 8, 8)), (lambda **k: MLP(3, **k), (3,))])
class TestConditions:
    def test_c_and_label_change_the_output(self, build, shape):
        net, x = awake(build(num_classes=4)), image(2, *shape)
        c, label = torch.tensor([-3.0, 1.0]), torch.tensor([1, 2])
        out = net(x, c, label=label)
        assert (net(x, c + 0.5, label=label) - out).abs().max() > 1e-4
        assert (net(x, c, label=torch.tensor([1, 0])) - out).flatten(1).abs().amax(1).gt(1e-4).tolist() == [False, True]

    def test_no_label_is_the_last_index(self, build, shape):
        net, x, c = awake(build(num_classes=4)), image(2, *shape), torch.zeros(2)
        assert torch.equal(net(x, c), net(x, c, label=torch.tensor([4, 4])))

    def test_a_sample_does_not_see_the_rest_of_its_batch(self, build, shape):
        net, x, c = awake(build()).double(), image(3, *shape).double(), torch.tensor([0.0, 1.0, 2.0]).double()
        order = torch.tensor([2, 0, 1])
        assert torch.allclose(net(x[order], c[order]), net(x, c)[order], rtol=1e-9, atol=1e-12)
        assert torch.allclose(net(x[1:2], c[1:2]), net(x, c)[1:2], rtol=1e-9, atol=1e-12)

    def test_a_label_without_classes_is_an_error(self, build, shape):
        with pytest.raises(ValueError, match="num_classes"):
            build()(image(2, *shape), torch.zeros(2), label=torch.tensor([0, 1]))

    def test_its_jacobian_is_the_finite_difference(self, build, shape):
        net, x = awake(build()).double(), image(1, *shape).double()
        c = torch.zeros(1, dtype=torch.float64)
        v = torch.ones_like(x)
        out, slope = torch.func.jvp(lambda x: net(x, c), (x,), (v,))
        h = 1e-5
        assert torch.allclose(slope, (net(x + h * v, c) - net(x - h * v, c)) / (2 * h), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("heads", [0, 2])
def test_second_derivatives_of_a_unet_with_the_plain_kernel_or_without_attention(heads):
    """Score matching that trains through the Jacobian, in float32: the gradient's length along itself against a finite difference in float64."""
    net, x, c = awake(UNet(width=8, mult=(1,), patch=2, heads=heads)), image(1, 1, 4, 6), torch.zeros(1)
    kernel = sdpa_kernel(SDPBackend.MATH) if heads else contextlib.nullcontext()
    with kernel:
        implicit_score_matching(lambda x: net(x, c), x).sum().backward()
    weight, h = net.middle[0].conv1.weight, 1e-6
    slope = weight.grad.norm().item()
    direction = weight.grad.double() / slope
    net, x, c = net.double(), x.double(), c.double()
    ends = []
    for way in (1, -1):
        with torch.no_grad():
            net.middle[0].conv1.weight += way * h * direction
        ends.append(implicit_score_matching(lambda x: net(x, c), x).sum().item())
        with torch.no_grad():
            net.middle[0].conv1.weight -= way * h * direction
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-3)


def test_attention_is_torchs_multihead_attention_over_the_positions():
    ours = awake(Attention(16, heads=4)).double()
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight.flatten(1))
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight.flatten(1))
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = image(2, 16, 3, 5).double()
    rows = ours.norm(x).flatten(2).mT
    want = x + theirs(rows, rows, rows, need_weights=False)[0].mT.reshape(x.shape)
    assert torch.allclose(ours(x), want, rtol=0, atol=1e-10)


def test_a_block_is_its_formula():
    block, generator = awake(Block(8, 16, 5)).double(), torch.Generator().manual_seed(2)
    x, e = torch.randn(2, 8, 4, 4, generator=generator).double(), torch.randn(2, 5, generator=generator).double()

    def norm(h):
        groups = h.reshape(2, 8, -1)
        return ((groups - groups.mean(2, keepdim=True)) / (groups.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()).reshape(h.shape)

    def silu(h):
        return h / (1 + torch.exp(-h))

    a, b = (v[:, :, None, None] for v in (e @ block.scale_shift.weight.T + block.scale_shift.bias).split(16, dim=1))
    first = block.norm1.weight[:, None, None] * norm(x) + block.norm1.bias[:, None, None]
    want = block.skip(x) + block.conv2(silu((1 + a) * norm(block.conv1(silu(first))) + b))
    assert torch.allclose(block(x, e), want, rtol=0, atol=1e-10)


def test_images_that_a_unet_cannot_take():
    net = UNet(width=8, mult=(1, 2, 2), patch=2)
    with pytest.raises(ValueError, match=r"multiples of 8, got \(1, 1, 28, 28\)"):
        net(image(1, 1, 28, 28), torch.zeros(1))
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        net(image(1, 3, 32, 32), torch.zeros(1))


@pytest.mark.parametrize("bad", [dict(width=12), dict(blocks=0), dict(mult=(1, 0)), dict(patch=0), dict(width=8, mult=(1,), heads=3), dict(heads=-1)])
def test_settings_of_a_unet_that_cannot_be_built(bad):
    with pytest.raises(ValueError, match="UNet"):
        UNet(**bad)


def test_an_mlp_starts_at_zero_with_kaiming_weights():
    torch.manual_seed(0)
    net = MLP(2, width=512, depth=2, gain=4.0)
    x = image(5, 2)
    assert torch.equal(net(x, torch.zeros(5)), torch.zeros(5, 2))
    want = math.sqrt(2 / 10)
    assert net.first.weight[:, 2:].std().item() == pytest.approx(want, rel=0.05)
    assert net.first.weight[:, :2].std().item() == pytest.approx(4 * want, rel=0.1)
    assert net.hidden[0].weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.02)


def test_input_that_an_mlp_cannot_take():
    with pytest.raises(ValueError, match=r"\(B, 2\)"):
        MLP(2)(image(4, 3), torch.zeros(4))
    with pytest.raises(ValueError, match="features even"):
        MLP(2, features=7)


def test_fourier_features_are_waves_whose_periods_halve():
    c = torch.tensor([-20.0, -1.5, 0.0, 7.3], dtype=torch.float64)
    want = torch.stack([f(2 * math.pi * c * 2**k / 64) for f in (torch.cos, torch.sin) for k in range(3)], dim=1)
    assert torch.allclose(fourier_features(c, 6), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fourier_features_of_half_precision_lose_digits_of_the_value_and_not_of_the_angle(dtype):
    c = torch.tensor([-20.0, -1.5, 0.0, 7.25])
    got = fourier_features(c.to(dtype), 32)
    assert got.dtype == dtype and torch.allclose(got.float(), fourier_features(c, 32), rtol=0, atol=torch.finfo(dtype).eps)


def test_fourier_features_tell_all_log_snrs_of_a_denoiser_apart():
    features = fourier_features(torch.linspace(-20, 20, 81, dtype=torch.float64), 8)
    distance = torch.cdist(features, features) + 10 * torch.eye(81, dtype=torch.float64)
    assert distance.min() > 0.1


def test_a_label_embedding_has_one_row_more_than_classes():
    labels = LabelEmbedding(3, 5)
    x = image(2, 7)
    assert labels.weight.shape == (4, 5)
    assert torch.equal(labels(None, x), labels.weight[[3, 3]])
    assert torch.equal(labels(torch.tensor([0, 2]), x), labels.weight[[0, 2]])
