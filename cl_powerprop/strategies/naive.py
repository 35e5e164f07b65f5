"""Fine-tuning: learn one task after the other and do nothing against forgetting. The lower baseline."""

from typing import Any

from avalanche.core import SupervisedPlugin

from cl_powerprop.sparsity import select_task


class NaivePlugin(SupervisedPlugin):  # type: ignore[misc]
    """Selects the task's own head, if the model has one a task; without such heads it does nothing."""

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Select the head of the task to train."""
        select_task(strategy.model, strategy.experience.task_label)

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Select the head of the task to evaluate."""
        select_task(strategy.model, strategy.experience.task_label)
