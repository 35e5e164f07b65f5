"""One trial, in a process of its own: a run, whose results go to the study as they come."""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_powerprop.composition import compose
from cl_powerprop.errors import DivergedError, PrunedError, StorageError, UserError
from cl_powerprop.interrupts import listening
from cl_powerprop.process import FAULT, complain, leave_wandb
from cl_powerprop.record import Job
from cl_powerprop.registry import import_modules
from cl_powerprop.tuning.objectives import DEFAULT, parse_objectives
from cl_powerprop.tuning.processes import end_with_parent
from cl_powerprop.tuning.study import fail, open_study

PRELOAD = ("optuna", "cl_powerprop.experiment", "cl_powerprop.tuning.trial")


@dataclass(frozen=True)
class Order:
    """What a process is told.

    Attributes:
        folder: of the study.
        number: of the trial, and the name of its run folder.
        name: what tells it from the others.
        overrides: of its config.
        objectives: as the command takes them.
        prunes: whether the trial may be ended after a task.
        modules: to import first.
    """

    folder: Path
    number: int
    name: str
    overrides: Sequence[str]
    objectives: str
    prunes: bool
    modules: Sequence[str]


def can_prune(objectives: Sequence[Any]) -> bool:
    """Return whether a trial can be judged before it ends: by validation accuracy, if that is all that counts."""
    return [objective.metric.name for objective in objectives] == [DEFAULT]


def run_trial(order: Order) -> None:
    """Run a trial and tell the study what came of it; one that a signal ends stays unfinished there."""
    with listening(ends=True):
        end_with_parent()
        try:
            import_modules(order.modules)
            _run(order)
        except StorageError as error:  # the same trial goes on when there is room
            sys.exit(complain(f"trial {order.number}: {error}", FAULT))
        finally:
            leave_wandb(FAULT)


def _run(order: Order) -> None:
    from optuna.trial import Trial, TrialState

    from cl_powerprop.experiment import run

    objectives = parse_objectives(order.objectives)
    study = open_study(order.folder, objectives)
    trial = Trial(study, study.get_trials(deepcopy=False)[order.number]._trial_id)
    try:
        result = run(
            compose(order.overrides),
            order.folder / str(order.number),
            quiet=True,
            multirun=order.folder.name,
            job=Job(order.number, order.name, live=False),
            watch=_halving(trial) if order.prunes else None,
        )
        values = [objective.of(result.record) for objective in objectives]
        trial.set_user_attr("seconds", result.record["seconds"]["total"])
    except PrunedError:
        study.tell(order.number, state=TrialState.PRUNED)
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001, RUF100 (whatever it is, it costs no other trial)
        if not isinstance(error, UserError | DivergedError):
            traceback.print_exception(error)
        fail(study, order.number, str(error) or type(error).__name__)
    else:
        study.tell(order.number, values)


def _halving(trial: Any) -> Callable[[Any], None]:
    """Return what reports the validation accuracy on all tasks so far, and ends a trial that is in the worse half."""

    def watch(results: Any) -> None:
        validation = results.evaluations.validation
        if not validation:
            return
        accuracy = sum(validation.values()) / len(validation)
        trial.report(accuracy, step=results.trained_tasks)
        if trial.should_prune():
            raise PrunedError(f"validation accuracy {accuracy:.4f} is in the worse half of the trials so far")

    return watch
