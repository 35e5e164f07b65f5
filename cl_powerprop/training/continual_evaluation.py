"""Evaluation while a task trains: what a forgetting curve needs to show the dip between tasks.

De Lange, van de Ven & Tuytelaars, "Continual evaluation for lifelong learning: Identifying the stability gap", ICLR
2023, arXiv:2205.13452: an evaluation at the end of each task misses what is forgotten and learned again within one.
"""

from collections.abc import Callable
from typing import Any

from avalanche.core import SupervisedPlugin


class ContinualEvaluation(SupervisedPlugin):  # type: ignore[misc]
    """Calls for an evaluation every so many epochs or steps of a task. Comes after all other plugins.

    The end of a task is left out: the evaluation between tasks measures it.

    Args:
        evaluate: called as ``evaluate(epoch, step)``: epochs of the task and steps of the run that are finished.
        every_epochs, every_steps: how often; None for not at all.
    """

    def __init__(self, evaluate: Callable[[int, int], None], every_epochs: int | None, every_steps: int | None):
        super().__init__()
        self.evaluate = evaluate
        self.every_epochs = every_epochs
        self.every_steps = every_steps

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Evaluate if it is time, counted in steps of the task."""
        steps = strategy.clock.train_exp_iterations + 1
        last = len(strategy.dataloader) * strategy.train_epochs
        if self.every_steps and steps % self.every_steps == 0 and steps != last:
            self.evaluate(strategy.clock.train_exp_epochs, strategy.clock.train_iterations + 1)

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Evaluate if it is time, counted in epochs of the task."""
        epochs = strategy.clock.train_exp_epochs + 1
        if self.every_epochs and epochs % self.every_epochs == 0 and epochs != strategy.train_epochs:
            self.evaluate(epochs, strategy.clock.train_iterations)
