"""LeNet-5: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998; ReLU and max-pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cl_powerprop.models.base import register_model
from cl_powerprop.models.mlp import mlp

if TYPE_CHECKING:
    from torch import nn


@register_model("lenet5")
def lenet5(sample_shape: Sequence[int], *, bias: bool) -> nn.Module:
    """Return two convolutions (6 and 16 channels) and two hidden layers (120 and 84 units).

    Args:
        sample_shape: (channels, height, width) of one sample, at least 12 x 12; 28 x 28 as published.
        bias: whether layers have biases.
    """
    from torch import nn

    channels, height, width = sample_shape
    maps = (16, (height // 2 - 4) // 2, (width // 2 - 4) // 2)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        mlp(maps, hidden=[120, 84], bias=bias),
    )
