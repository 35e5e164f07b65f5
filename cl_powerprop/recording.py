"""A run folder and dashboards for a training loop of one's own: a plugin that records what Avalanche trains and tests.

:func:`~cl_powerprop.learning.learn` is the loop itself; here the loop is the user's, and the plugin follows its events.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from avalanche.core import SupervisedPlugin

from cl_powerprop.config import RunConfig
from cl_powerprop.errors import ConfigurationError, DivergedError
from cl_powerprop.evaluation.cost import measure_cost
from cl_powerprop.learning import refuse_trained
from cl_powerprop.parts import Parts
from cl_powerprop.results.efficiency import measure_efficiency
from cl_powerprop.results.results import Results
from cl_powerprop.tracking.stream import SinkConfig
from cl_powerprop.training.meters import EvaluationMeter, Measured, TrainingMeter
from cl_powerprop.training.sparsity_meter import SparsityMeter

_STREAMS = ("valid", "test")


class RecordingPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Records a run of any Avalanche strategy in a run folder, and sends it to W&B and TensorBoard.

    It measures by itself what is trained, and what ``strategy.eval`` is given of the benchmark's streams valid and
    test. A task is written when the next one begins. The run is complete with the first test of all tasks after the
    last one was trained; :meth:`close`, or the end of a ``with`` statement, ends it where not all are tested.

    Put it first among the plugins: it then sees the outputs before another plugin changes them.

    Args:
        path: of the run folder.
        benchmark: Avalanche's, whose streams train, test and, if there is one, valid have an experience for each task.
        config, settings, sinks, facts: see :meth:`~cl_powerprop.results.results.Results.open`. Without a config, facts
            say what the benchmark is, as in ``benchmark="split_cifar"``.

    Attributes:
        results: of the run; None before the first training or test.

    Raises (from the first ``train`` or ``eval``):
        ConfigurationError: if nothing says what the benchmark is, tasks come in another order than the stream's, or the
            learner has trained before.
        RunFolderError: if the folder holds anything, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        benchmark: Any,
        /,
        *,
        config: RunConfig | None = None,
        settings: Mapping[str, Any] | None = None,
        sinks: Mapping[str, SinkConfig] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__()
        self.results: Results | None = None
        self._path = Path(path)
        self._benchmark = benchmark
        self._about: dict[str, Any] = {"config": config, "settings": settings, "sinks": sinks, **facts}
        self._parts: Parts
        self._recording = contextlib.ExitStack()  # open from the first event to the end of the run
        self._train_time, self._eval_time = contextlib.ExitStack(), contextlib.ExitStack()
        self._training = TrainingMeter(self._epoch_ended)
        self._evaluation = EvaluationMeter()
        self._sparsity: SparsityMeter | None = None
        # By task, since the last training, and within it.
        self._tested: dict[str, dict[int, Measured]] = {name: {} for name in _STREAMS}
        self._within: dict[int, Measured] = {}
        self._is_measured = False
        self._task = -1  # the last that was trained, or is in training
        self._epochs = self._steps = 0  # of this task; of the run
        self._diverged = -1  # the last task whose loss was not finite
        self._is_entered = True  # what was measured of it is in the results
        self._in_training = False
        self._is_over = False

    def __enter__(self) -> RecordingPlugin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._fail(error)

    def close(self) -> None:
        """End the run: complete if all tasks were trained, else failed. A run that is over is left alone."""
        if self.results is None or self._is_over:
            return
        self._enter_task()
        trained, tasks = self.results.trained_tasks, self._parts.n_tasks
        if trained < tasks:
            return self._fail(RuntimeError(f"the run was ended after {trained} of {tasks} tasks"))
        self._end()
        with self._recording:
            model = self._parts.learner.model
            summary = self._parts.strategy.summary(model)
            cost = measure_cost(model, summary.buffer_bits, summary.importance_bits)
            self.results.finish(summary, measure_efficiency(self._parts, self.results.capacity.rows), cost)

    def _fail(self, error: BaseException) -> None:
        """Mark the run failed."""
        if self.results is None or self._is_over:
            return
        self._enter_task()
        self._end()
        with contextlib.suppress(type(error)), self._recording:
            raise error

    def _end(self) -> None:
        self._is_over = True
        atexit.unregister(self.close)
        self._train_time.close()
        self._eval_time.close()

    def _open(self, strategy: Any) -> Results:
        """Return the run's results, which the first event opens."""
        if self.results is None:
            refuse_trained(strategy)
            self._parts = Parts(self._benchmark, strategy)
            results = Results.open(self._path, self._parts, progress=False, **self._about)
            self._recording.enter_context(results.recording(self._parts.steps(), self._parts.n_tasks))
            self.results = results
            if self._parts.sparsity is not None:
                self._sparsity = SparsityMeter(self._parts.sparsity, results.sparsified)
            atexit.register(self.close)
        return self.results

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Enter the task before, and begin with the next one.

        Raises:
            ConfigurationError: if the run is over, an earlier task is trained again, or one is left out.
        """
        results = self._open(strategy)
        if self._is_over:
            raise ConfigurationError(
                f"the run in {self._path} is over; another one needs a new plugin, learner and network"
            )
        first, task = _tasks_of(strategy)
        if task < self._task or first > self._task + 1:
            before = "no other" if self._task < 0 else f"task {self._task}"
            raise ConfigurationError(f"task {first} is trained after {before}; a run learns all tasks in their order")
        if task > self._task or any(self._tested.values()):  # else it is only a further part of the same task
            self._enter_task()
            self._epochs = 0
        self._task, self._is_entered, self._in_training = task, False, True
        self._train_time.enter_context(results.training(task))

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Begin to measure."""
        self._training.before_training_epoch(strategy)

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Measure the batch, if its outputs are those of a classifier."""
        self._steps += 1
        if _classifies(strategy):
            self._training.after_training_iteration(strategy)

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Record loss and accuracy; a loss that is not finite is told, and the user's training goes on."""
        self._epochs += 1
        try:
            self._training.after_training_epoch(strategy)
        except DivergedError as error:
            if self.results is not None and self._diverged != self._task:
                self._diverged = self._task
                self.results.tell(str(error))

    def _epoch_ended(self, _: int, __: int, step: int, measured: Measured) -> None:
        assert self.results is not None
        self.results.epoch_ended(self._task, self._epochs, step, measured)

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """End the training. What is to be reported of it may be known only after other plugins were called."""
        self._in_training = False
        self._train_time.close()

    def before_eval(self, strategy: Any, **_: Any) -> None:
        """Begin a test."""
        results = self._open(strategy)
        self._evaluation.before_eval(strategy)
        self._within = {}
        if not self._is_over:
            self._eval_time.enter_context(results.time("eval"))

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Begin to measure a task."""
        self._evaluation.before_eval_exp(strategy)
        self._is_measured = False

    def after_eval_forward(self, strategy: Any, **_: Any) -> None:
        """Keep the outputs, before another plugin changes them."""
        if self._measures(strategy):
            self._evaluation.after_eval_forward(strategy)

    def after_eval_iteration(self, strategy: Any, **_: Any) -> None:
        """Measure the batch."""
        if self._measures(strategy):
            self._evaluation.after_eval_iteration(strategy)
            self._is_measured = True

    def _measures(self, strategy: Any) -> bool:
        return not self._is_over and _stream_of(strategy.experience) in _STREAMS and _classifies(strategy)

    def after_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Take what was measured of a task."""
        if not self._is_measured:
            return
        self._evaluation.after_eval_exp(strategy)
        task = strategy.experience.current_experience
        measured = self._evaluation.measured[task]
        if task > self._task and not self._parts.strategy.tests_unseen:
            return  # a task without a mask is tested with the network as it is, which says nothing
        stream = _stream_of(strategy.experience)
        if not self._in_training:
            self._tested[stream][task] = measured
        elif stream == "test" and task <= self._task:
            self._within[task] = measured

    def after_eval(self, strategy: Any, **_: Any) -> None:
        """Record a test within a task; end the run with the test of all tasks after the last one was trained."""
        if self._is_over:
            return
        self._eval_time.close()
        assert self.results is not None
        if self._within:
            self.results.tested_within(self._epochs, self._steps, self._within)
        tasks = self._parts.n_tasks
        if not self._in_training and self._task + 1 == len(self._tested["test"]) == tasks:
            self.close()

    def _enter_task(self) -> None:
        """Enter the task that was trained, with all that was measured since."""
        results, strategy, tested = self.results, self._parts.strategy, self._tested
        assert results is not None
        if self._task < 0 and strategy.tests_unseen and len(tested["test"]) == self._parts.n_tasks:
            results.tested_untrained(tested["test"])
        if not self._is_entered and not self._in_training:
            if self._sparsity is not None:
                self._sparsity.take()
            results.trained(self._task, strategy.report(), self._epochs, self._steps)
            results.validated(tested["valid"])
            results.tested(tested["test"], strategy.identified() if tested["test"] else {})
            results.flush()
            self._is_entered = True
        self._tested = {name: {} for name in _STREAMS}


def _stream_of(experience: Any) -> str:
    return str(getattr(experience.origin_stream, "name", ""))


def _classifies(strategy: Any) -> bool:
    """Return whether there are outputs ``[n, classes]`` for ``[n]`` labels."""
    shape = getattr(strategy.mb_output, "shape", ())
    return len(shape) == 2 and shape[:1] == strategy.mb_y.shape


def _tasks_of(strategy: Any) -> tuple[int, int]:
    """Return the index of the first and of the last task that is in training."""
    # Avalanche's JointTraining trains all of its experiences at once, and says that it is the first.
    experiences = getattr(strategy, "_experiences", None) or [strategy.experience]
    # An experience of an online stream is a part of another one.
    tasks = [int(getattr(each, "origin_experience", each).current_experience) for each in experiences]
    return min(tasks), max(tasks)
