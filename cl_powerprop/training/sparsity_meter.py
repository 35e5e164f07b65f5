"""Reports which weights are active while a network trains sparsely."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from avalanche.core import SupervisedPlugin

from cl_powerprop.plugins.sparse_training import SparseTraining


class SparsityMeter(SupervisedPlugin):  # type: ignore[misc]
    """Reports the rows of :class:`SparseTraining` as they come. It must come after that plugin.

    Args:
        training: the plugin.
        report: called with the rows that are new, if there are any.
    """

    def __init__(self, training: SparseTraining, report: Callable[[Sequence[Mapping[str, Any]]], None]) -> None:
        super().__init__()
        self.training = training
        self.report = report
        self._seen = len(training.rows)  # a resumed run has reported these before

    def take(self) -> None:
        """Report what is new."""
        new = self.training.rows[self._seen :]
        self._seen += len(new)
        if new:
            self.report(new)

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Report the epoch."""
        self.take()
