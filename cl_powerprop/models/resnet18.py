"""ResNet-18 for small images: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1.

A 3 x 3 stem without pooling replaces the one for ImageNet, as is usual in continual learning on CIFAR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.limits import check_width, norm_groups
from cl_powerprop.models.base import register_model
from cl_powerprop.models.convnet import ConvConfig

if TYPE_CHECKING:
    from torch import nn


STAGES = 4


@dataclass(kw_only=True)
class ResNetConfig(ConvConfig):
    """Options of `model=resnet18`: each stage doubles the channels."""

    def check(self) -> None:
        super().check()
        for stage in range(STAGES):
            norm_groups(self.norm, self.width * 2**stage)


@register_model("resnet18", ResNetConfig)
def resnet18(sample_shape: Sequence[int], *, width: int, norm: str, bias: bool) -> nn.Module:
    """Return a stem, eight residual blocks in four stages, and global average pooling.

    Args:
        sample_shape: (channels, height, width) of one sample.
        width: channels of the first stage, doubled by each of the next three; 64 as published.
        norm: see :func:`~cl_powerprop.networks.norm.make_norm`.
        bias: whether norms are affine; without norms, whether convolutions have biases.

    Raises:
        ConfigurationError: for a width below 1 or an unknown norm.
    """
    from torch import nn

    from cl_powerprop.networks.norm import make_norm
    from cl_powerprop.networks.residual import ResidualBlock

    check_width(width)
    stem = nn.Conv2d(sample_shape[0], width, 3, padding=1, bias=bias and norm == "none")
    layers: list[nn.Module] = [stem, make_norm(norm, width, affine=bias), nn.ReLU()]
    channels = width
    for stage in range(STAGES):
        for block in range(2):
            outputs = width * 2**stage
            layers.append(ResidualBlock(channels, outputs, 2 if stage and not block else 1, norm, bias))
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
