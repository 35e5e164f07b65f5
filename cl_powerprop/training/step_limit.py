"""Training for a number of steps in place of epochs."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from avalanche.core import SupervisedPlugin


class StepLimit(SupervisedPlugin):  # type: ignore[misc]
    """Ends the training of each experience after a number of optimizer steps.

    Args:
        steps: that number; the learner must be given as many epochs, of which each has at least one step.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def graph_tensors(self, strategy: Any) -> tuple[()]:
        return ()

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Stop after the last step."""
        if strategy.clock.train_exp_iterations + 1 == self.steps:
            strategy.stop_training()

    def stack_key(self, strategy: Any) -> Hashable:
        """Return what learners have in common that stop after the same step."""
        return self.steps

    def stack(self, together: Any, limits: Sequence["StepLimit"]) -> dict[str, Callable[[], None]]:
        """Stop the first learner, which the others follow."""
        return {"after_training_iteration": lambda: self.after_training_iteration(together.learners[0])}
