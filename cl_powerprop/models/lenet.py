"""LeNet with any number of channels and units; the large one of Kang et al., "Winning Subnetworks", ICML 2022."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.limits import check_widths
from cl_powerprop.models.base import register_model
from cl_powerprop.models.mlp import MLPConfig, mlp

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True)
class LeNetConfig(MLPConfig):
    """Options of `model=lenet`.

    Attributes:
        channels: of each convolution.
    """

    channels: list[int]

    def check(self) -> None:
        super().check()
        check_widths("model.channels", self.channels)


@register_model("lenet", LeNetConfig)
def lenet(sample_shape: Sequence[int], *, channels: Sequence[int], hidden: Sequence[int], bias: bool) -> nn.Module:
    """Return 5 x 5 convolutions, each followed by ReLU and 3 x 3 max-pooling of stride 2, and hidden layers.

    Args:
        sample_shape: (channels, height, width) of one sample; each convolution halves height and width.
        channels: of each convolution; (64, 128) in the paper.
        hidden: width of each hidden layer; (2500, 1500) in the paper.
        bias: whether layers have biases.

    Raises:
        ConfigurationError: for a width below 1.
    """
    from torch import nn

    check_widths("model.channels", channels)
    _, height, width = sample_shape
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise([sample_shape[0], *channels]):
        layers += [nn.Conv2d(before, after, 5, padding=2, bias=bias), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
        height, width = -(-height // 2), -(-width // 2)
    maps = ((channels[-1] if channels else sample_shape[0]), height, width)
    return nn.Sequential(*layers, mlp(maps, hidden=hidden, bias=bias))
