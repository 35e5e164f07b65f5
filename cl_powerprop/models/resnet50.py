"""ResNet-50 for ImageNet, as torchvision builds it.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; with the strides of "ResNet v1.5": a block that
halves the image does so in its 3 x 3 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cl_powerprop.models.base import register_model

if TYPE_CHECKING:
    from torch import nn


@register_model("resnet50")
def resnet50(sample_shape: Sequence[int], *, bias: bool) -> nn.Module:
    """Return torchvision's ResNet-50 with new weights and without its output layer: 2,048 features.

    Args:
        sample_shape: (channels, height, width) of one sample; as published, three channels of 224 x 224.
        bias: whether batch norms are affine.
    """
    from torch import nn
    from torchvision import models

    network: nn.Module = models.resnet50(weights=None)
    network.fc = nn.Identity()
    if sample_shape[0] != 3:
        network.conv1 = nn.Conv2d(sample_shape[0], 64, 7, stride=2, padding=3, bias=False)
    if not bias:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # torchvision cannot make these without
                module.affine = False
                module.weight = module.bias = None  # type: ignore[assignment]
    return network
