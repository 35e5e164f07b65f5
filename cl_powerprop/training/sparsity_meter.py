"""Reports which weights are active while a network trains sparsely."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from avalanche.core import SupervisedPlugin


class MeasuresSparsity(Protocol):
    """What counts a network's active weights: the plugin of sparse training.

    Attributes:
        rows: one for each layer at the end of each epoch, and once more when training is finished.
    """

    rows: list[dict[str, Any]]


class SparsityMeter(SupervisedPlugin):  # type: ignore[misc]
    """Reports the rows of sparse training as they come. It must come after the plugin that counts them.

    Args:
        training: the plugin that counts.
        report: called with the rows that are new, if there are any.
    """

    def __init__(self, training: MeasuresSparsity, report: Callable[[Sequence[Mapping[str, Any]]], None]) -> None:
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

    def after_training(self, strategy: Any, **_: Any) -> None:
        """Report what the controller has changed at the end."""
        self.take()
