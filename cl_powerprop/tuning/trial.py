"""One trial, in a process of its own: a run, whose results go to the study as they come."""

import contextlib
import logging
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cl_powerprop.composition import compose
from cl_powerprop.errors import DivergedError, InUseError, PrunedError, StorageError, UserError
from cl_powerprop.process import FAULT, leave_wandb
from cl_powerprop.record import Job
from cl_powerprop.registry import find_plugins, import_modules
from cl_powerprop.shown import as_line
from cl_powerprop.tuning.halving import halving
from cl_powerprop.tuning.objectives import NoValueError, parse_objectives
from cl_powerprop.tuning.study import fail
from cl_powerprop.tuning.study_file import ERROR, SECONDS, open_study, storing
from cl_powerprop.workers import Workers

log = logging.getLogger("cl_powerprop")

PRELOAD = ("optuna.storages", "sqlalchemy.dialects.sqlite", "cl_powerprop.tuning.trial")


@dataclass(frozen=True)
class Order:
    """What a process is told.

    Attributes:
        folder: of the study.
        number: of the trial, and the name of its run folder.
        entry: the trial's place in Optuna's file.
        name: what tells it from the others.
        overrides: of its config.
        objectives: as the command takes them.
        prunes: whether the trial may be ended after a task.
        modules: to import first.
    """

    folder: Path
    number: int
    entry: int
    name: str
    overrides: Sequence[str]
    objectives: str
    prunes: bool
    modules: Sequence[str]


def run_trial(order: Order, workers: Workers, before: int) -> bool:
    """Run a trial and tell the study what came of it; one that a signal ends stays unfinished there.

    Args:
        order: what to run.
        workers: the processes of all trials.
        before: how many processes have died of this trial before; it goes on from its checkpoint in any case.

    Returns:
        Whether it has failed because an objective has no value.

    Raises:
        StorageError: if the disk is full, say; the trial goes on when there is room.
        Interrupted: by a signal.
    """
    try:
        with workers.at_work():
            find_plugins(warn=False)
            import_modules(order.modules)
            job = Job(order.number, order.name, live=False, kind="trial")
            with _named(job.title):
                return _run(order, job)
    finally:
        leave_wandb(FAULT)


@contextlib.contextmanager
def _named(title: str) -> Iterator[None]:
    """Let warnings inside say which trial they are of: several run at a time."""

    def name(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        record.msg, record.args = message if message.startswith(title) else f"{title}: {message}", ()
        return True

    log.addFilter(name)
    try:
        yield
    finally:
        log.removeFilter(name)


def _run(order: Order, job: Job) -> bool:
    from optuna.trial import Trial, TrialState

    from cl_powerprop.experiment import run

    objectives = parse_objectives(order.objectives)
    study = open_study(order.folder, objectives)
    trial = study.get_trials(deepcopy=False)[order.entry]
    if trial.state.is_finished():  # its process has died when all was done
        return False
    try:
        result = run(
            compose(order.overrides),
            order.folder / str(order.number),
            quiet=True,
            multirun=order.folder.name,
            job=job,
            watch=halving(study, order.entry) if order.prunes else None,
        )
        values = [objective.of(result.record) for objective in objectives]
    except PrunedError:
        with storing():
            study.tell(order.entry, state=TrialState.PRUNED)
    except DivergedError as error:  # as bad as settings can be, which the search is to learn from
        with storing():
            Trial(study, trial._trial_id).set_user_attr(ERROR, as_line(str(error)))
            study.tell(order.entry, state=TrialState.PRUNED)
    except (StorageError, InUseError):  # for the command to decide
        raise
    except Exception as error:  # noqa: BLE001, RUF100 (whatever it is, it costs no other trial)
        if not isinstance(error, UserError):
            traceback.print_exception(error)
        with storing():
            fail(study, order.entry, str(error) or type(error).__name__)
        return isinstance(error, NoValueError)
    else:
        with storing():
            Trial(study, trial._trial_id).set_user_attr(SECONDS, float(result.record["seconds"]["total"]))
            study.tell(order.entry, values)
    return False
