"""`cl-powerprop tune`: start trials until there are enough, and report what they reached."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cl_powerprop import naming
from cl_powerprop.composition import compose
from cl_powerprop.config import parallel_jobs
from cl_powerprop.errors import ConfigurationError, FileError, RunFolderError, StorageError
from cl_powerprop.interrupts import Interrupted, telling
from cl_powerprop.launching.engine import Call, Outcome, outcomes
from cl_powerprop.launching.job_list import NAME, WAITING, ListedJob, add_jobs, read_jobs
from cl_powerprop.launching.processes import ProcessEngine, how_it_ended
from cl_powerprop.output import say
from cl_powerprop.registry import imported_modules
from cl_powerprop.run_lock import RunLock, holder_of
from cl_powerprop.torchrun import place
from cl_powerprop.tuning.checking import check_space
from cl_powerprop.tuning.defaults import find_defaults
from cl_powerprop.tuning.halving import can_prune
from cl_powerprop.tuning.objectives import parse_objectives
from cl_powerprop.tuning.report import state_of, trial_line, write_report, write_table
from cl_powerprop.tuning.settings import settings_hash, settings_of
from cl_powerprop.tuning.space import Space, parse_space
from cl_powerprop.tuning.study import Study
from cl_powerprop.tuning.study_file import ERROR, check_optuna, number_of, storing
from cl_powerprop.tuning.trial import PRELOAD, Order, run_trial
from cl_powerprop.workers import Workers

if TYPE_CHECKING:
    from cl_powerprop.tuning.ranges import Value

_RETRIES = 1  # of a trial whose process has died
_PATIENCE, _LOOK = 15.0, 0.1  # seconds that processes without a command have to end, and between two looks


def tune(
    words: Sequence[str],
    trials: int,
    objective: str,
    jobs: int | None = None,
    prunes: bool = True,
    retries_failed: bool = False,
    brief: bool = False,
) -> int:
    """Run trials of the settings that some overrides leave open, until the study has so many; return the exit code.

    Args:
        words: overrides, of which some have ranges; `run_dir` is the folder of the study.
        trials: how many it is to have, those before counted.
        objective: what is tuned for, see :func:`~cl_powerprop.tuning.objectives.parse_objectives`.
        jobs: how many run at a time; None for as many as a multirun would.
        prunes: end trials after a task if they are not among the best so far.
        retries_failed: run those that failed before once more.
        brief: leave the table of trials only, for a command of which the study is a part.

    Raises:
        UserError: for settings that no trial can have, a missing extra, or a folder that holds something else.
        StorageError: if something cannot be written, as on a full disk; the same command goes on.
        Interrupted: by a signal; the same command goes on.
    """
    for option, number in (("--trials", trials), ("--jobs", jobs)):
        if number is not None and number < 1:
            raise ConfigurationError(f"{option} must be at least 1, not {number}")
    if place().ranks > 1:
        raise ConfigurationError("torchrun starts the processes of one run; call tune without it")
    space, objectives = parse_space(words), parse_objectives(objective)
    check_optuna()
    config = check_space(space)
    folder = Path(config.run_dir)
    with RunLock(folder).hold(), tempfile.TemporaryDirectory(prefix="cl-powerprop-") as notes, storing():
        workers = Workers(Path(notes), os.getpid())
        study = Study(folder, space, objectives, settings_of(config), config.seed, partial(_config, space))
        tuning = _Tuning(study, workers, prunes and can_prune(objectives))
        if prunes and not can_prune(objectives):
            say(f"no trial is pruned: that is for validation_accuracy as the only objective, not {objective}")
        at_a_time = jobs or parallel_jobs(config.device, config.train.threads)
        try:
            with telling(workers.tell):
                tuning.run(trials, at_a_time, retries_failed)
        except (Interrupted, StorageError) as stop:
            stop.add_note("the same command goes on if run_dir names its folder")
            raise
        return write_table(study) if brief else write_report(study)


def trial_name(values: dict[str, Value]) -> str:
    """Return what tells a trial from the others, as in "gamma 0.95, lr 0.1"."""
    return ", ".join(f"{naming.heading(key, [*values])} {naming.text(value, 4)}" for key, value in values.items())


def _config(space: Space, values: dict[str, Value]) -> str:
    """Return the same for values that give the same config, as if an option is of a part that is not chosen."""
    try:
        return settings_hash(compose(space.overrides(values)))
    except ConfigurationError:  # which the trial itself will say
        return str(values)


class _Tuning:
    """Asks for trials, starts each in a process, and sees what became of it.

    Args:
        study: that proposes them.
        workers: the processes of the trials.
        prunes: whether they may be ended after a task.
    """

    def __init__(self, study: Study, workers: Workers, prunes: bool) -> None:
        self._study, self._workers, self._prunes = study, workers, prunes
        self._begun: list[int] = []

    def run(self, trials: int, at_a_time: int, retries_failed: bool) -> None:
        """Run until the study has so many trials, or no other settings are found to try.

        Raises:
            StorageError: if a trial cannot be written.
            Interrupted: by a signal.
        """
        study = self._study
        if not study.trials:
            self._begin()
        if retries_failed:
            failed = study.failed
            say(f"{len(failed)} of {len(study.trials)} trials failed before, and run again")
            for trial in failed:
                study.retry(trial)
        self._await(study.cut_off())
        self._catch_up()
        calls = self._calls(study.cut_off(), trials)
        engine = ProcessEngine(at_a_time, _RETRIES)
        engine.preload = PRELOAD
        for outcome in outcomes(engine, run_trial, calls, say):
            self._ended(self._begun[outcome.index], outcome)
        if (count := len(study.trials)) < trials:
            say(f"no other settings are found to try: there are {count} trials")

    def _await(self, numbers: Sequence[int]) -> None:
        """Wait for processes of an earlier command that was killed: they write their last checkpoints."""
        folders = [self._study.folder / str(number) for number in numbers]
        end = time.monotonic() + _PATIENCE
        while any(holder_of(folder) is not None for folder in folders) and time.monotonic() < end:
            time.sleep(_LOOK)

    def _catch_up(self) -> None:
        """Enter in the list of jobs what ended when an earlier command was gone."""
        listed = read_jobs(self._study.folder)
        for trial in self._study.trials:
            number, state = number_of(trial), state_of(trial)
            if trial.state.is_finished() and (number not in listed or listed[number].state != state):
                self._list(number, trial_name(trial.params), state, trial.user_attrs.get(ERROR, ""))

    def _begin(self) -> None:
        defaults = find_defaults(self._study.space)
        if defaults is None:
            say("no trial has the settings as they are without the ranges: the ranges do not hold them")
        else:
            self._study.begin_with(defaults)

    def _calls(self, left: Sequence[int], trials: int) -> Iterator[Call]:
        for number in left:
            yield self._call(number)
        while len(self._study.trials) < trials and (asked := self._study.ask()) is not None:
            yield self._call(asked)

    def _call(self, number: int) -> Call:
        study = self._study
        trial = study.trial(number)
        folder = study.folder / str(number)
        if folder.is_symlink():
            raise RunFolderError(f"{folder} is a link; remove it")
        objectives = ",".join(objective.written for objective in study.objectives)
        overrides, name = study.space.overrides(trial.params), trial_name(trial.params)
        order = Order(study.folder, number, trial.number, name, overrides, objectives, self._prunes, imported_modules())
        self._list(number, name, WAITING)
        self._begun.append(number)
        return Call((order, self._workers), f"trial {number}: {name}")

    def _ended(self, number: int, outcome: Outcome) -> None:
        if isinstance(outcome.error, StorageError):
            raise outcome.error
        trial = self._study.trial(number)
        if not trial.state.is_finished():
            reason = "it was left unfinished" if outcome.error is None else how_it_ended(outcome.error)
            self._study.fail(number, reason)
            trial = self._study.trial(number)
        error = trial.user_attrs.get(ERROR, "")
        name = trial_name(trial.params)
        self._list(number, name, state_of(trial), error)
        say(trial_line(trial, name, self._study.objectives))
        if outcome.result and not self._study.complete:  # nor would any other one have a value, most likely
            raise ConfigurationError(f"trial {number}: {name}: {error}")

    def _list(self, number: int, name: str, state: str, message: str = "") -> None:
        """Add to the list of jobs, which `status` reads."""
        job = ListedJob(number, "", name, str(number), state, message)
        try:
            add_jobs(self._study.folder, [job], begins=not self._begun)
        except FileError as error:
            raise RunFolderError(f"{self._study.folder / NAME} is a link, or no file; remove it") from error
        except OSError as error:
            raise StorageError(f"the list of trials in {self._study.folder} cannot be written: {error}") from error
