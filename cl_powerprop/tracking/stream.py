"""What a run measures, as rows; sinks take them where they are wanted."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from cl_powerprop.registry import find

if TYPE_CHECKING:
    from cl_powerprop.results.facts import Facts
    from cl_powerprop.sparsity import LayerCapacity
    from cl_powerprop.tracking.pictures import RunPictures


@dataclass(frozen=True)
class Row:
    """One measured value: a line of `curves.csv`.

    Attributes:
        trained_tasks: tasks whose training is finished.
        epoch: epochs of the task in training that are finished; at an evaluation between tasks, all of them.
        step: optimizer steps since the run began.
        eval_task: the task that was measured.
        split: train, valid or test.
    """

    trained_tasks: int
    epoch: int
    step: int
    eval_task: int
    split: str
    metric: str
    value: float

    @property
    def curve(self) -> str:
        """Name the curve that the row is a point of, as dashboards show it: `test/accuracy/task_03`."""
        if self.metric == "capacity_used":  # of the network, whichever task was trained last
            return "capacity/used"
        return f"{self.split}/{self.metric}/task_{self.eval_task:02}"


@dataclass(kw_only=True)
class SinkConfig:
    """What every sink's options are derived from. An option `dir` is taken for a place of the user's, and not shown.

    Attributes:
        label: what messages call the sink; its name by default.
    """

    label: ClassVar[str] = ""

    @property
    def enabled(self) -> bool:
        """Whether anything is to be logged at all."""
        return True

    def check(self) -> None:
        """Refuse impossible values, before anything is loaded.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """

    def prepare(self) -> None:
        """Import what would take longer once torch is there."""


@dataclass(frozen=True)
class Outcome:
    """What `run.json` says at the end, or when a run has failed; also while it goes on."""

    status: str
    metrics: Mapping[str, float | None]
    zero_forgetting_verified: bool | None
    seconds: Mapping[str, float]
    peak_memory_mb: float | None


@dataclass(frozen=True)
class RunView:
    """What a sink may know of the run that it logs.

    Attributes:
        facts: what the run is.
        config: the run's whole config.
        folder: the run folder.
        capacity: what each task holds of each layer; grows by the rows of a task when it is trained.
        steps: optimizer steps that each experience takes.
        multirun: name of the multirun that the run is a job of, None for a run alone.
        resumed_at: optimizer steps that were done when the run was resumed; None for a run from its start.
        memory: the sink's own, kept in `run.json` under its name: what a resumed run is to know.
        pictures: the run's figures.
        tell: says something that a user should know, now and in `run.json`.
        outcome: returns what is known of the run's end.
    """

    facts: Facts
    config: Mapping[str, Any]
    folder: Path
    capacity: Sequence[LayerCapacity]
    steps: Sequence[int]
    multirun: str | None
    resumed_at: int | None
    memory: dict[str, Any]
    pictures: RunPictures
    tell: Callable[[str], None]
    outcome: Callable[[], Outcome]


class Sink(Protocol):
    """A place that rows go to."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def flush(self) -> None:
        """Make everything so far visible; called when a task is finished."""

    def close(self) -> None:
        """Take what is known at the end; called once, when the run's own files are final."""

    def abort(self) -> None:
        """Let go of everything at once: a call has failed, and no other will follow."""


class Record(Protocol):
    """The run's own record of its rows, without which it is not whole."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def flush(self) -> None:
        """Write everything so far."""


def open_sinks(configs: Mapping[str, SinkConfig], views: Mapping[str, RunView]) -> dict[str, Callable[[], Sink]]:
    """Return what opens each sink, by what messages call it."""
    return {
        config.label or name: functools.partial(find("logger", name).make, config, views[name])
        for name, config in configs.items()
    }


class RowStream:
    """Hands every row to the run's own record and to every sink.

    A sink that fails is reported once, dropped, and never stops the run; a record that fails does.

    Args:
        record: the run's own.
        openers: for the name of each sink, what opens it.
        tell: called with one line when a sink failed.
        written: rows that a resumed run begins with.

    Attributes:
        written: how many rows there were.
        seconds: what opening and closing took.
    """

    def __init__(
        self,
        record: Record,
        openers: Mapping[str, Callable[[], Sink]],
        tell: Callable[[str], None],
        written: int = 0,
    ) -> None:
        self._record = record
        self._tell = tell
        self._sinks: dict[str, Sink] = {}
        self.written = written
        self.seconds = 0.0
        with self._timed():
            for name, opener in openers.items():
                try:
                    self._sinks[name] = opener()
                except Exception as error:  # noqa: BLE001, RUF100 (whatever a sink does, the run goes on)
                    self._report(name, error)

    def write(self, row: Row) -> None:
        """Send a row everywhere."""
        self.written += 1
        self._record.write(row)
        self._each(lambda sink: sink.write(row))

    def flush(self) -> None:
        """Write the record, and flush all sinks."""
        self._record.flush()
        self._each(lambda sink: sink.flush())

    def close(self) -> None:
        """Close all sinks."""
        with self._timed():
            self._each(lambda sink: sink.close())

    def _each(self, call: Callable[[Sink], None]) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                call(sink)
            except Exception as error:  # noqa: BLE001, RUF100
                del self._sinks[name]
                self._report(name, error)
                with contextlib.suppress(Exception):
                    sink.abort()

    def _report(self, name: str, error: Exception) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        self._tell(f"{name} failed and is left out from here on: {reason}")

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start
