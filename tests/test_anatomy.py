"""The anatomy of a network as its forward pass shows it: stages, sources, shapes, parameters, multiply-adds."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diffusion_core import MLP, DiT, UNet
from diffusion_core.models import stages


def inputs(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.zeros(2, *shape), torch.zeros(2), torch.zeros(2, dtype=torch.long)


NETS = [
    (lambda: UNet(width=8, mult=(1, 2, 1), blocks=2, patch=2, num_classes=3), (1, 16, 24)),
    (lambda: UNet(channels=3, width=8, heads=0, num_classes=3), (3, 8, 8)),
    (lambda: DiT(width=16, depth=2, num_classes=3), (1, 8, 12)),
    (lambda: MLP(5, width=16, num_classes=3), (5,)),
]


@pytest.mark.parametrize("build, shape", NETS)
def test_every_parameter_belongs_to_one_stage(build, shape):
    net = build()
    found = stages(net, *inputs(*shape))
    assert sum(stage.parameters for stage in found) == sum(p.numel() for p in net.parameters())
    modules = dict(net.named_modules())
    inner = [stage for stage in found if stage.kind not in ("input", "output")]
    assert all(stage.parameters == sum(p.numel() for p in modules[stage.name].parameters()) and stage.kind == type(modules[stage.name]).__name__ for stage in inner)


@pytest.mark.parametrize("build, shape", NETS)
def test_multiply_adds_are_a_samples_and_sum_to_the_whole(build, shape):
    net, batch = build(), inputs(*shape)
    found = stages(net, *batch)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        net(*batch)
    assert sum(stage.multiply_adds for stage in found) == counter.get_total_flops() / 4
    assert stages(net, *(value[:1] for value in batch)) == found


def test_multiply_adds_are_those_counted_by_hand():
    """A convolution: kernel x channels in x channels out x positions; attention over N positions: two products of N x N x channels."""
    found = {stage.name: stage.multiply_adds for stage in stages(UNet(width=16), *inputs(1, 8, 12)[:2])}
    w, n, low, e = 16, 96, 24, 64
    assert found["embed"] == 32 * e + e * e
    assert found["stem"] == 9 * w * n
    assert found["down.0.0"] == 2 * 9 * w * w * n + e * 2 * w
    assert found["shrink.0"] == 9 * w * w * low
    assert found["down.1.0"] == 9 * (w * 2 * w + 2 * w * 2 * w) * low + w * 2 * w * low + e * 4 * w
    assert found["attention"] == 4 * (2 * w) ** 2 * low + 2 * low**2 * 2 * w
    assert found["grow.0"] == 9 * w * w * n
    assert found["norm"] == 0
    assert found["head"] == 9 * w * n
    block = {stage.name: stage.multiply_adds for stage in stages(DiT(width=24, depth=1), *inputs(1, 8, 12)[:2])}["blocks.0"]
    assert block == 12 * 24**2 * 24 + 2 * 24**2 * 24 + 6 * 24**2


def test_the_sources_of_a_unet_are_its_skips_and_its_conditions():
    levels, blocks = 3, 2
    found = {stage.name: stage for stage in stages(UNet(width=8, mult=(1, 2, 1), blocks=blocks, num_classes=3), *inputs(1, 8, 8))}
    assert found["x"].sources == () and found["embed"].sources == ("c",) and found["labels"].sources == ("label",)
    assert found["stem"].sources == ("x",) and found["down.1.0"].sources == ("shrink.0", "embed", "labels")
    for i in range(levels):
        for j in range(blocks):
            sources = found[f"up.{levels - 1 - i}.{blocks - 1 - j}"].sources
            assert sources[1:] == (f"down.{i}.{j}", "embed", "labels")
    assert found["output"].sources == ("head",)


def test_shapes_and_order_are_those_of_the_forward_pass():
    found = stages(DiT(patch=4, width=16, depth=2), *inputs(1, 8, 12)[:2])
    assert [(stage.name, stage.shape) for stage in found] == [
        ("x", (1, 8, 12)), ("c", ()), ("embed", (16,)), ("stem", (6, 16)), ("blocks.0", (6, 16)), ("blocks.1", (6, 16)), ("modulation", (32,)), ("head", (6, 16)), ("output", (1, 8, 12)),
    ]  # fmt: skip


def test_a_residual_sum_has_the_sources_of_both_terms():
    found = {stage.name: stage.sources for stage in stages(DiT(width=16, depth=1).blocks[0], torch.zeros(2, 6, 16), torch.zeros(2, 16))}
    assert found["modulation"] == ("embedding",)
    assert set(found["attention"]) == {"modulation", "h"}
    assert set(found["mlp"]) == {"modulation", "h", "attention"}
    assert set(found["output"]) == {"modulation", "h", "attention", "mlp"}


def test_an_input_given_by_name_is_the_one_given_by_place():
    net, (x, c, label) = UNet(width=8, num_classes=3), inputs(1, 8, 8)
    assert stages(net, x, c=c, label=label) == stages(net, x, c, label)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(self.layer(x))


def test_a_module_called_twice_counts_its_parameters_once_and_its_work_twice():
    found = stages(Twice(), torch.zeros(4, 3))
    assert [(stage.name, stage.parameters, stage.multiply_adds) for stage in found[1:-1]] == [("layer", 12, 9), ("layer", 0, 9)]
    assert found[2].sources == ("layer",)


class Several(nn.Module):
    """A stage that returns two tensors, a stage that returns none, and an output of two."""

    class Silent(nn.Module):
        def forward(self, x):
            return None

    def __init__(self):
        super().__init__()
        self.attention, self.silent, self.last = nn.MultiheadAttention(4, 2, batch_first=True), self.Silent(), nn.Linear(3, 2)

    def forward(self, x):
        h, weights = self.attention(x, x, x)
        self.silent(h)
        return {"y": torch.add(input=self.last(weights), other=1.0), "h": h}


def test_stages_that_return_several_tensors_or_none():
    found = {stage.name: stage for stage in stages(Several(), torch.zeros(2, 3, 4))}
    assert {name: stage.shape for name, stage in found.items()} == {"x": (3, 4), "attention": (3, 4), "silent": (), "last": (3, 2), "output": (3, 2)}
    assert found["last"].sources == ("attention",) and found["output"].sources == ("last", "attention")


def test_the_network_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 1))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        stages(net, torch.zeros(2, 3))
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in net.modules())
    assert net[:2](torch.zeros(2, 3)).requires_grad


@pytest.mark.parametrize("bad", [(), (3.0,), (torch.zeros(()),), (torch.zeros(0, 2), torch.zeros(0))])
def test_an_input_without_a_sample_is_refused(bad):
    with pytest.raises(ValueError, match="at least one sample"):
        stages(MLP(2), *bad)
