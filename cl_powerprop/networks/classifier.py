"""The structure of every network: features, then one output layer for all tasks or one per task."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.networks.heads import TaskHeads


class Classifier(nn.Module):
    """Features of images, flattened, and an output layer: from ``[n, *sample_shape]`` to logits ``[n, classes]``.

    Args:
        features: maps ``[n, *sample_shape]`` to any shape that flattens to one vector per sample.
        sample_shape: shape of one sample, (channels, height, width).
        classes: number of classes of each task. A shared output layer is as wide as the largest.
        per_task_heads: give every task its own output layer.
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
    """Return the number of feature values per sample."""
    training = features.training
    try:
        # In evaluation mode this sample does not change batch-norm statistics.
        return math.prod(features.eval()(torch.zeros(1, *sample_shape)).shape[1:])
    except RuntimeError as error:
        raise ConfigurationError(f"samples of shape {tuple(sample_shape)} do not fit the model ({error})") from error
    finally:
        features.train(training)
