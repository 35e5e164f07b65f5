"""`cl-powerprop tune`: start trials until there are enough, and report what they reached."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_powerprop import naming
from cl_powerprop.composition import compose
from cl_powerprop.config import GROUPS, RunConfig, parallel_jobs
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.interrupts import Interrupted, check, requested, telling
from cl_powerprop.output import say
from cl_powerprop.process import FAULT
from cl_powerprop.registry import imported_modules
from cl_powerprop.run_lock import RunLock
from cl_powerprop.tuning.objectives import parse_objectives
from cl_powerprop.tuning.processes import Processes
from cl_powerprop.tuning.report import trial_line, write_report
from cl_powerprop.tuning.space import parse_space
from cl_powerprop.tuning.study import Study, check_optuna
from cl_powerprop.tuning.trial import PRELOAD, Order, can_prune, run_trial

if TYPE_CHECKING:
    from cl_powerprop.tuning.space import Value

_ELSEWHERE = ("data.root", "data.download", "train.threads", "train.eval_batch_size")  # change no number


def tune(words: Sequence[str], trials: int, objective: str, jobs: int | None = None, prunes: bool = True) -> int:
    """Run trials of the settings that some overrides leave open, until the study has so many; return the exit code.

    Args:
        words: overrides, of which some have ranges; `run_dir` is the folder of the study.
        trials: how many it is to have, those before counted.
        objective: what is tuned for, see :func:`~cl_powerprop.tuning.objectives.parse_objectives`.
        jobs: how many run at a time; None for as many as a multirun would.
        prunes: end trials after a task if they are not among the best so far.

    Raises:
        UserError: for settings that no trial can have, a missing extra, or a folder that holds something else.
        Interrupted: by a signal; the same command goes on.
    """
    for option, number in (("--trials", trials), ("--jobs", jobs)):
        if number is not None and number < 1:
            raise ConfigurationError(f"{option} must be at least 1, not {number}")
    space, objectives = parse_space(words), parse_objectives(objective)
    check_optuna()
    first, last = space.ends()
    config = compose(space.overrides(first))
    for each in (config, compose(space.overrides(last))):
        each.check()
    folder = Path(config.run_dir)
    with RunLock(folder).hold():
        study = Study(folder, space, objectives, _settings(config), config.seed)
        at_a_time = jobs or parallel_jobs(config.device, config.train.threads)
        try:
            with Processes(PRELOAD) as processes, telling(processes.tell):
                _Tuning(study, processes, prunes and can_prune(objectives)).run(trials, at_a_time)
        except Interrupted as stop:
            stop.add_note("the same command goes on if run_dir names its folder")
            raise
        return 0 if write_report(study) else FAULT


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return what all trials must have in common, by option."""
    values = asdict(config)
    flat = naming.flat({key: values[key] for key in (*GROUPS, "train")})
    return {key: value for key, value in flat if key not in _ELSEWHERE} | {"seed": config.seed}


def trial_name(values: dict[str, Value]) -> str:
    """Return what tells a trial from the others, as in "gamma 0.95, lr 0.1"."""
    return ", ".join(f"{naming.heading(key, [*values])} {naming.text(value, 4)}" for key, value in values.items())


class _Tuning:
    """Asks for trials, starts each in a process, and sees what became of it.

    Args:
        study: that proposes them.
        processes: to start them in.
        prunes: whether they may be ended after a task.
    """

    def __init__(self, study: Study, processes: Processes, prunes: bool) -> None:
        self._study, self._processes, self._prunes = study, processes, prunes
        self._again = deque(study.cut_off())
        self._retried: set[int] = set()

    def run(self, trials: int, at_a_time: int) -> None:
        """Run until the study has so many trials, or all combinations are tried."""
        while True:
            while len(self._processes) < at_a_time and not requested():
                number = self._next(trials)
                if number is None:
                    break
                self._start(number)
            if not self._processes:
                break
            for number, code in self._processes.wait().items():
                self._ended(number, code)
        check()
        if (count := len(self._study.trials)) < trials:
            say(f"all {count} combinations are tried")

    def _next(self, trials: int) -> int | None:
        if self._again:
            return self._again.popleft()
        return self._study.ask() if len(self._study.trials) < trials else None

    def _start(self, number: int) -> None:
        study = self._study
        values = study.values(number)
        objectives = ",".join(objective.written for objective in study.objectives)
        overrides = study.space.overrides(values)
        name, modules = trial_name(values), imported_modules()
        order = Order(study.folder, number, name, overrides, objectives, self._prunes, modules)
        self._processes.start(number, run_trial, order)

    def _ended(self, number: int, code: int) -> None:
        trial = self._study.trial(number)
        if not trial.state.is_finished():
            if requested():  # it goes on with the next command
                return
            if number not in self._retried:
                self._retried.add(number)
                self._again.append(number)
                return
            said = f"killed by {signal.Signals(-code).name}" if code < 0 else f"its process ended with {code}"
            self._study.fail(number, f"{said}, twice")
            trial = self._study.trial(number)
        say(trial_line(trial, trial_name(trial.params), self._study.objectives))
