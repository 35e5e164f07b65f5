"""When a run writes a checkpoint: at a moment at which its state is whole, if one is due or a signal asks for it."""

import contextlib
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from avalanche.core import SupervisedPlugin

from cl_powerprop import interrupts
from cl_powerprop.process_group import highest, wait_for_all
from cl_powerprop.torchrun import place
from cl_powerprop.training.measure import Measure
from cl_powerprop.training.task_state import TaskState, fitting

_FIRST = 0.025  # seconds that the first checkpoint is taken to last


class Reach(IntEnum):
    """Where a run can go on; each includes those before it."""

    NOWHERE = 0
    TASKS = 1  # between two tasks
    EPOCHS = 2  # between two epochs of a task
    ANYWHERE = 3  # between two steps, within a search, and within an evaluation


class Checkpoints(SupervisedPlugin):  # type: ignore[misc]
    """Writes checkpoints while a learner trains and is tested, and goes on from one. It comes after all other plugins.

    One is due a number of epochs, or seconds, after the last one, and at the end of each task. It is written at the
    next moment at which the state is whole: after a step or an epoch, before a search or within it, after training,
    within an evaluation, or between tasks. All of them together take no more than a share of the time. A signal that
    stops the run has one written at the next moment, whatever is due (see :mod:`cl_powerprop.interrupts`).

    Args:
        write: called as ``write(state of the task in training)`` to write a checkpoint; the state is empty if none is.
        reach: where the run can go on.
        every_epochs, every_seconds: how long after the last one it is due; None for never.
        max_share: of the time that checkpoints may take; 1 for no limit.
        go_on: puts the network of a checkpoint within a task in, once that task has begun, and returns the task's
            state; None if there is none to go on from.
        measured: the state of :class:`Measure` to go on from; empty for none.
        source: what messages call the checkpoint to go on from.
    """

    comes_last = True

    def __init__(
        self,
        write: Callable[[dict[str, Any]], None],
        reach: Reach,
        *,
        every_epochs: int | None = 1,
        every_seconds: float | None = None,
        max_share: float = 1.0,
        go_on: Callable[[], Mapping[str, Any]] | None = None,
        measured: Mapping[str, Any] | None = None,
        source: str = "the checkpoint",
    ) -> None:
        super().__init__()
        self.reach = reach
        self._write = write
        self._every_epochs = math.inf if every_epochs is None else every_epochs
        self._every_seconds = math.inf if every_seconds is None else every_seconds
        self._max_share = max_share
        self._go_on = go_on
        self._measured = measured or {}
        self._source = source
        self._begun: Mapping[str, Any] = {}  # the state of a task that this run goes on from, until its epoch has begun
        self._task: TaskState | None = None  # in training
        self._measure: Measure | None = None
        self._epochs = 0.0  # since the last checkpoint
        self._start = self._last = time.perf_counter()
        self.seconds = 0.0  # that were spent
        self._cost = _FIRST  # of the last one
        self._due = 0.0
        self._schedule()

    def watch(self, measure: Measure) -> None:
        """Also write checkpoints while tasks are measured by this object, which goes on with what was measured."""
        self._measure = measure
        with fitting(self._source):
            measure.load_state_dict(self._measured)

    def measured(self) -> dict[str, Any]:
        """Return what was measured, and is not in the run's results yet."""
        return {} if self._measure is None else self._measure.state_dict()

    def _schedule(self) -> None:
        wanted = -math.inf if self._epochs >= self._every_epochs else self._last + self._every_seconds
        allowed = -math.inf
        if self._max_share < 1.0:
            allowed = self._start + self._seconds_then / self._max_share
        self._due = max(wanted, allowed)

    @property
    def _seconds_then(self) -> float:
        """What will have been spent after another checkpoint, and after the network is saved at the end."""
        return self.seconds + 2.0 * self._cost

    @property
    def can_afford(self) -> bool:
        """Whether another checkpoint would keep to the share of the time that they may take."""
        now = time.perf_counter()
        return self._max_share >= 1.0 or self._seconds_then <= self._max_share * (now - self._start)

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time that passes inside as that of a checkpoint; no signal but SIGKILL interrupts it."""
        start = time.perf_counter()
        try:
            with interrupts.saving():
                yield
        finally:
            self._cost = time.perf_counter() - start
            self.seconds += self._cost
            self._schedule()

    def _is_whole(self, needed: Reach) -> bool:
        task = self._task
        return self.reach >= needed and (task is None or not task.in_epoch or task.can_be_within_epoch)

    def moment(self, needed: Reach = Reach.ANYWHERE) -> None:
        """Write a checkpoint if it is time for one, or a signal has arrived, be it in another process of the run.

        Args:
            needed: the reach that a run needs to go on from here.

        Raises:
            Interrupted: if a signal has arrived; afterwards.
        """
        is_whole = self._is_whole(needed)
        asked = highest(interrupts.requested()) if is_whole else interrupts.requested()
        if not asked and time.perf_counter() < self._due:
            return
        if is_whole:
            self._save()
            if asked:
                wait_for_all()  # the first process has written it
                interrupts.request(asked)
            if asked or place().ranks == 1:  # also for a signal that has arrived meanwhile
                interrupts.check()
        elif asked and self.reach == Reach.NOWHERE:  # there is nothing to wait for
            interrupts.check()

    def _save(self) -> None:
        with self.spending():
            self._write({} if self._task is None else self._task.state_dict())
            self._epochs, self._last = 0.0, time.perf_counter()

    def task_ended(self) -> None:
        """Write a checkpoint between two tasks, if there is time for one."""
        self._epochs = self._every_epochs
        self._schedule()
        self.moment(Reach.TASKS)

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Go on within the task, if a state was given."""
        self._task = TaskState(strategy)
        if self._go_on is not None:
            with fitting(self._source):
                self._begun, self._go_on = self._go_on(), None
                self._task.load(self._begun)

    def epoch_begins(self, strategy: Any, **_: Any) -> None:
        """Go on within the epoch, if the state is of a moment within one."""
        assert self._task is not None
        self._task.epoch_begins()
        begun, self._begun = self._begun, {}
        with fitting(self._source):
            self._task.load_epoch(begun)

    def graph_tensors(self, strategy: Any) -> tuple[()]:
        return ()

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Write a checkpoint between two steps."""
        if interrupts.requested() or time.perf_counter() >= self._due:
            self.moment()

    def stack_key(self, strategy: Any) -> Hashable:
        """Return what learners have in common that train together."""
        return ()

    def stack(self, together: Any, plugins: Sequence["Checkpoints"]) -> dict[str, Callable[[], None]]:
        """Write none within an epoch that several learners train together."""
        return {}

    def can_save(self, strategy: Any, **_: Any) -> None:
        """Write a checkpoint at a moment of a plugin's own, after the last step of an epoch."""
        if self._task is not None and self._task.in_epoch:
            self.moment()

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Write a checkpoint between two epochs, or at the end of the task's training."""
        assert self._task is not None
        self._task.epoch_ended()
        self._epochs += 1
        self._schedule()
        ends = strategy._stop_training or strategy.clock.train_exp_epochs >= strategy.train_epochs
        self.moment(Reach.ANYWHERE if ends else Reach.EPOCHS)

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Note that no task is in training."""
        self._task = None

    def after_eval_iteration(self, strategy: Any, **_: Any) -> None:
        """Write a checkpoint within an evaluation; the task that is tested will be tested again."""
        if self._measure is not None and self._measure.is_on:
            self.moment()

    def after_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Write a checkpoint between two tasks of an evaluation."""
        self.after_eval_iteration(strategy)
