"""Joint training: all tasks at once, their samples mixed. What a network reaches when there is nothing to forget."""

from typing import Any

from cl_powerprop.models.heads import select_samples
from cl_powerprop.strategies.naive import NaivePlugin


class JointPlugin(NaivePlugin):
    """Sends each sample of a mixed batch through the head of its own task, if the model has one a task."""

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Select the heads of the batch."""
        select_samples(strategy.model, strategy.mb_task_id)
