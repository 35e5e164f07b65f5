"""Fully connected networks: 784-100-100, and LeNet-300-100."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.limits import check_hidden
from cl_powerprop.models.base import ModelConfig, register_model

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True)
class MLPConfig(ModelConfig):
    """Options of `model=mlp` and `model=lenet_300_100`.

    Attributes:
        hidden: width of each hidden layer.
    """

    hidden: list[int]

    def check(self) -> None:
        super().check()
        check_hidden(self.hidden)


@register_model("mlp", MLPConfig)
@register_model("lenet_300_100", MLPConfig)
def mlp(sample_shape: Sequence[int], *, hidden: Sequence[int], bias: bool) -> nn.Module:
    """Return fully connected ReLU layers over flattened samples.

    Args:
        sample_shape: shape of one sample.
        hidden: width of each hidden layer; an empty list gives a linear model.
        bias: whether layers have biases.

    Raises:
        ConfigurationError: for a width below 1.
    """
    from torch import nn

    check_hidden(hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise([math.prod(sample_shape), *hidden]):
        layers += [nn.Linear(before, after, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers)
