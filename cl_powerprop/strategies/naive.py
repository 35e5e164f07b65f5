"""Fine-tuning: learn one task after the other and do nothing against forgetting. The lower baseline."""

from typing import Any

from avalanche.core import SupervisedPlugin

from cl_powerprop.sparsity import select_task


class NaivePlugin(SupervisedPlugin):  # type: ignore[misc]
    """Selects the task's own head, if the model has one a task; without such heads it does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._training: int | None = None

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Select the head of the task to train."""
        self._training = strategy.experience.task_label
        select_task(strategy.model, self._training)

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """No task is in training any more."""
        self._training = None

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Select the head of the task to evaluate."""
        select_task(strategy.model, strategy.experience.task_label)

    def after_eval(self, strategy: Any, **_: Any) -> None:
        """Go back to the task in training, if an evaluation came in between."""
        if self._training is not None:
            select_task(strategy.model, self._training)
