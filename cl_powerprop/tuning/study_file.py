"""Optuna's SQLite file of a study: read only if it is what `tune` writes, and its errors as one line."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import ConfigurationError, RunFolderError, StorageError
from cl_powerprop.files import is_file
from cl_powerprop.launching.job_list import STUDY
from cl_powerprop.shown import as_line
from cl_powerprop.tuning.objectives import Objective
from cl_powerprop.tuning.ranges import Range

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.trial import FrozenTrial

OWN = (STUDY, f"{STUDY}-journal", f"{STUDY}-wal", f"{STUDY}-shm")  # with what SQLite has beside it

# Attributes of a trial: what its config is known by; what it failed of, or that it diverged; how long it took; it
# has the settings as they are without the ranges; it tries again what the trial of this number has failed of.
CONFIG, ERROR, SECONDS, DEFAULTS, AGAIN = "config", "error", "seconds", "defaults", "again"

_NAME = "tune"
_PATIENCE = 60.0  # seconds that a process waits for others to write


def check_optuna() -> None:
    """Make sure that Optuna is installed.

    Raises:
        ConfigurationError: if it is not.
    """
    try:
        import optuna
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(f"tune needs {error.name}: pip install 'cl-powerprop[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def is_new(folder: Path) -> bool:
    """Return whether a folder has no study yet; an empty file is one that a kill has left as it was made."""
    file = folder / STUDY
    return not os.path.lexists(file) or (is_file(file) and not file.stat().st_size)


def open_study(folder: Path, objectives: Sequence[Objective]) -> OptunaStudy:
    """Return the study of a folder; a new one if there is none.

    Raises:
        RunFolderError: if its file cannot be read or written.
    """
    check_optuna()
    import optuna
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import SQLAlchemyError

    for name in OWN:
        file = folder / name
        if os.path.lexists(file) and not is_file(file):
            raise RunFolderError(f"{file} is a link, or no file; remove it")
    file = folder / STUDY
    if file.exists():
        _check_database(file)
    url = URL.create("sqlite", database=str(file.absolute())).render_as_string(hide_password=False)
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _PATIENCE}})
        directions = [objective.direction for objective in objectives]
        return optuna.create_study(storage=storage, study_name=_NAME, directions=directions, load_if_exists=True)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, OSError, LookupError, ValueError) as error:
        raise RunFolderError(f"{file} cannot be read or written: {_reason(error)}") from error


def _check_database(file: Path) -> None:
    """Refuse a database in which Optuna's tables would be another program's, or do something when they are read."""
    try:
        # To be written, if it can be: what a kill has left half-written is put right when it is opened.
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as database:
            kinds = dict(database.execute("SELECT name, type FROM sqlite_master"))
    except sqlite3.Error as error:
        raise RunFolderError(f"{file} cannot be read or written: {error}") from error
    if kinds and ("studies" not in kinds or not {"table", "index"}.issuperset(kinds.values())):
        raise RunFolderError(f"{file} is no study of cl-powerprop tune, but another program's")


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """Let what is inside write to the study.

    Raises:
        StorageError: if it cannot, as on a full disk.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StorageError(f"{STUDY} of the study cannot be written: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return what SQLite has said, without the statement that it was told."""
    while error.__cause__ is not None:
        error = error.__cause__
    return as_line(str(getattr(error, "orig", None) or error).partition("\n")[0])


def number_of(trial: FrozenTrial) -> int:
    """Return what a trial is called: one that is tried again keeps its number, and has another entry in the file."""
    number: int = trial.user_attrs.get(AGAIN, trial.number)
    return number


def check_trials(
    study: OptunaStudy,
    file: Path,
    ranges: Mapping[str, Range],
    objectives: Sequence[Objective],
) -> None:
    """Refuse trials that `tune` does not write: the file may be damaged, or anybody's.

    Args:
        study: that holds them.
        file: what messages call it.
        ranges: of the options that are tuned.
        objectives: what is measured.

    Raises:
        RunFolderError: naming a trial, and what is wrong with it.
    """
    try:
        trials = study.get_trials(deepcopy=False)
        found = (
            f"trial {trial.number} {wrong}"
            for trial in trials
            if (wrong := _wrong_with(trial, ranges, len(objectives)))
        )
        wrong = next(found, None)
        if [direction.name.lower() for direction in study.directions] != [each.direction for each in objectives]:
            wrong = "it has other directions than its objectives"
        elif [trial.number for trial in trials] != list(range(len(trials))):
            wrong = "a trial is missing"
    except Exception as error:  # noqa: BLE001, RUF100 (what Optuna makes of a damaged row may be anything)
        wrong = as_line(str(error).partition("\n")[0]) or f"a row cannot be read ({type(error).__name__})"
    if wrong:
        raise RunFolderError(f"{file} is damaged, or no study of cl-powerprop tune: {wrong}")


def _wrong_with(trial: FrozenTrial, ranges: Mapping[str, Range], objectives: int) -> str | None:
    from optuna.trial import TrialState

    if trial.state == TrialState.WAITING:
        return "was not begun"
    if trial.params.keys() != ranges.keys():
        return "has other options"
    if not all(ranges[key].has(value) for key, value in trial.params.items()):
        return "has values of other ranges"
    if trial.state == TrialState.COMPLETE and not _are_numbers(trial.values or (), objectives):
        return "has other values than its objectives"
    reports = trial.intermediate_values
    if not _are_numbers(reports.values(), len(reports)) or any(task < 1 for task in reports):
        return "has impossible reports"
    if trial.state == TrialState.PRUNED and not reports and ERROR not in trial.user_attrs:
        return "has no report that it was pruned by"
    about = trial.user_attrs
    kinds = {CONFIG: str, ERROR: str, SECONDS: float, DEFAULTS: bool, AGAIN: int}
    if any(not isinstance(about[key], kind) for key, kind in kinds.items() if key in about):
        return "has impossible attributes"
    if AGAIN in about and not 0 <= about[AGAIN] < trial.number:
        return "tries again what does not exist"
    return None


def _are_numbers(values: Any, count: int) -> bool:
    return len(values) == count and all(math.isfinite(value) for value in values)
