"""Four convolutional blocks, usual for few-shot learning on Omniglot: Vinyals et al., "Matching Networks", 2016."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.limits import check_width, norm_groups
from cl_powerprop.models.base import ModelConfig, register_model

if TYPE_CHECKING:
    from torch import nn

BLOCKS = 4


@dataclass(kw_only=True)
class ConvConfig(ModelConfig):
    """Options of `model=convnet` and `model=resnet18`.

    Attributes:
        width: channels of each block; of the first stage, in ResNet-18.
        norm: see :func:`~cl_powerprop.networks.norm.make_norm`.
    """

    width: int
    norm: str

    def check(self) -> None:
        super().check()
        check_width(self.width)
        norm_groups(self.norm, self.width)


@register_model("convnet", ConvConfig)
def convnet(sample_shape: Sequence[int], *, width: int, norm: str, bias: bool) -> nn.Module:
    """Return four blocks of 3 x 3 convolution, normalisation, ReLU and 2 x 2 max-pooling.

    Args:
        sample_shape: (channels, height, width) of one sample, at least 16 x 16.
        width: channels of each block; 64 in the papers.
        norm: see :func:`~cl_powerprop.networks.norm.make_norm`.
        bias: whether norms are affine; without norms, whether convolutions have biases.

    Raises:
        ConfigurationError: for a width below 1 or an unknown norm.
    """
    from torch import nn

    from cl_powerprop.networks.norm import make_norm

    check_width(width)
    layers: list[nn.Module] = []
    channels = sample_shape[0]
    for _ in range(BLOCKS):
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=bias and norm == "none")
        layers += [convolution, make_norm(norm, width, affine=bias), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers)
