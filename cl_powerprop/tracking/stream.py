"""What a run measures, as rows; sinks take them where they are wanted."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger("cl_powerprop")


@dataclass(frozen=True)
class Row:
    """One measured value: a line of `curves.csv`.

    Attributes:
        trained_tasks: tasks whose training is finished.
        epoch: epochs of the task in training that are finished; at an evaluation between tasks, all of them.
        step: optimizer steps since the run began.
        eval_task: the task that was measured.
        split: train or test.
    """

    trained_tasks: int
    epoch: int
    step: int
    eval_task: int
    split: str
    metric: str
    value: float


class Sink(Protocol):
    """A place that rows go to."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def flush(self) -> None:
        """Make everything so far visible; called when a task is finished and at the end."""


class RowStream:
    """Hands every row to every sink. A sink that fails is reported once, dropped, and never stops the run."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)

    def write(self, row: Row) -> None:
        """Send a row to all sinks."""
        for sink in list(self._sinks):
            try:
                sink.write(row)
            except Exception as error:  # noqa: BLE001, RUF100 (whatever a sink does, the run goes on)
                self._drop(sink, error)

    def flush(self) -> None:
        """Flush all sinks."""
        for sink in list(self._sinks):
            try:
                sink.flush()
            except Exception as error:  # noqa: BLE001, RUF100
                self._drop(sink, error)

    def _drop(self, sink: Sink, error: Exception) -> None:
        self._sinks.remove(sink)
        log.warning("%s failed and is left out from here on: %s", type(sink).__name__, error)
