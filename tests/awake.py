"""What the tests of networks share: weights that are all awake, and an input."""

import torch
from torch import nn


def awake(net: nn.Module) -> nn.Module:
    """The same network with every weight drawn anew, so that the layers that start at zero take part."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))
