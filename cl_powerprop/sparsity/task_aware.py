"""What a tensor or a head is for one task: the one protocol that masks, biases, norms and heads share."""

from abc import ABC, abstractmethod

from torch import nn


class TaskAware(ABC):
    """A module that answers differently for each task."""

    @abstractmethod
    def select_task(self, task: int | None) -> None:
        """Answer as ``task`` from now on; None is the view of the task in training."""


def select_task(model: nn.Module, task: int | None) -> None:
    """Make the whole of ``model`` answer as ``task`` (once an experience, never once a batch)."""
    for module in model.modules():
        if isinstance(module, TaskAware):
            module.select_task(task)
