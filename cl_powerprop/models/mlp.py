"""Fully connected networks: the 784-100-100 of the continual-learning trials, and LeNet-300-100."""

import itertools
import math
from collections.abc import Sequence

from torch import nn

from cl_powerprop.errors import ConfigurationError


def mlp(sample_shape: Sequence[int], *, hidden: Sequence[int], bias: bool) -> nn.Module:
    """Return ReLU layers over flattened samples.

    Args:
        sample_shape: shape of one sample.
        hidden: width of each hidden layer; with none, a linear model.
        bias: whether layers have biases.

    Raises:
        ConfigurationError: for a width below 1.
    """
    if any(width < 1 for width in hidden):
        raise ConfigurationError(f"model.hidden needs widths of at least 1, not {list(hidden)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise([math.prod(sample_shape), *hidden]):
        layers += [nn.Linear(before, after, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers)
