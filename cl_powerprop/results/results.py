"""What a run finds out: kept typed, written to its folder, and sent to its sinks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from cl_powerprop.config import RunConfig
from cl_powerprop.errors import ConfigurationError, PrunedError, RunFolderError, StorageError
from cl_powerprop.interrupts import Interrupted, saving
from cl_powerprop.record import Facts, Job, ReferenceAccuracy
from cl_powerprop.registry import metrics
from cl_powerprop.results.capacity import write_summary
from cl_powerprop.results.efficiency import Efficiency
from cl_powerprop.results.guessing import only_guesses
from cl_powerprop.results.kept import KeptResults
from cl_powerprop.results.own_run import describe, group_name
from cl_powerprop.results.sparsity import write_pruning
from cl_powerprop.results.task_line import task_line
from cl_powerprop.results.timer import Timer
from cl_powerprop.run_folder import RunFolder
from cl_powerprop.run_lock import RunLock
from cl_powerprop.tracking.progress import ProgressDisplay
from cl_powerprop.tracking.stream import AVERAGE, Outcome, Row, SinkConfig

if TYPE_CHECKING:
    from cl_powerprop.evaluation.cost import Cost
    from cl_powerprop.evaluation.metrics import Measurements, Metric
    from cl_powerprop.parts import Parts
    from cl_powerprop.strategies.base import Summary, TaskReport
    from cl_powerprop.training.meters import Measured


@dataclass(frozen=True)
class Reference:
    """What a reference run reached: ``accuracy [T]`` on each task's test data."""

    name: str
    run_id: str
    accuracy: NDArray[np.float64]


