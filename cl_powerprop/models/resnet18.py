"""ResNet-18 for small pictures: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.

A 3 x 3 stem without pooling takes the place of the one for ImageNet, as continual-learning work on CIFAR has it.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.models.norm import make_norm


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a way around them: the input, or a 1 x 1 convolution of it where its shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, bias: bool) -> None:
        super().__init__()

        def convolution(channels: int, size: int, step: int) -> list[nn.Module]:
            padding, own_bias = size // 2, bias and norm == "none"
            return [
                nn.Conv2d(channels, outputs, size, step, padding, bias=own_bias),
                make_norm(norm, outputs, affine=bias),
            ]

        self.body = nn.Sequential(*convolution(inputs, 3, stride), nn.ReLU(), *convolution(outputs, 3, 1))
        same = stride == 1 and inputs == outputs
        self.around = nn.Identity() if same else nn.Sequential(*convolution(inputs, 1, stride))

    def forward(self, maps: Tensor) -> Tensor:
        return (self.body(maps) + self.around(maps)).relu()  # type: ignore[no-any-return]


def resnet18(sample_shape: Sequence[int], *, width: int, norm: str, bias: bool) -> nn.Module:
    """Return a stem and eight residual blocks in four stages, averaged over each map.

    Args:
        sample_shape: (channels, height, width) of one sample.
        width: channels of the first stage, doubled by each of the next three; 64 as published.
        norm: see :func:`make_norm`.
        bias: whether norms are affine (without norms: whether convolutions have biases).

    Raises:
        ConfigurationError: for a width below 1 or an unknown norm.
    """
    if width < 1:
        raise ConfigurationError(f"model.width must be at least 1, not {width}")
    stem = nn.Conv2d(sample_shape[0], width, 3, padding=1, bias=bias and norm == "none")
    layers: list[nn.Module] = [stem, make_norm(norm, width, affine=bias), nn.ReLU()]
    channels = width
    for stage in range(4):
        for block in range(2):
            outputs = width * 2**stage
            layers.append(ResidualBlock(channels, outputs, 2 if stage and not block else 1, norm, bias))
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
