"""Training for a number of steps in place of epochs."""

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
        self._done = 0

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Count from 0."""
        self._done = 0

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Stop after the last step."""
        self._done += 1
        if self._done == self.steps:
            strategy.stop_training()