class Results(KeptResults):
    """Takes what a run finds out, in the order of its loop, and keeps the files of its folder up to date.

    Args:
        folder: of the run.
        facts: what the run is.
        sinks: the options of each sink that measurements also go to, by its name.
        config: the run's whole config, for the sinks to show.
        multirun: name of the multirun that the run is a job of, None for a run alone.
        progress: show a live display on a terminal, or print a line for each task where there is none.
        job: the run's place in the multirun, None for a run alone.
    """

    def __init__(
        self,
        folder: RunFolder,
        facts: Facts,
        *,
        sinks: Mapping[str, SinkConfig] | None = None,
        config: Mapping[str, Any] | None = None,
        multirun: str | None = None,
        progress: bool = True,
        job: Job | None = None,
    ) -> None:
        super().__init__(folder, facts, sinks or {}, config or {}, multirun, job)
        share = "capacity" if facts.controller is None else "sparsity"
        self.display = ProgressDisplay(progress, job is None or job.live, job.title if job else "", share)
        self.task_in_training = 0
        self._lock = contextlib.ExitStack()  # of a run of one's own, until it is recorded

    @classmethod
    def open(
        cls,
        path: str | Path,
        parts: Parts,
        *,
        config: RunConfig | None = None,
        settings: Mapping[str, Any] | None = None,
        sinks: Mapping[str, SinkConfig] | None = None,
        progress: bool = True,
        **facts: Any,
    ) -> Results:
        """Return the results of a run of your own, in a new folder.

        Args:
            path: of the run folder.
            parts: what is to learn.
            config: whose benchmark and data they learn, if these are ours: the run can then be compared with others.
            settings: what else `config.yaml` is to say, for `compare` to group by: ``{"optimizer": {"lr": 0.1}}``.
            sinks: see :class:`Results`; ``cl_powerprop.compose(["logger=[wandb]"]).logger`` are those of the command.
            progress: show a live display on a terminal, or print a line for each task where there is none.
            facts: what the run is, as in ``strategy="replay", data="mnist", seed=1`` (see :class:`Facts`).

        Raises:
            ConfigurationError: if nothing says what the benchmark is, for a fact that runs do not have, or for sinks
                without options.
            RunFolderError: if the folder holds anything, another process writes it, or it cannot be written.
        """
        if not isinstance(sinks or {}, Mapping):
            raise ConfigurationError(
                f"sinks are options by name, as in compose(['logger=[wandb]']).logger, not {sinks!r}"
            )
        described, written = describe(parts, config, settings or {}, facts)
        text = yaml.safe_dump(written, sort_keys=False)
        shown = {**written, "group": group_name(described, written)}
        with contextlib.ExitStack() as lock:
            lock.enter_context(RunLock(Path(path)).hold())
            results = cls(RunFolder(Path(path)), described, sinks=sinks, config=shown, progress=progress)
            results.folder.write_text("config.yaml", text)
            results._lock = lock.pop_all()
        return results

    def add_reference(self, reference: Reference) -> None:
        """Enter what a reference run reached."""
        self.evaluations.references[reference.name] = reference.accuracy
        average = float(reference.accuracy.mean())
        self.state.references[reference.name] = ReferenceAccuracy(reference.run_id, average)

    @contextlib.contextmanager
    def recording(self, steps: Sequence[int], tasks: int) -> Iterator[None]:
        """Open the sinks and the display for what happens inside; a failure there ends in `run.json`.

        Args:
            steps: optimizer steps that each experience takes.
            tasks: how many experiences are trained.

        Raises:
            RunFolderError: if this was done before.
        """
        if hasattr(self, "_rows"):
            raise RunFolderError(f"{self.folder.path} was recorded already; open new results for each run")
        self._rows = self._outlet.open(self.facts, self.capacity.entered, steps, self.tell, self._outcome)
        self._timer = Timer(self.state.seconds)
        try:
            with self.time("logging"):
                self._begin()
            work, spent = steps if len(steps) == tasks else [1] * tasks, self.state.seconds.total - self._told
            with self.display.over(work, self.trained_experiences, spent):
                yield
        except BaseException as error:
            if self.state.status != "complete":
                with contextlib.suppress(OSError):
                    self._rows.flush()
                self.state.error = str(error) or type(error).__name__
                with saving():
                    self._end(_status_after(error))
            raise
        finally:
            self._rows.close()
            self.state.seconds.logging += self._rows.seconds
            self.state.seconds.total += self._rows.seconds
            with contextlib.suppress(StorageError):
                self._write_record()  # once more: what the sinks had to say
            self._lock.close()

    def _outcome(self) -> Outcome:
        state = self.state
        return Outcome(
            state.status, state.metrics, state.zero_forgetting_verified, asdict(state.seconds), state.peak_memory_mb
        )

    def time(self, part: str) -> contextlib.AbstractContextManager[None]:
        """Count what happens inside as a part of :class:`Seconds`, and not as the part around it."""
        return self._timer.count(part)

    @contextlib.contextmanager
    def training(self, task: int) -> Iterator[None]:
        """Train up to a task inside."""
        self.task_in_training = task
        with self.time("train"):
            yield

    def epoch_ended(self, task: int, epoch: int, step: int, measured: Measured) -> None:
        """Enter what an epoch of training measured."""
        self._last_epoch = measured
        self._write_row(self.trained_tasks, epoch, step, task, "train", measured)
        self.display.show(loss=measured.loss, accuracy=measured.accuracy)

    def sparsified(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Enter which weights of each layer were active at one or more moments of training (see `sparsity.csv`)."""
        for whole, layers in self.sparsity.add(self.trained_tasks, rows):
            self._rows.write(whole)
            for layer in layers:
                self._rows.show(layer)
            self.display.show(sparsity=whole.value)

    def tested_within(self, epoch: int, step: int, measured: Mapping[int, Measured]) -> None:
        """Enter a test of the task in training and all before it."""
        before = {index: value.logits for index, value in measured.items() if index < self.trained_tasks}
        self.evaluations.add_within({index: value.accuracy for index, value in measured.items()}, before)
        for index, value in measured.items():
            self._write_row(self.trained_tasks, epoch, step, index, "test", value)
        accuracies = {index: value.accuracy for index, value in measured.items()}
        self._show_average(epoch, step, self.evaluations.average_accuracy(self.trained_tasks, accuracies))

    def _show_average(self, epoch: int, step: int, average: float) -> None:
        """Show the accuracy on all tasks so far, if it is known."""
        if not math.isnan(average):
            self._rows.show(Row(self.trained_tasks, epoch, step, self.trained_tasks - 1, "test", AVERAGE, average))

    def tested_untrained(self, measured: Mapping[int, Measured]) -> None:
        """Enter a test of all tasks before anything is trained; empty if there is none."""
        self.is_begun = True
        if measured:
            accuracy = [measured[task].accuracy for task in range(self.facts.n_tasks)]
            self.evaluations.references["untrained"] = np.array(accuracy)

    def trained(self, task: int, report: TaskReport, epochs: int, step: int) -> None:
        """Enter that training is finished up to a task.

        Args:
            task: the last that is learned.
            report: what the strategy has to report of it.
            epochs: what it was trained for.
            step: optimizer steps since the run began.
        """
        state = self.state
        self._fitted = math.nan if self._last_epoch is None else self._last_epoch.accuracy
        state.trained_experiences += 1
        state.trained_tasks = task + 1
        state.seconds.train -= report.search_seconds
        state.seconds.search += report.search_seconds
        state.task_seconds.append(state.seconds.train + state.seconds.search - sum(state.task_seconds))
        state.messages += report.messages
        if report.search is not None:
            state.searches.append(report.search)
        self.capacity.add(report.capacity, report.capacity_used)
        self._moment = (epochs, step)

    def validated(self, measured: Mapping[int, Measured]) -> None:
        """Enter the validation accuracy of some tasks: what hyper-parameters are chosen by."""
        for task, value in measured.items():
            self.evaluations.validation[task] = value.accuracy
            self._write_row(self.trained_tasks, *self._moment, task, "valid", value)

    def tested(self, measured: Mapping[int, Measured], identified: Mapping[int, float]) -> None:
        """Enter the test of some tasks after the last one was trained.

        Args:
            measured: loss, accuracy and logits by task.
            identified: the share of each task's samples whose task was inferred right; empty if none was inferred.
        """
        with self.time("logging"):
            task, where = self.trained_tasks - 1, (self.trained_tasks, *self._moment)
            accuracies = {index: value.accuracy for index, value in measured.items()}
            self.evaluations.add(task, accuracies, {index: value.logits for index, value in measured.items()})
            for index, value in measured.items():
                self._write_row(*where, index, "test", value)
            self.evaluations.identified.update(identified)
            for index, share in identified.items():
                self._rows.write(Row(*where, index, "test", "task_identification", share))
            self._rows.write(Row(*where, task, "train", "capacity_used", self.capacity.used))
            self._show_average(*self._moment, self.evaluations.average_accuracy(self.trained_tasks))
            # A prediction through another task's mask says nothing about the training.
            self._warn_of_guessing(task, None if identified else measured.get(task))
            self.tested_experiences = self.trained_experiences
            self.capacity.enter(self.trained_tasks)
            self.display.show(capacity=self.capacity.used)

    def _warn_of_guessing(self, task: int, tested: Measured | None) -> None:
        trained, self._last_epoch = self._last_epoch, None
        if trained is None:  # nothing was
            return
        split, learned = ("test", tested) if tested is not None else ("training", trained)
        if only_guesses(learned, trained):
            self.state.diverged_tasks.append(task)
            self.tell(
                f"task {task}: {split} accuracy {learned.accuracy:.3f} is no better than guessing: training diverged?"
            )

    def _write_row(self, trained: int, epoch: int, step: int, task: int, split: str, measured: Measured) -> None:
        values = {"loss": measured.loss, "accuracy": measured.accuracy}
        for metric in values if split == "train" else reversed(values):  # the order that `curves.csv` always had
            self._rows.write(Row(trained, epoch, step, task, split, metric, values[metric]))

    def pruned(self, measured: Mapping[float, Mapping[int, Measured]]) -> None:
        """Enter a test of the trained network, pruned to some densities without retraining, by density and task."""
        write_pruning(self.folder, self.facts.run_id, measured)

    def sync(self) -> None:
        """Bring sinks and files up to what is known.

        On a full disk, files wait for the next time: what cannot be done without is a checkpoint, or the end.
        """
        with self.time("logging"):
            self._rows.flush()
            with contextlib.suppress(StorageError):
                self.write()

    def flush(self) -> None:
        """Bring sinks and files up to what is known, and say how far the run is."""
        with self.time("logging"):
            self.sync()
            if self.trained_tasks:
                shares = self.capacity.used, self._fitted, self.sparsity.last
                line = task_line(self.facts, self.evaluations, self.trained_tasks, *shares)
                self.display.lines.write(line, self.trained_experiences)
                self._told = self.state.seconds.total

    def finish(self, summary: Summary, efficiency: Efficiency, cost: Cost) -> None:
        """Enter what is known at the end, compute the metrics, and mark the run complete."""
        with self.time("logging"):
            write_summary(self.folder, summary, cost)
            self.state.mask_coverage = summary.coverage
            self.state.exempt_layers = dict(efficiency.exempt_layers)
            measurements = self.evaluations.measurements(
                capacity_used=self.capacity.used,
                dense_weights=self.capacity.dense_weights,
                mask_bits=summary.mask_bits,
                **cost.metrics(),
                **efficiency.metrics(),
            )
            computed = [metric for metric in metrics().values() if metric.function is not None]
            self.state.metrics = {metric.name: self._compute(metric, measurements) for metric in computed}
            self.state.zero_forgetting_verified = self.evaluations.zero_forgetting
        self._end("complete")

    def _compute(self, metric: Metric, measurements: Measurements) -> float | None:
        """Return the metric's value; a function that fails costs this one number, not the run."""
        assert metric.function is not None
        try:
            value = metric.function(measurements)
            return value if value is None or isinstance(value, int) else float(value)
        except Exception as error:  # noqa: BLE001, RUF100 (it may be anybody's)
            self.tell(f"the metric {metric.name} failed and is left out: {type(error).__name__}: {error}")
            return None


def _status_after(error: BaseException) -> str:
    """Return the status of a run that an error has ended."""
    match error:
        case Interrupted() | KeyboardInterrupt():
            return "interrupted"
        case PrunedError():
            return "pruned"
    return "failed"
