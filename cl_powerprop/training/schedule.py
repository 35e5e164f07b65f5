"""Learning-rate schedules over a task; the rate is set in every step."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from avalanche.core import SupervisedPlugin

from cl_powerprop.limits import check_schedule
from cl_powerprop.training.phase import Phase
from cl_powerprop.training.rates import set_rates


class LearningRateSchedule(SupervisedPlugin):  # type: ignore[misc]
    """Runs a schedule over each phase of every task: "constant", or "cosine" down to zero.

    Args:
        schedule: one of :data:`~cl_powerprop.limits.SCHEDULES`.
        phases: the phases of a task, such as training and retraining; together they have the epochs of the task.
        warmup: share of a phase, in [0, 1), over which the rate first rises linearly from zero.
        steps: of a task, which its phases then share; None if they last the epochs that they say.

    Raises:
        ConfigurationError: for an unknown schedule, or a warm-up outside [0, 1).
    """

    def __init__(self, schedule: str, phases: Sequence[Phase], warmup: float = 0.0, steps: int | None = None) -> None:
        super().__init__()
        check_schedule(schedule, warmup)
        self.schedule = schedule
        self.phases = list(phases)
        self.warmup = warmup
        self.steps = steps
        self._base: list[float] = []
        self._skipped = 0  # steps of the first phase that were not made

    def factor(self, epoch: float) -> float:
        """Return the factor of the base rate at a point of the task, counted in epochs (fractions included)."""
        for phase in self.phases:
            if epoch < phase.epochs:
                done = epoch / phase.epochs
                rise = min(done / self.warmup, 1.0) if self.warmup else 1.0
                fall = 0.5 * (1.0 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1.0
                return phase.scale * rise * fall
            epoch -= phase.epochs
        return 0.0

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Restart the schedule for the task."""
        if not self._base:
            self._base = [float(group["lr"]) for group in strategy.optimizer.param_groups]
        self._skipped = 0

    def retraining_begins(self, strategy: Any, **_: Any) -> None:
        """Go to the second phase, though the first may have been stopped early."""
        planned = round(self.phases[0].epochs * len(strategy.dataloader))
        self._skipped = planned - strategy.clock.train_exp_iterations

    def graph_tensors(self, strategy: Any) -> tuple[()]:
        return ()

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Set the rate of this step: the schedule's value at the middle of the step."""
        step = strategy.clock.train_exp_iterations + self._skipped
        factor = self.factor((step + 0.5) / self._steps_an_epoch(strategy))
        set_rates(strategy.optimizer, [base * factor for base in self._base])

    def stack_key(self, strategy: Any) -> Hashable:
        """Return what learners have in common whose rates are the same."""
        phases = tuple((phase.epochs, phase.scale) for phase in self.phases)
        return self.schedule, phases, self.warmup, self.steps, tuple(self._base), self._skipped

    def stack(self, together: Any, schedules: Sequence["LearningRateSchedule"]) -> dict[str, Callable[[], None]]:
        """Set the rates of the first learner, which the others follow."""
        return {"before_training_iteration": lambda: self.before_training_iteration(together.learners[0])}

    def task_progress(self) -> dict[str, Any]:
        """Return the steps that were left out of the first phase."""
        return {"skipped": self._skipped}

    def load_task_progress(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`task_progress` returned."""
        self._skipped = state["skipped"]

    def _steps_an_epoch(self, strategy: Any) -> float:
        if self.steps is None:
            return len(strategy.dataloader)
        return self.steps / sum(phase.epochs for phase in self.phases)
