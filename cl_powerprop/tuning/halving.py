"""Successive halving: after 1, 2, 4, 8, ... tasks, the trials in the worse half end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import PrunedError
from cl_powerprop.tuning.objectives import DEFAULT, Objective
from cl_powerprop.tuning.study_file import DEFAULTS, number_of, storing

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy


def can_prune(objectives: Sequence[Objective]) -> bool:
    """Return whether a trial can be judged before it ends: by validation accuracy, if that is all that counts.

    With several objectives it cannot: the worst in one of them may be the best in another.
    """
    return [objective.metric.name for objective in objectives] == [DEFAULT]


def is_in_better_half(accuracy: float, others: Sequence[float]) -> bool:
    """Return whether a trial is among the better half of those that came so far, itself counted; the first one is."""
    reached = sorted([*others, accuracy], reverse=True)
    return accuracy >= reached[max(1, len(reached) // 2) - 1]


def is_judged_after(tasks: int) -> bool:
    """Return whether trials end after so many tasks: a power of two."""
    return tasks & (tasks - 1) == 0


def halving(study: OptunaStudy, entry: int) -> Callable[[Any], None]:
    """Return what reports the validation accuracy on all tasks so far, and ends a trial in the worse half.

    Called again for the same task, as by a run that goes on from a checkpoint, it judges by the same reports. The trial
    with the defaults goes on in any case, for it is what the others are compared with.

    Args:
        study: that holds the trial.
        entry: the trial's place in it.

    Raises:
        StorageError: by what is returned, if nothing can be written.
    """
    from optuna.trial import Trial

    def watch(results: Any) -> None:
        validation = results.evaluations.validation
        if not validation:
            return
        accuracy, tasks = sum(validation.values()) / len(validation), results.trained_tasks
        with storing():
            trials = study.get_trials(deepcopy=False)
            own = trials[entry]
            if tasks not in own.intermediate_values:
                Trial(study, own._trial_id).report(accuracy, step=tasks)
        reports = {
            number_of(trial): trial.intermediate_values[tasks] for trial in trials if tasks in trial.intermediate_values
        }
        reports.pop(number_of(own), None)
        may_end = DEFAULTS not in own.user_attrs and is_judged_after(tasks)
        if may_end and not is_in_better_half(accuracy, [*reports.values()]):
            raise PrunedError(f"validation accuracy {accuracy:.4f} is in the worse half of the trials so far")

    return watch
