"""A model: one wide layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from cl_powerprop import ModelConfig, register_model


@dataclass(kw_only=True)
class WideConfig(ModelConfig):
    units: int = 24
    bias: str = "none"


@register_model("wide", WideConfig)
def wide(sample_shape: Sequence[int], *, units: int, bias: bool) -> nn.Module:
    """One wide hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(sample_shape), units, bias=bias), nn.ReLU())
