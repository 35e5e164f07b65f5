"""The study: all trials in Optuna's SQLite file within the folder, and which values the next one has."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.run_folder import is_free, taken
from cl_powerprop.seeding import derive_seed
from cl_powerprop.shown import as_line
from cl_powerprop.tuning.objectives import Objective
from cl_powerprop.tuning.space import Space, Value

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.trial import FrozenTrial

FILE = "study.db"
RANDOM_TRIALS = 10  # before the sampler looks at what the ones before have reached

_NAME = "tune"
_ABOUT, _VOID = "cl_powerprop", "void"  # attributes of the study, and of a trial that was never to run
_PATIENCE = 60.0  # seconds that a process waits for others to write
_MOST_SEEDS = 2**32  # numpy's


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


def open_study(folder: Path, objectives: Sequence[Objective]) -> OptunaStudy:
    """Return the study of a folder; a new one if there is none.

    Raises:
        RunFolderError: if its file cannot be read or written.
    """
    check_optuna()
    import optuna
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import SQLAlchemyError

    file = folder / FILE
    if file.is_symlink():
        raise RunFolderError(f"{file} is a link")
    # Halving by tasks: half of the trials go on after task 1, a quarter after task 2, and so on after 4, 8, ...
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    url = URL.create("sqlite", database=str(file.absolute())).render_as_string(hide_password=False)
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _PATIENCE}})
        directions = [objective.direction for objective in objectives]
        return optuna.create_study(
            storage=storage, study_name=_NAME, directions=directions, pruner=pruner, load_if_exists=True
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, OSError, ValueError) as error:
        raise RunFolderError(as_line(f"{file} cannot be read or written: {error}")) from error


class Study:
    """The trials of a folder.

    Args:
        folder: that holds the study and a run folder for each trial; made if it is not there.
        space: of their values.
        objectives: what is measured.
        settings: what all trials have in common, by option; must be the same when the study goes on.
        seed: that proposals are drawn from.

    Raises:
        RunFolderError: if the folder holds something else, a study of other settings, or one that cannot be read.
    """

    def __init__(
        self, folder: Path, space: Space, objectives: Sequence[Objective], settings: Mapping[str, Any], seed: int
    ) -> None:
        if not os.path.lexists(folder / FILE) and not is_free(folder):
            raise taken(folder)
        self.folder, self.space, self.objectives, self._seed = folder, space, objectives, seed
        self.optuna = open_study(folder, objectives)
        about = {
            "objective": ",".join(objective.written for objective in objectives),
            **{f"{key} (its range)": each.written for key, each in space.ranges.items()},
            **{key: str(value) for key, value in settings.items()},
        }
        self._check_same(about)
        self._distributions = {key: each.distribution() for key, each in space.ranges.items()}

    def _check_same(self, about: dict[str, str]) -> None:
        before = self.optuna.user_attrs.get(_ABOUT)
        if before is None:
            self.optuna.set_user_attr(_ABOUT, about)
            return
        if not isinstance(before, dict):
            raise RunFolderError(f"{self.folder / FILE} is no study of cl-powerprop")
        differ = [
            f"{key} was {before.get(key, 'not given')} and is {about.get(key, 'not given')}"
            for key in {**before, **about}
            if before.get(key) != about.get(key)
        ]
        if differ:
            shown = "; ".join(differ[:3]) + (f"; and {len(differ) - 3} more" if len(differ) > 3 else "")
            raise RunFolderError(f"{self.folder} holds a study of other settings: {shown}; choose another run_dir")

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials that ran, or are to run again, in the order of their numbers."""
        from optuna.trial import TrialState

        found = self.optuna.get_trials(deepcopy=False)
        return [trial for trial in found if trial.state != TrialState.WAITING and _VOID not in trial.user_attrs]

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials that have learned all tasks."""
        from optuna.trial import TrialState

        return [trial for trial in self.trials if trial.state == TrialState.COMPLETE]

    def trial(self, number: int) -> FrozenTrial:
        """Return one trial."""
        return self.optuna.get_trials(deepcopy=False)[number]

    def values(self, number: int) -> dict[str, Value]:
        """Return the values of a trial.

        Raises:
            RunFolderError: if the file has others than the ranges hold.
        """
        values: dict[str, Value] = self.trial(number).params
        if not self._are_whole(values):
            raise RunFolderError(f"{self.folder / FILE}: trial {number} has values that are in no range")
        return values

    def _are_whole(self, values: Mapping[str, Any]) -> bool:
        ranges = self.space.ranges
        return values.keys() == ranges.keys() and all(each.has(values[key]) for key, each in ranges.items())

    def cut_off(self) -> list[int]:
        """Return the trials that have not ended; one whose values were not drawn yet is given up."""
        numbers = []
        for trial in self.trials:
            if trial.state.is_finished():
                continue
            if trial.params.keys() == self.space.ranges.keys():
                numbers.append(trial.number)
            else:
                self._give_up(trial.number)
        return numbers

    def ask(self) -> int | None:
        """Return a new trial, with values that none has had; None if there are no others."""
        known = {self._key(trial.params) for trial in self.trials}
        while len(known) < self.space.size:
            number = len(self.optuna.get_trials(deepcopy=False))
            self.optuna.sampler = self._sampler(number)
            trial = self.optuna.ask(self._distributions)
            if self._key(trial.params) not in known:
                return int(trial.number)
            self._give_up(trial.number)
            if self.space.size < float("inf"):
                self.optuna.enqueue_trial(self._untried(known, number))
        return None

    def _sampler(self, number: int) -> Any:
        """Return the sampler for one trial: a study that goes on must not draw the same numbers again."""
        from optuna.samplers import TPESampler

        seed = derive_seed(self._seed, "tune", number) % _MOST_SEEDS
        return TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS, constant_liar=True)

    def _untried(self, known: set[tuple[Value, ...]], number: int) -> dict[str, Value]:
        """Return the first combination, from a random one on, that no trial has had."""
        size = int(self.space.size)
        start = derive_seed(self._seed, "untried", number) % size
        drawn = (self.space.combination((start + offset) % size) for offset in range(size))
        return next(values for values in drawn if self._key(values) not in known)

    def _key(self, values: Mapping[str, Any]) -> tuple[Value, ...]:
        return tuple(values.get(key, "") for key in self.space.ranges)

    def _give_up(self, number: int) -> None:
        from optuna.trial import Trial

        Trial(self.optuna, self.trial(number)._trial_id).set_user_attr(_VOID, True)
        self.fail(number, "it was not to run")

    def fail(self, number: int, reason: str) -> None:
        """Enter that a trial has failed."""
        fail(self.optuna, number, reason)

    def best(self) -> list[FrozenTrial]:
        """Return the trials that no other one beats in all objectives, the best in the first objective first."""
        first = self.objectives[0].sign
        return sorted(self.optuna.best_trials, key=lambda trial: (-first * trial.values[0], trial.number))


def fail(study: OptunaStudy, number: int, reason: str) -> None:
    """Enter that a trial has failed, and why."""
    from optuna.trial import Trial, TrialState

    trial = study.get_trials(deepcopy=False)[number]
    Trial(study, trial._trial_id).set_user_attr("error", as_line(reason))
    study.tell(number, state=TrialState.FAIL)
