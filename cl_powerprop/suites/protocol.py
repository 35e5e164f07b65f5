"""The protocol of a suite: each method is tuned on validation data, and then tested once with other seeds.

In the suite's folder, `tuning/NAME` is the study of a method, `configs/experiment/NAME.yaml` the recipe that it found,
and `runs/NAME/seed_S` a run that is reported. Each of them goes on where it was cut off.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cl_powerprop.composition import compose
from cl_powerprop.config import GROUPS, RunConfig
from cl_powerprop.data.dataset import data_root
from cl_powerprop.errors import ConfigurationError, FileError, RunFolderError
from cl_powerprop.files import read_file
from cl_powerprop.hydra_run import run_command
from cl_powerprop.launching.job_list import FAILED, read_jobs
from cl_powerprop.launching.planning import status_in
from cl_powerprop.output import say
from cl_powerprop.process import FAULT, complain
from cl_powerprop.registry import find
from cl_powerprop.suites.definition import Method, Suite
from cl_powerprop.suites.overrides import key_of, merged
from cl_powerprop.tuning.objectives import DEFAULT as OBJECTIVE
from cl_powerprop.tuning.recipe import FOLDER, write_recipe
from cl_powerprop.tuning.report import TABLE, write_table
from cl_powerprop.tuning.search import Search, run_searches
from cl_powerprop.tuning.space import parse_space
from cl_powerprop.tuning.study import Study

RUNS, TUNING, ANY_BUDGET = "runs", "tuning", "any_budget"
_SUBFOLDER = "hydra.sweep.subdir=${hydra:runtime.choices.experiment}"
_IN_RECIPES = (*GROUPS, "train")  # sections of a config; recipes leave out where one user's data is
_LARGEST = 2**22  # bytes of a table


@dataclass(frozen=True)
class Entry:
    """A method where it stands in the protocol.

    Attributes:
        name: of the method.
        key: of its folders: the name, for a method of any budget below `any_budget/`.
        method: what the suite says of it.
    """

    name: str
    key: str
    method: Method

    @property
    def label(self) -> str:
        """What tables and figures call it where both of its budgets can stand."""
        return f"{self.method.label}, own budget" if self.any_budget else self.method.label

    @property
    def any_budget(self) -> bool:
        """Whether it has a budget of its own."""
        return self.key != self.name


@dataclass(frozen=True)
class Tuned:
    """What tuning a method has found.

    Attributes:
        values: of the options that were tuned, as text.
        accuracy: average validation accuracy of the best trial.
        trials: how many have ended, and how many of these failed or diverged.
        config: of a run that is reported, with the suite's first seed.
    """

    values: Mapping[str, str]
    accuracy: float
    trials: tuple[int, int]
    config: RunConfig


@dataclass(frozen=True)
class Outcome:
    """What came of a method.

    Attributes:
        entry: the method.
        tuned: what tuning has found; None if the method was refused, or all trials failed.
        runs: folder of each run that is complete, by seed.
        reason: why there is no run, or fewer than there are seeds; "" if all are there.
        refused: whether it cannot run in the suite's scenario, as its config says before anything is trained.
    """

    entry: Entry
    tuned: Tuned | None = None
    runs: Mapping[int, Path] | None = None
    reason: str = ""
    refused: bool = False


def entries(suite: Suite) -> list[Entry]:
    """Return all methods of a suite, those of any budget last."""
    equal = [Entry(name, name, method) for name, method in suite.methods.items()]
    return equal + [Entry(name, f"{ANY_BUDGET}/{name}", method) for name, method in suite.any_budget.items()]


class Protocol:
    """Tunes and runs the methods of a suite.

    Args:
        suite: what to do.
        folder: of the suite.
        launcher: overrides that choose what runs the jobs.
        jobs: trials at a time; None for as many as a multirun would run.
        together: train the reported seeds of a method in one process, as is fast on a GPU.
        retries_failed: run trials that failed before once more.

    Raises:
        ConfigurationError: for seeds that cannot be trained together, as they do not follow one another.
    """

    def __init__(
        self,
        suite: Suite,
        folder: Path,
        launcher: Sequence[str],
        jobs: int | None = None,
        together: bool = False,
        retries_failed: bool = False,
    ) -> None:
        self._suite, self._folder, self._launcher = suite, folder, launcher
        self._jobs, self._together, self._retries_failed = jobs, together, retries_failed
        self._entries, self._refused = entries(suite), dict[str, str]()
        first, count = suite.seeds[0], len(suite.seeds)
        if together and suite.seeds != (*range(first, first + count),):
            raise ConfigurationError(f"{suite.name} has seeds that do not follow one another: leave --together out")

    def check(self) -> None:
        """Find out which methods can run, and whether there is data, before anything is written.

        Raises:
            ConfigurationError: for a mistake in what all have in common, or if none can run.
            DataError: if the data is missing or damaged.
        """
        compose(self._suite.common)
        self._refused = {entry.key: reason for entry in self._entries if (reason := self._refusal(entry))}
        left = [entry for entry in self._entries if entry.key not in self._refused]
        if not left:
            raise ConfigurationError("; ".join(dict.fromkeys(self._refused.values())))
        untuned = [entry for entry in left if not self._is_tuned(entry)]
        if untuned:
            _find_data(compose(self._words(untuned[0])))

    def run(self) -> list[Outcome]:
        """Tune all methods, run all that can run, and return what came of each; after :meth:`check`.

        Raises:
            UserError: for settings that no run can have, or a folder that holds something else.
            StorageError: if something cannot be written; the same command goes on.
            Interrupted: by a signal; the same command goes on.
        """
        refused = self._refused
        left = [entry for entry in self._entries if entry.key not in refused]
        tuned, failed = self._tune(left)
        self._test([entry for entry in left if entry.key in tuned])
        return [
            Outcome(entry, reason=refused[entry.key], refused=True)
            if entry.key in refused
            else self._outcome(entry, tuned[entry.key])
            if entry.key in tuned
            else Outcome(entry, reason=failed[entry.key])
            for entry in self._entries
        ]

    def _words(self, entry: Entry, *more: Sequence[str]) -> tuple[str, ...]:
        return merged(self._suite.common, entry.method.settings, *more)

    def _refusal(self, entry: Entry) -> str:
        """Return why a method cannot run here, "" if it can."""
        try:
            compose(self._words(entry)).check()
        except ConfigurationError as error:
            return str(error)
        return ""

    def _tune(self, left: Sequence[Entry]) -> tuple[dict[str, Tuned], dict[str, str]]:
        """Tune methods side by side; return what was found and why nothing was, by key."""
        tuned, failed = dict[str, Tuned](), dict[str, str]()
        by_key = {entry.key: entry for entry in left}

        def fail(key: str, error: ConfigurationError) -> None:
            failed[key] = str(error)
            complain(f"{key}: {error}", FAULT)

        def enter(key: str) -> None:
            try:
                tuned[key] = self._tuned(by_key[key])
            except ConfigurationError as error:
                fail(key, error)

        def searches() -> Iterator[Search]:
            for number, (key, entry) in enumerate(by_key.items(), 1):
                say(f"method {number} of {len(left)}: {key}")
                if self._is_tuned(entry):
                    enter(key)
                    continue
                try:
                    search = self._search(entry)
                except ConfigurationError as error:
                    fail(key, error)
                else:
                    yield search

        def report(search: Search, study: Study) -> None:
            write_table(study)
            enter(search.name)

        run_searches(searches(), report, lambda search, error: fail(search.name, error), self._jobs)
        return tuned, failed

    def _search(self, entry: Entry) -> Search:
        """Return what is tuned of a method.

        Raises:
            ConfigurationError: if its ranges hold fewer settings than there are trials.
        """
        plan, method, folder = self._suite.tuning, entry.method, self._folder / TUNING / entry.key
        words = self._words(entry, plan.settings, method.tuning)
        own = [f"seed={plan.seed}", f"run_dir={folder}", "save_model=false"]
        space = [word for word in words if key_of(word) not in ("evaluation.schedule", "save_model")]
        space = [*space, *method.space, *own]
        if (size := parse_space(space).size) < plan.trials:
            raise ConfigurationError(
                f"its ranges hold {size:g} setting{'s' * (size != 1)}, fewer than there are trials"
            )
        return Search(
            space,
            plan.trials,
            OBJECTIVE,
            prunes=False,
            retries_failed=self._retries_failed,
            name=entry.key,
        )

    def _tuned(self, entry: Entry) -> Tuned:
        """Return the best settings of a method, from the table of its study.

        Raises:
            ConfigurationError: if no trial has settings that work.
        """
        trials = _trials(self._folder / TUNING / entry.key)
        best = next((row for row in trials if row["best"] == "1"), None)
        if best is None:
            reasons = dict.fromkeys(row["error"] for row in trials if row["error"])
            raise ConfigurationError(f"no trial is complete: {'; '.join(reasons) or 'there is none'}")
        values = {key: best[key] for key in map(key_of, entry.method.space)}
        config = compose([*self._words(entry, [f"{key}={value}" for key, value in values.items()])])
        config.seed = self._suite.seeds[0]
        about = f"found by {self._suite.command}: the best of {len(trials)} trials on validation data"
        write_recipe(self._folder, entry.key, config, about)
        ended_badly = sum(row["state"] != "complete" for row in trials)
        return Tuned(values, float(best[OBJECTIVE]), (len(trials), ended_badly), config)

    def _is_tuned(self, entry: Entry) -> bool:
        trials = _trials(self._folder / TUNING / entry.key)
        again = self._retries_failed and any(trial["state"] == FAILED for trial in trials)
        return len(trials) >= self._suite.tuning.trials and not again

    def _test(self, tuned: Sequence[Entry]) -> None:
        """Run the best settings of all methods with all seeds, as one multirun."""
        left = [entry for entry in tuned if len(self._complete(entry)) < len(self._suite.seeds)]
        if not left:
            return
        common = self._suite.common
        elsewhere = [word for word in common if key_of(word).partition(".")[0] not in _IN_RECIPES]
        data = [word for word in common if key_of(word).startswith("data.")]
        names = ",".join(entry.key for entry in left)
        seeds = self._suite.seeds
        listed = ",".join(map(str, seeds))
        say(f"tested with the seeds {listed}: {names}")
        each = [f"seed={listed}", f"{_SUBFOLDER}/seed_${{seed}}"]  # where seeds that are trained together are as well
        of_all = [f"seed={seeds[0]}", f"seeds_together={len(seeds)}", _SUBFOLDER]
        run_command(
            [
                *("-m", "--config-dir", str(self._folder / FOLDER), f"experiment={names}"),
                *(of_all if self._together and len(seeds) > 1 else each),
                *(f"run_dir={self._folder / RUNS}", *elsewhere, *data, *self._launcher),
            ]
        )

    def _complete(self, entry: Entry) -> dict[int, Path]:
        folders = {seed: self._folder / RUNS / entry.key / f"seed_{seed}" for seed in self._suite.seeds}
        return {seed: folder for seed, folder in folders.items() if status_in(folder) == "complete"}

    def _outcome(self, entry: Entry, tuned: Tuned) -> Outcome:
        runs = self._complete(entry)
        failed = {job.folder: job.message for job in read_jobs(self._folder / RUNS).values() if job.state == FAILED}
        missing = [seed for seed in self._suite.seeds if seed not in runs]
        reasons = dict.fromkeys(
            failed.get(f"{entry.key}/seed_{seed}") or failed.get(entry.key) or "it did not end" for seed in missing
        )
        listed = ", ".join(map(str, missing))
        reason = f"seed{'s' * (len(missing) > 1)} {listed}: {'; '.join(reasons)}" if missing else ""
        return Outcome(entry, tuned, runs, reason)


def _find_data(config: RunConfig) -> None:
    """Check the data once, before every method would find out by itself; fetch it, if that is asked for.

    Raises:
        DataError: if it is missing or damaged.
    """
    dataset, root = find("data", config.data.name).make(), data_root(config.data.root)
    if config.data.download:
        dataset.download(root)
    dataset.verify(root)


def csv_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none if there is no such file.

    Raises:
        RunFolderError: if it cannot be read.
    """
    try:
        return list(csv.DictReader(io.StringIO(read_file(file, _LARGEST).decode())))
    except FileNotFoundError:
        return []
    except (OSError, FileError, ValueError, csv.Error) as error:
        raise RunFolderError(f"{file} cannot be read: {error}") from error


def _trials(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a study's table; none if it has not got that far.

    Raises:
        RunFolderError: if the table is damaged.
    """
    file = folder / TABLE
    rows = csv_rows(file)
    if any(None in row or None in row.values() or not {"state", "best", "error"} <= row.keys() for row in rows):
        raise RunFolderError(f"{file} is damaged; remove it, and the same command makes it again")
    return rows
