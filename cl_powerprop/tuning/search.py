"""Studies are brought to a number of trials, several side by side; each trial runs in a process of its own."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cl_powerprop import naming
from cl_powerprop.composition import compose
from cl_powerprop.config import parallel_jobs
from cl_powerprop.errors import ConfigurationError, FileError, RunFolderError, StorageError
from cl_powerprop.interrupts import telling
from cl_powerprop.launching.engine import Call, Outcome, outcomes
from cl_powerprop.launching.job_list import NAME, WAITING, ListedJob, add_jobs, read_jobs
from cl_powerprop.launching.processes import ProcessEngine, how_it_ended
from cl_powerprop.output import say
from cl_powerprop.registry import imported_modules
from cl_powerprop.run_lock import RunLock, holder_of
from cl_powerprop.tuning.checking import check_space
from cl_powerprop.tuning.defaults import find_defaults
from cl_powerprop.tuning.halving import can_prune
from cl_powerprop.tuning.objectives import parse_objectives
from cl_powerprop.tuning.report import remove_table, state_of, trial_line
from cl_powerprop.tuning.settings import settings_hash, settings_of
from cl_powerprop.tuning.space import Space, parse_space
from cl_powerprop.tuning.study import Study
from cl_powerprop.tuning.study_file import ERROR, check_optuna, number_of, storing
from cl_powerprop.tuning.trial import PRELOAD, Order, run_trial
from cl_powerprop.workers import Workers

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from cl_powerprop.tuning.ranges import Value

_RETRIES = 1  # of a trial whose process has died
_PATIENCE, _LOOK = 15.0, 0.1  # seconds that processes without a command have to end, and between two looks


@dataclass(frozen=True)
class Search:
    """What a study is to find.

    Attributes:
        words: overrides, of which some have ranges; `run_dir` is the folder of the study.
        trials: how many it is to have, those before counted.
        objective: what is tuned for, see :func:`~cl_powerprop.tuning.objectives.parse_objectives`.
        prunes: end trials after a task if they are not among the best so far.
        retries_failed: run those that failed before once more.
        name: tells its trials from those of studies beside it; "" if there is only one.
    """

    words: Sequence[str]
    trials: int
    objective: str
    prunes: bool = True
    retries_failed: bool = False
    name: str = ""


def run_searches(
    searches: Iterable[Search],
    report: Callable[[Search, Study], None],
    failed: Callable[[Search, ConfigurationError], None],
    jobs: int | None = None,
) -> None:
    """Run trials until all studies have as many as they are to have.

    The next study begins as soon as all trials of the one before have begun, so that none waits for another's last.
    One with settings that no trial can have costs the others nothing. After one whose folder cannot be used none begins
    any more, and those that have begun come to their ends.

    Args:
        searches: asked for one by one, when there is room for the first trial of the next.
        report: called with each study as soon as all of its trials have ended.
        failed: called with why there is no study, or not all of it.
        jobs: trials at a time; None for as many as a multirun of the first study's runs would start.

    Raises:
        UserError: for a missing extra, or a folder that holds something else.
        StorageError: if something cannot be written, as on a full disk; the same searches go on.
        Interrupted: by a signal; the same searches go on.
    """
    check_optuna()
    begun: list[tuple[_Trials, int]] = []
    unusable: list[RunFolderError] = []
    engine = ProcessEngine(retries=_RETRIES)
    engine.preload = PRELOAD

    def calls() -> Iterator[Call]:
        for search in searches:
            try:
                trials = held.enter_context(_opened(search, workers))
                if not begun:
                    engine.n_jobs = jobs or trials.at_a_time
                for number, call in trials.calls():
                    begun.append((trials, number))
                    yield call
            except ConfigurationError as error:
                failed(search, error)
            except RunFolderError as error:
                unusable.append(error)
                return
            else:
                report_once(trials)

    def report_once(trials: _Trials) -> None:
        if trials.are_done and not trials.are_reported:
            trials.are_reported = True
            report(trials.search, trials.study)

    with contextlib.ExitStack() as held:
        notes = held.enter_context(tempfile.TemporaryDirectory(prefix="cl-powerprop-"))
        workers = Workers(Path(notes), os.getpid())
        held.enter_context(storing())
        held.enter_context(telling(workers.tell))
        for outcome in outcomes(engine, run_trial, calls(), say):
            trials, number = begun[outcome.index]
            try:
                trials.ended(number, outcome)
            except ConfigurationError as error:
                failed(trials.search, error)
            else:
                report_once(trials)
    if unusable:
        raise unusable[0]


@contextlib.contextmanager
def _opened(search: Search, workers: Workers) -> Iterator[_Trials]:
    """Hold the folder of a study.

    Raises:
        ConfigurationError: for settings that no trial can have.
        RunFolderError: for a folder that holds something else.
    """
    space, objectives = parse_space(search.words), parse_objectives(search.objective)
    config = check_space(space)
    folder = Path(config.run_dir)
    with RunLock(folder).hold():
        study = Study(folder, space, objectives, settings_of(config), config.seed, partial(_config, space))
        yield _Trials(search, study, workers, parallel_jobs(config.device, config.train.threads))


def _config(space: Space, values: dict[str, Value]) -> str:
    """Return the same for values that give the same config, as if an option is of a part that is not chosen."""
    try:
        return settings_hash(compose(space.overrides(values)))
    except ConfigurationError:  # which the trial itself will say
        return str(values)


class _Trials:
    """The trials of a study: proposed one by one, and entered in it as they end.

    Args:
        search: what the study is to find.
        study: that proposes them.
        workers: the processes of the trials.
        at_a_time: how many a multirun of such runs would start at once.
    """

    def __init__(self, search: Search, study: Study, workers: Workers, at_a_time: int = 1) -> None:
        self.search, self.study, self.at_a_time = search, study, at_a_time
        self._workers, self._prunes = workers, search.prunes and can_prune(study.objectives)
        self.are_reported = False
        self._running: set[int] = set()
        self._has_begun = self._all_begun = self._given_up = False

    @property
    def are_done(self) -> bool:
        """Whether all have begun and ended."""
        return self._all_begun and not self._running and not self._given_up

    def calls(self) -> Iterator[tuple[int, Call]]:
        """Yield the number of each trial and the call that runs it, until the study has enough or finds no other.

        Raises:
            RunFolderError: if the folder of a trial, or the list of trials, is a link.
            StorageError: if a trial cannot be written.
            Interrupted: by a signal.
        """
        study, search = self.study, self.search
        if search.prunes and not self._prunes:
            self._say(
                f"no trial is pruned: that is for validation_accuracy as the only objective, not {search.objective}"
            )
        if not study.trials:
            self._begin()
        if search.retries_failed and (failed := study.failed):
            self._say(f"{len(failed)} of {len(study.trials)} trials failed before, and run again")
            remove_table(study)  # which would say that all trials have ended
            for trial in failed:
                study.retry(trial)
        left = study.cut_off()
        self._await(left)
        self._catch_up()
        while not self._given_up and (number := self._next(left)) is not None:
            call = self._call(number)
            self._all_begun = not left and len(study.trials) >= search.trials
            yield number, call
        self._all_begun = True
        if (count := len(study.trials)) < search.trials and not self._given_up:
            self._say(f"no other settings are found to try: there are {count} trials")

    def _next(self, left: list[int]) -> int | None:
        """Return one of those that are left, or else a new trial; None if there are enough, or no other is found."""
        if left:
            return left.pop(0)
        return self.study.ask() if len(self.study.trials) < self.search.trials else None

    def _await(self, numbers: Sequence[int]) -> None:
        """Wait for processes of an earlier command that was killed: they write their last checkpoints."""
        folders = [self.study.folder / str(number) for number in numbers]
        end = time.monotonic() + _PATIENCE
        while any(holder_of(folder) is not None for folder in folders) and time.monotonic() < end:
            time.sleep(_LOOK)

    def _catch_up(self) -> None:
        """Enter in the list of jobs what ended when an earlier command was gone."""
        listed = read_jobs(self.study.folder)
        for trial in self.study.trials:
            number, state = number_of(trial), state_of(trial)
            if trial.state.is_finished() and (number not in listed or listed[number].state != state):
                self._list(number, self._name(trial), state, trial.user_attrs.get(ERROR, ""))

    def _begin(self) -> None:
        defaults = find_defaults(self.study.space)
        if defaults is None:
            self._say("no trial has the settings as they are without the ranges: the ranges do not hold them")
        else:
            self.study.begin_with(defaults)

    def _call(self, number: int) -> Call:
        study = self.study
        trial = study.trial(number)
        folder = study.folder / str(number)
        if folder.is_symlink():
            raise RunFolderError(f"{folder} is a link; remove it")
        objectives = ",".join(objective.written for objective in study.objectives)
        overrides, name = study.space.overrides(trial.params), self._name(trial)
        order = Order(study.folder, number, trial.number, name, overrides, objectives, self._prunes, imported_modules())
        self._list(number, name, WAITING)
        self._has_begun = True
        self._running.add(number)
        return Call((order, self._workers), f"trial {number}: {name}")

    def ended(self, number: int, outcome: Outcome) -> None:
        """Enter what became of a trial, and say it.

        Raises:
            ConfigurationError: if no trial can have a value of an objective; none begins any more.
            StorageError: if it cannot be written.
        """
        self._running.discard(number)
        if isinstance(outcome.error, StorageError):
            raise outcome.error
        trial = self.study.trial(number)
        if not trial.state.is_finished():
            reason = "it was left unfinished" if outcome.error is None else how_it_ended(outcome.error)
            self.study.fail(number, reason)
            trial = self.study.trial(number)
        error = trial.user_attrs.get(ERROR, "")
        name = self._name(trial)
        self._list(number, name, state_of(trial), error)
        say(trial_line(trial, name, self.study.objectives))
        if outcome.result and not self.study.complete and not self._given_up:
            self._given_up = True  # no other one would have a value either, most likely
            raise ConfigurationError(f"trial {number}: {name}: {error}")

    def _name(self, trial: FrozenTrial) -> str:
        """Return what tells a trial from the others, as in "gamma 0.95, lr 0.1"."""
        values = trial.params
        shown = [f"{naming.heading(key, [*values])} {naming.text(value, 4)}" for key, value in values.items()]
        return ", ".join([self.search.name, *shown] if self.search.name else shown)

    def _say(self, line: str) -> None:
        say(f"{self.search.name}: {line}" if self.search.name else line)

    def _list(self, number: int, name: str, state: str, message: str = "") -> None:
        """Add to the list of jobs, which `status` reads."""
        job = ListedJob(number, "", name, str(number), state, message)
        try:
            add_jobs(self.study.folder, [job], begins=not self._has_begun)
        except FileError as error:
            raise RunFolderError(f"{self.study.folder / NAME} is a link, or no file; remove it") from error
        except OSError as error:
            raise StorageError(f"the list of trials in {self.study.folder} cannot be written: {error}") from error
