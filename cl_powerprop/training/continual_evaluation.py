"""Evaluation while a task trains, which shows the drop in accuracy on earlier tasks right after a task switch.

De Lange, van de Ven & Tuytelaars, "Continual evaluation for lifelong learning: Identifying the stability gap", ICLR
2023, arXiv:2205.13452: an evaluation at the end of each task misses what is forgotten and relearned within a task.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from avalanche.core import SupervisedPlugin


class ContinualEvaluation(SupervisedPlugin):  # type: ignore[misc]
    """Calls for an evaluation every few epochs or steps of a task. It must come after all other plugins and the clock.

    There is none at the end of a task, since the run evaluates between tasks anyway. A run that goes on from a
    checkpoint begins with the evaluation that was due there and was not finished.

    Args:
        evaluate: called as ``evaluate(epoch, step)`` with the finished epochs of the task and steps of the run.
        every_epochs, every_steps: interval between evaluations; None for no such evaluations.
    """

    comes_last = True

    def __init__(self, evaluate: Callable[[int, int], None], every_epochs: int | None, every_steps: int | None):
        super().__init__()
        self.evaluate = evaluate
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self._evaluated = -1  # steps of the run at the last evaluation
        self._is_resumed = False

    def graph_tensors(self, strategy: Any) -> tuple[()]:
        return ()

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Evaluate after every ``every_steps`` steps of the task."""
        if self._is_due_by_steps(strategy):
            self._evaluate(strategy)

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Evaluate after every ``every_epochs`` epochs of the task."""
        if self._is_due_by_epochs(strategy):
            self._evaluate(strategy)

    def epoch_begins(self, strategy: Any, **_: Any) -> None:
        """Evaluate if that was due when the checkpoint was written from which this run goes on."""
        resumed, self._is_resumed = self._is_resumed, False
        if not resumed or self._evaluated == strategy.clock.train_iterations:
            return
        between_epochs = strategy.clock.train_epoch_iterations == 0
        if self._is_due_by_steps(strategy) or (between_epochs and self._is_due_by_epochs(strategy)):
            self._evaluate(strategy)

    def stack_key(self, strategy: Any) -> Hashable | None:
        """Return what learners have in common that train together: none of them is evaluated within an epoch."""
        return None if self.every_steps else ()

    def stack(self, together: Any, plugins: Sequence["ContinualEvaluation"]) -> dict[str, Callable[[], None]]:
        """There is nothing to do within an epoch."""
        return {}

    def _is_due_by_steps(self, strategy: Any) -> bool:
        if not self.every_steps:
            return False
        steps = strategy.clock.train_exp_iterations
        last = len(strategy.dataloader) * strategy.train_epochs
        return bool(0 < steps != last and steps % self.every_steps == 0)

    def _is_due_by_epochs(self, strategy: Any) -> bool:
        epochs = strategy.clock.train_exp_epochs
        return bool(self.every_epochs and 0 < epochs != strategy.train_epochs and epochs % self.every_epochs == 0)

    def _evaluate(self, strategy: Any) -> None:
        self.evaluate(strategy.clock.train_exp_epochs, strategy.clock.train_iterations)
        self._evaluated = strategy.clock.train_iterations

    def task_progress(self) -> dict[str, Any]:
        """Return which evaluation was the last that is finished."""
        return {"evaluated": self._evaluated}

    def load_task_progress(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`task_progress` returned."""
        self._evaluated, self._is_resumed = state["evaluated"], True
