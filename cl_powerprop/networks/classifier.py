"""What every network is: features, then one output layer for all tasks or one for each."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.networks.heads import TaskHeads


class Classifier(nn.Module):
    """Features of pictures, flattened, and an output layer over them.

    Args:
        features: from ``[n, *sample_shape]`` to anything that flattens to one vector a sample.
        sample_shape: shape of one sample, (channels, height, width).
        classes: classes of each task. A shared output layer is as wide as the largest.
        per_task_heads: give every task an output layer of its own.
        bias: whether the output layer has biases.

    Raises:
        ConfigurationError: if samples are too small for the features.
    """

    def __init__(
        self,
        features: nn.Module,
        sample_shape: Sequence[int],
        classes: Sequence[int],
        per_task_heads: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.features = features
        width = _width(features, sample_shape)
        self.output: nn.Module
        if per_task_heads:
            self.output = TaskHeads(width, classes, bias=bias)
        else:
            self.output = nn.Linear(width, max(classes), bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.output(self.features(images).flatten(1))  # type: ignore[no-any-return]


@torch.no_grad()
def _width(features: nn.Module, sample_shape: Sequence[int]) -> int:
    """Return how many values the features of one sample are."""
    training = features.training
    try:
        # In evaluation one sample moves no statistics.
        return math.prod(features.eval()(torch.zeros(1, *sample_shape)).shape[1:])
    except RuntimeError as error:
        raise ConfigurationError(f"samples of shape {tuple(sample_shape)} do not fit the model ({error})") from error
    finally:
        features.train(training)
