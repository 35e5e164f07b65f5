"""The interface of modules that depend on the selected task: masks, biases, norms and heads."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn


class TaskAware(ABC):
    """A module whose output depends on the selected task.

    Attributes:
        by_task: names of its tensors that have a row for each finished task.
    """

    by_task: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def select_task(self, task: int | None) -> None:
        """Compute the outputs of ``task`` from now on; None selects the task in training."""


def select_task(model: nn.Module, task: int | None) -> None:
    """Make the whole ``model`` compute the outputs of ``task``; None selects the task in training.

    This visits every module: call it once per experience, not once per batch.
    """
    for module in model.modules():
        if isinstance(module, TaskAware):
            module.select_task(task)
