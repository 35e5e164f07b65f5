"""Wide residual networks for small images: Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016.

WRN-d-k has d layers and k times the channels of the ResNet for CIFAR. Without dropout, which its authors use in some
of their runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import norm_groups
from cl_powerprop.models.base import ModelConfig, register_model

if TYPE_CHECKING:
    from torch import nn

STEM = 16
STAGES = 3

_DEEPEST = 1204  # the deepest residual networks that were published have 1,202 layers


@dataclass(kw_only=True)
class WideResNetConfig(ModelConfig):
    """Options of `model=wide_resnet`.

    Attributes:
        depth: number of layers with weights, 6 n + 4 with n blocks in each stage.
        widen_factor: how many times 16, 32 and 64 channels the stages have.
        norm: see :func:`~cl_powerprop.networks.norm.make_norm`.
    """

    depth: int
    widen_factor: int
    norm: str

    def check(self) -> None:
        super().check()
        blocks_a_stage(self.depth)
        for channels in stage_channels(self.widen_factor):
            norm_groups(self.norm, channels)


def blocks_a_stage(depth: int) -> int:
    """Return the number of blocks in each of the three stages.

    Raises:
        ConfigurationError: for a depth that is not 6 n + 4, or of thousands of layers.
    """
    if depth % 6 != 4 or not 10 <= depth <= _DEEPEST:
        raise ConfigurationError(
            f"model.depth must be 6 n + 4, such as 10, 16, 22, 28 or 40, up to {_DEEPEST}, not {depth}"
        )
    return (depth - 4) // 6


def stage_channels(widen_factor: int) -> list[int]:
    """Return the channels of each stage.

    Raises:
        ConfigurationError: for a factor below 1.
    """
    if widen_factor < 1:
        raise ConfigurationError(f"model.widen_factor must be at least 1, not {widen_factor}")
    return [STEM * widen_factor * 2**stage for stage in range(STAGES)]


@register_model("wide_resnet", WideResNetConfig)
def wide_resnet(sample_shape: Sequence[int], *, depth: int, widen_factor: int, norm: str, bias: bool) -> nn.Module:
    """Return a stem, three stages of residual blocks, a norm, and global average pooling.

    Args:
        sample_shape: (channels, height, width) of one sample.
        depth: number of layers with weights, 6 n + 4.
        widen_factor: how many times 16, 32 and 64 channels the stages have.
        norm: see :func:`~cl_powerprop.networks.norm.make_norm`.
        bias: whether norms are affine; without norms, whether convolutions have biases.

    Raises:
        ConfigurationError: for an impossible depth or factor, or an unknown norm.
    """
    from torch import nn

    from cl_powerprop.networks.norm import make_norm
    from cl_powerprop.networks.residual import PreactivationBlock

    channels = STEM
    layers: list[nn.Module] = [nn.Conv2d(sample_shape[0], channels, 3, padding=1, bias=bias and norm == "none")]
    for stage, outputs in enumerate(stage_channels(widen_factor)):
        for block in range(blocks_a_stage(depth)):
            layers.append(PreactivationBlock(channels, outputs, 2 if stage and not block else 1, norm, bias))
            channels = outputs
    return nn.Sequential(*layers, make_norm(norm, channels, affine=bias), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
