"""The study: all trials of a folder, and which values the next one has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import RunFolderError
from cl_powerprop.launching.job_list import STUDY
from cl_powerprop.run_folder import is_free, taken
from cl_powerprop.shown import as_line
from cl_powerprop.tuning.objectives import Objective
from cl_powerprop.tuning.proposals import combinations, proposals
from cl_powerprop.tuning.ranges import Value
from cl_powerprop.tuning.space import Space
from cl_powerprop.tuning.study_file import (
    AGAIN,
    CONFIG,
    DEFAULTS,
    ERROR,
    OWN,
    check_trials,
    is_new,
    number_of,
    open_study,
)

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.trial import FrozenTrial

_ABOUT = "cl_powerprop"  # attribute of the study: what all trials have in common
_MOST_LOOKED_AT = 50  # new values, of which each would give an earlier trial's config


class Study:
    """The trials of a folder.

    Args:
        folder: that holds the study and a run folder for each trial; made if it is not there.
        space: of their values.
        objectives: what is measured.
        settings: what all trials have in common, by option; must be the same when the study goes on.
        seed: that proposals are drawn from.
        config: returns the same for values that give the same config.

    Raises:
        RunFolderError: if the folder holds something else, a study of other settings, or one that cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        objectives: Sequence[Objective],
        settings: Mapping[str, Any],
        seed: int,
        config: Callable[[dict[str, Value]], str],
    ) -> None:
        if is_new(folder) and not is_free(folder, OWN):
            raise taken(folder)
        self.folder, self.space, self.objectives = folder, space, objectives
        self._seed, self._config = seed, config
        self.optuna = open_study(folder, objectives)
        about = {
            "objective": ",".join(objective.written for objective in objectives),
            **{f"{key} (its range)": each.written for key, each in space.ranges.items()},
            **{key: str(value) for key, value in settings.items()},
        }
        self._check_same(about)
        self._distributions = {key: each.distribution() for key, each in space.ranges.items()}
        check_trials(self.optuna, folder / STUDY, space.ranges, objectives)

    def _check_same(self, about: dict[str, str]) -> None:
        before = self.optuna.user_attrs.get(_ABOUT)
        if before is None and not self.optuna.get_trials(deepcopy=False):
            self.optuna.set_user_attr(_ABOUT, about)
            return
        if not isinstance(before, dict):
            raise RunFolderError(f"{self.folder / STUDY} is no study of cl-powerprop tune")
        differ = [
            f"{key} was {before.get(key, 'not given')} and is {about.get(key, 'not given')}"
            for key in {**before, **about}
            if before.get(key) != about.get(key)
        ]
        if differ:
            shown = "; ".join(differ[:3]) + (f"; and {len(differ) - 3} more" if len(differ) > 3 else "")
            raise RunFolderError(
                as_line(f"{self.folder} holds a study of other settings: {shown}; choose another run_dir")
            )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials in the order of their numbers; of one that was tried again, the last try."""
        found = self.optuna.get_trials(deepcopy=False)
        last = {number_of(trial): trial for trial in found}
        return [last[number] for number in sorted(last)]

    def _in_state(self, name: str) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state.name == name]

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials that have learned all tasks."""
        return self._in_state("COMPLETE")

    @property
    def failed(self) -> list[FrozenTrial]:
        """The trials that have failed."""
        return self._in_state("FAIL")

    @property
    def of_defaults(self) -> FrozenTrial | None:
        """The trial with the settings as they are without the ranges; None if the ranges do not hold them."""
        return next((trial for trial in self.trials if DEFAULTS in trial.user_attrs), None)

    def trial(self, number: int) -> FrozenTrial:
        """Return one trial."""
        return next(trial for trial in self.trials if number_of(trial) == number)

    def begin_with(self, defaults: Mapping[str, Value]) -> None:
        """Enter a trial with the values that options have without the ranges."""
        self._add(defaults, {DEFAULTS: True})

    def cut_off(self) -> list[int]:
        """Return the trials that have not ended."""
        return [number_of(trial) for trial in self.trials if not trial.state.is_finished()]

    def ask(self) -> int | None:
        """Return a new trial, with settings that none has had; None if no others are found."""
        trials = self.trials
        if len(trials) >= self.space.size:
            return None
        tried = [trial.params for trial in trials]
        known = {trial.user_attrs.get(CONFIG) for trial in trials}
        new = (values for values in self._candidates(len(trials)) if values not in tried)
        found = (values for values in itertools.islice(new, _MOST_LOOKED_AT) if self._config(values) not in known)
        values = next(found, None)
        return None if values is None else self._add(values)

    def _candidates(self, count: int) -> Iterator[dict[str, Value]]:
        proposed = proposals(self.optuna, self._distributions, self._seed, count)
        if math.isinf(self.space.size):
            return proposed
        return itertools.chain(itertools.islice(proposed, 1), combinations(self.space, self._seed, count))

    def _add(self, values: Mapping[str, Any], attributes: Mapping[str, Any] | None = None) -> int:
        """Enter a trial that is to run with given values, at once and whole; return its number."""
        from optuna.trial import TrialState, create_trial

        given = {key: values[key] for key in self._distributions}
        about = {CONFIG: self._config(given), **(attributes or {})}
        self.optuna.add_trial(
            create_trial(state=TrialState.RUNNING, params=given, distributions=self._distributions, user_attrs=about)
        )
        return number_of(self.optuna.get_trials(deepcopy=False)[-1])

    def retry(self, trial: FrozenTrial) -> None:
        """Enter that a failed trial is tried again. Optuna takes no failure back: it is another entry of the file."""
        kept = {DEFAULTS: True} if DEFAULTS in trial.user_attrs else {}
        self._add(trial.params, {**kept, AGAIN: number_of(trial)})

    def fail(self, number: int, reason: str) -> None:
        """Enter that a trial has failed."""
        fail(self.optuna, self.trial(number).number, reason)

    def best(self) -> list[FrozenTrial]:
        """Return the trials that no other one beats in all objectives, the best in the first objective first."""
        first = self.objectives[0].sign
        return sorted(self.optuna.best_trials, key=lambda trial: (-first * trial.values[0], number_of(trial)))


def fail(study: OptunaStudy, entry: int, reason: str) -> None:
    """Enter that a trial has failed, and why."""
    from optuna.trial import Trial, TrialState

    trial = study.get_trials(deepcopy=False)[entry]
    Trial(study, trial._trial_id).set_user_attr(ERROR, as_line(reason))
    study.tell(entry, state=TrialState.FAIL)
