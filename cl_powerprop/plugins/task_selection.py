"""Selects the head of the task at hand, for models that have one a task."""

from typing import Any

from avalanche.core import SupervisedPlugin

from cl_powerprop.networks.heads import select_samples
from cl_powerprop.sparsity import select_task


class TaskSelection(SupervisedPlugin):  # type: ignore[misc]
    """Selects the task's own head or network before it trains or is tested; without such parts it does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._training: int | None = None

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Select the task to train."""
        self._training = strategy.experience.task_label
        select_task(strategy.model, self._training)

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """No task is in training any more."""
        self._training = None

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Select the task to test."""
        select_task(strategy.model, strategy.experience.task_label)

    def after_eval(self, strategy: Any, **_: Any) -> None:
        """Go back to the task in training, if an evaluation came in between."""
        if self._training is not None:
            select_task(strategy.model, self._training)


class MixedTaskSelection(TaskSelection):
    """Also sends each sample of a mixed training batch through the head of its own task."""

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Select the heads of the batch."""
        select_samples(strategy.model, strategy.mb_task_id)
