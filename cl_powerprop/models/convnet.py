"""Four convolutional blocks, as few-shot work on Omniglot uses: Vinyals et al., "Matching Networks", NeurIPS 2016."""

from collections.abc import Sequence

from torch import nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.models.norm import make_norm

BLOCKS = 4


def convnet(sample_shape: Sequence[int], *, width: int, norm: str, bias: bool) -> nn.Module:
    """Return four blocks of 3 x 3 convolution, normalisation, ReLU and 2 x 2 max-pooling.

    Args:
        sample_shape: (channels, height, width) of one sample, at least 16 x 16.
        width: channels of each block; 64 in the papers.
        norm: see :func:`make_norm`.
        bias: whether convolutions have biases (those of a normalised one stand in its norm) and norms are affine.

    Raises:
        ConfigurationError: for a width below 1 or an unknown norm.
    """
    if width < 1:
        raise ConfigurationError(f"model.width must be at least 1, not {width}")
    layers: list[nn.Module] = []
    channels = sample_shape[0]
    for _ in range(BLOCKS):
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=bias and norm == "none")
        layers += [convolution, make_norm(norm, width, affine=bias), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers)
