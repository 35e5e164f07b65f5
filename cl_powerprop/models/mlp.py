"""Fully connected networks: the 784-100-100 of the continual-learning trials, and LeNet-300-100."""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.models.heads import TaskHeads


class MLP(nn.Module):
    """ReLU layers over flattened pictures, then one shared output layer or one a task.

    Args:
        inputs: values in one sample.
        hidden: width of each hidden layer.
        classes: classes of each task. A shared output layer is as wide as the largest.
        per_task_heads: give every task an output layer of its own.
        bias: whether layers, heads included, have biases.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        classes: Sequence[int],
        per_task_heads: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden):
            raise ConfigurationError(f"model.hidden needs widths of at least 1, not {list(hidden)}")
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise([inputs, *hidden]):
            layers += [nn.Linear(before, after, bias=bias), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        width = [inputs, *hidden][-1]
        self.output: nn.Module
        if per_task_heads:
            self.output = TaskHeads(width, classes, bias=bias)
        else:
            self.output = nn.Linear(width, max(classes), bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.output(self.features(images))  # type: ignore[no-any-return]
