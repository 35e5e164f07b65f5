"""Evaluation while a task trains, which shows the drop in accuracy on earlier tasks right after a task switch.

De Lange, van de Ven & Tuytelaars, "Continual evaluation for lifelong learning: Identifying the stability gap", ICLR
2023, arXiv:2205.13452: an evaluation at the end of each task misses what is forgotten and relearned within a task.
"""

from collections.abc import Callable
from typing import Any

from avalanche.core import SupervisedPlugin


class ContinualEvaluation(SupervisedPlugin):  # type: ignore[misc]
    """Calls for an evaluation every few epochs or steps of a task. It must come after all other plugins.

    There is none at the end of a task, since the run evaluates between tasks anyway.

    Args:
        evaluate: called as ``evaluate(epoch, step)`` with the finished epochs of the task and steps of the run.
        every_epochs, every_steps: interval between evaluations; None for no such evaluations.
    """

    def __init__(self, evaluate: Callable[[int, int], None], every_epochs: int | None, every_steps: int | None):
        super().__init__()
        self.evaluate = evaluate
        self.every_epochs = every_epochs
        self.every_steps = every_steps

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Evaluate after every ``every_steps`` steps of the task."""
        steps = strategy.clock.train_exp_iterations + 1
        last = len(strategy.dataloader) * strategy.train_epochs
        if self.every_steps and steps % self.every_steps == 0 and steps != last:
            self.evaluate(strategy.clock.train_exp_epochs, strategy.clock.train_iterations + 1)

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Evaluate after every ``every_epochs`` epochs of the task."""
        epochs = strategy.clock.train_exp_epochs + 1
        if self.every_epochs and epochs % self.every_epochs == 0 and epochs != strategy.train_epochs:
            self.evaluate(epochs, strategy.clock.train_iterations)
