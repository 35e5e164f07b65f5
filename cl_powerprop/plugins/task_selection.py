"""Selects the head of the current task, in models with one head per task."""

from typing import Any

from avalanche.core import SupervisedPlugin

from cl_powerprop.networks.heads import select_samples
from cl_powerprop.sparsity import select_task


class TaskSelection(SupervisedPlugin):  # type: ignore[misc]
    """Selects a task's head or network before the task is trained or tested; other models are not changed."""

    def __init__(self) -> None:
        super().__init__()
        self._training: int | None = None

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Select the task to train."""
        self._training = strategy.experience.task_label
        select_task(strategy.model, self._training)

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Note that no task is in training."""
        self._training = None

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Select the task to test."""
        select_task(strategy.model, strategy.experience.task_label)

    def after_eval(self, strategy: Any, **_: Any) -> None:
        """Select the task in training again, if the evaluation interrupted it."""
        if self._training is not None:
            select_task(strategy.model, self._training)


class MixedTaskSelection(TaskSelection):
    """Also uses, for each sample of a mixed training batch, the head of its own task."""

    def graph_tensors(self, strategy: Any) -> tuple[()]:
        return ()

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Select the head of each sample in the batch."""
        select_samples(strategy.model, strategy.mb_task_id)
