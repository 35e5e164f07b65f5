"""A run's measurements as rows, and the sinks that they are sent to."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from cl_powerprop.registry import T, door, find

if TYPE_CHECKING:
    from cl_powerprop.record import Facts
    from cl_powerprop.sparsity import LayerCapacity
    from cl_powerprop.tracking.run_figures import RunFigures


AVERAGE = "average_accuracy"  # a row's metric that belongs to no single task
SPARSITY = "sparsity"  # likewise: of all masked weights; followed by the name of a layer, of that layer's


@dataclass(frozen=True)
class Row:
    """One measured value: a line of `curves.csv`.

    Attributes:
        trained_tasks: tasks whose training is finished.
        epoch: epochs of the task in training that are finished; at an evaluation between tasks, all of them.
        step: optimizer steps since the run began.
        eval_task: the task that was measured.
        split: train, valid or test.
        metric: name of the metric, such as accuracy.
        value: the measured value.
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
        """Name of the row's curve in dashboards, such as `test/accuracy/task_03`."""
        if self.metric == "capacity_used":  # of the network, whichever task was trained last
            return "capacity/used"
        if self.metric == SPARSITY:
            return f"{SPARSITY}/all"
        if self.metric.startswith(f"{SPARSITY}/"):
            return self.metric
        if self.metric == AVERAGE:  # of all tasks so far
            return f"{self.split}/{self.metric}"
        return f"{self.split}/{self.metric}/task_{self.eval_task:02}"


@dataclass(kw_only=True)
class SinkConfig:
    """Base class of every sink's options. An option `dir` is taken for a path of the user's, and is not shown.

    Attributes:
        label: name of the sink in messages; by default the name under which it is registered.
    """

    label: ClassVar[str] = ""

    @property
    def enabled(self) -> bool:
        """Whether the sink logs anything at all."""
        return True

    def check(self) -> None:
        """Reject impossible values, before anything is loaded.

        Raises:
            ConfigurationError: naming the option and its choices.
        """

    def check_together(self) -> None:
        """Refuse what several runs in one process cannot share.

        Raises:
            ConfigurationError: naming it.
        """

    def prepare(self) -> None:
        """Import modules that would take longer to import after torch."""


def register_sink(name: str, config: type) -> Callable[[T], T]:
    """Make a class the choice ``logger=[NAME]``, called as ``sink(config, run) -> Sink`` when a run begins.

    Arguments and errors are those of :func:`register_strategy`; the config is derived from :class:`SinkConfig`, and
    ``run`` is a :class:`~cl_powerprop.tracking.stream.RunView`.
    """
    return door("logger", name, config, SinkConfig, ())


@dataclass(frozen=True)
class Outcome:
    """The state of a run as in `run.json`: at the end, after a failure, or while it is still going on.

    Attributes:
        status: "running", "complete" or "failed".
        metrics: value of each metric by name; None where there is none.
        zero_forgetting_verified: whether all tasks kept their logits bit for bit; None if that was not tested.
        seconds: time spent on each part of the run.
        peak_memory_mb: peak memory in MiB, if known.
    """

    status: str
    metrics: Mapping[str, float | None]
    zero_forgetting_verified: bool | None
    seconds: Mapping[str, float]
    peak_memory_mb: float | None


@dataclass(frozen=True)
class RunView:
    """What a sink may know about the run that it logs.

    Attributes:
        facts: what the run is.
        config: the run's whole config.
        folder: the run folder.
        capacity: how much of each layer each task uses; the rows of a task are added when it has been tested.
        steps: number of optimizer steps of each experience.
        multirun: name of the multirun that the run is a job of, None for a run alone.
        resumed_at: optimizer steps that were done when the run was resumed; None for a run from its start.
        memory: what the sink must know when the run is resumed; kept in `run.json` under the sink's name.
        figures: the run's figures as images.
        tell: reports a message to the user, now and in `run.json`.
        outcome: returns the current state of the run.
        name: of the run among the jobs of its multirun, by what differs between them; None for a run alone.
    """

    facts: Facts
    config: Mapping[str, Any]
    folder: Path
    capacity: Sequence[LayerCapacity]
    steps: Sequence[int]
    multirun: str | None
    resumed_at: int | None
    memory: dict[str, Any]
    figures: RunFigures
    tell: Callable[[str], None]
    outcome: Callable[[], Outcome]
    name: str | None = None


class Sink(Protocol):
    """A destination of rows."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def flush(self) -> None:
        """Make everything so far visible; called when a task is finished."""

    def close(self) -> None:
        """Take the final state of the run; called once, when the run's own files are final."""

    def abort(self) -> None:
        """Release everything at once: a call has failed, and no other will follow."""


class Record(Protocol):
    """The run's own record of its rows; without it the run is incomplete."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def flush(self) -> None:
        """Hand everything so far on."""


def open_sinks(configs: Mapping[str, SinkConfig], views: Mapping[str, RunView]) -> dict[str, Callable[[], Sink]]:
    """Return a function that opens each sink, by the sink's name in messages."""
    return {
        config.label or name: functools.partial(find("logger", name).make, config, views[name])
        for name, config in configs.items()
    }


class RowStream:
    """Sends every row to the run's own record and to every sink.

    A sink that fails is reported once and dropped, and never stops the run; a record that fails does.

    Args:
        record: the run's own record.
        openers: a function that opens each sink, by name.
        tell: called with one line when a sink has failed.
        written: number of rows that a resumed run starts with.

    Attributes:
        written: number of rows so far.
        seconds: time spent on opening and closing sinks.
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

    def show(self, row: Row) -> None:
        """Send a row to the sinks only: what the record's other rows say already, for dashboards to show."""
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
