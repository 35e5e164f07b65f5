"""What a study found: a line for each trial, a table, `trials.csv`, figures, and the best settings as a recipe."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cl_powerprop.composition import compose
from cl_powerprop.errors import StorageError, UserError
from cl_powerprop.files import write_file
from cl_powerprop.naming import heading, text
from cl_powerprop.output import duration, say, say_table
from cl_powerprop.process import FAULT, complain
from cl_powerprop.registry import imported_modules
from cl_powerprop.shown import shell_word
from cl_powerprop.tuning.recipe import keep_recipes, write_recipe
from cl_powerprop.tuning.study_file import DEFAULTS, ERROR, SECONDS, number_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from cl_powerprop.tuning.objectives import Objective
    from cl_powerprop.tuning.study import Study

TABLE = "trials.csv"
_MOST_ROWS = 10  # of the table
_WIDTH = 120  # of the table, where there is no terminal


def trial_line(trial: FrozenTrial, name: str, objectives: Sequence[Objective]) -> str:
    """Return what became of a trial, in one line."""
    from optuna.trial import TrialState

    start = f"trial {marked(trial)}: {name}: "
    if ERROR in trial.user_attrs:
        return f"{start}{state_of(trial)}: {trial.user_attrs[ERROR]}"
    if trial.state == TrialState.PRUNED:
        (task, accuracy) = max(trial.intermediate_values.items())
        return f"{start}pruned after task {task}, validation accuracy {accuracy:.4f}"
    shown = zip(objectives, _shown(trial, objectives), strict=True)
    reached = ", ".join(f"{objective.metric.label} {value}" for objective, value in shown)
    return f"{start}{reached}, {duration(trial.user_attrs.get(SECONDS, 0.0))}"


def marked(trial: FrozenTrial) -> str:
    """Return a trial's number, which says whether it has the defaults."""
    return f"{number_of(trial)}{' (defaults)' if DEFAULTS in trial.user_attrs else ''}"


def _shown(trial: FrozenTrial, objectives: Sequence[Objective]) -> list[str]:
    from cl_powerprop.analysis.tables import format_value

    values = trial.values or [math.nan] * len(objectives)
    return [
        duration(value) if objective.metric.unit == "s" and trial.values else format_value(objective.metric, value)
        for objective, value in zip(objectives, values, strict=True)
    ]


def write_report(study: Study) -> int:
    """Write and print what the study found, and name what failed; return the exit code: 1 if any trial failed.

    Raises:
        StorageError: if something cannot be written.
    """
    code = write_table(study)
    with _storing(study):
        _write(study)
    for trial in study.failed:
        values = ", ".join(f"{key}={value}" for key, value in trial.params.items())
        complain(f"trial {marked(trial)}: {values}: {trial.user_attrs[ERROR]}", FAULT)
    if study.failed:
        say(f"{len(study.failed)} failed: the same command with --retry-failed runs {_them(study.failed)} again")
    return code


def write_table(study: Study) -> int:
    """Write the table of all trials; return the exit code: 1 if any trial failed.

    Raises:
        StorageError: if it cannot be written.
    """
    with _storing(study):
        write_file(study.folder / TABLE, _table_file(study).encode())
    return FAULT if study.failed or not study.complete else 0


def remove_table(study: Study) -> None:
    """Remove the table of a study whose trials run again.

    Raises:
        StorageError: if it cannot be removed.
    """
    with _storing(study):
        (study.folder / TABLE).unlink(missing_ok=True)


@contextlib.contextmanager
def _storing(study: Study) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise StorageError(f"what {study.folder} found cannot be written: {error.strerror or error}") from error


def _them(trials: Sequence[object]) -> str:
    return "it" if len(trials) == 1 else "them"


def _write(study: Study) -> None:
    from cl_powerprop.tuning.figures import draw_figures

    trials, best = study.trials, study.best()
    states = [state_of(trial) for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    say(f"{len(trials)} trial{'s' * (len(trials) != 1)}: {counts}")
    if not best:
        say("no trial is complete: there is no best one")
        return
    _print(study, best)
    recipes = {"best": best[0], **{f"trial_{number_of(trial)}": trial for trial in best if len(best) > 1}}
    about = "found by cl-powerprop tune: the best trial, and with several objectives each one of the Pareto front"
    for name, trial in recipes.items():
        write_recipe(study.folder, name, compose(study.space.overrides(trial.params)), about)
    configs = keep_recipes(study.folder, recipes)
    draw_figures(study)
    say(f"table, figures and runs: {study.folder}")
    say(f"run the best settings by: {_command()} --config-dir {shell_word(str(configs))} experiment=best")


def _command() -> str:
    """Return the beginning of a command that knows the same parts."""
    return " ".join(["cl-powerprop", *(f"--import {shell_word(name)}" for name in imported_modules()), "run"])


def state_of(trial: FrozenTrial) -> str:
    """Return what has become of a trial: complete, pruned or failed."""
    return str(trial.state.name).lower().replace("fail", "failed")


def _print(study: Study, best: Sequence[FrozenTrial]) -> None:
    from rich.table import Table
    from rich.text import Text

    front = len(study.objectives) > 1
    first = study.objectives[0]
    ranked = sorted(study.complete, key=lambda trial: -first.sign * trial.values[0])
    rows = list(best) if front else ranked[:_MOST_ROWS]
    rows += [trial for trial in ranked if DEFAULTS in trial.user_attrs and trial not in rows]
    ranges = [*study.space.ranges]
    table = Table(title="trials that no other one beats" if front else "the best trials, on validation data")
    for column in (
        "trial",
        *(heading(key, ranges) for key in ranges),
        *(each.metric.label for each in study.objectives),
    ):
        table.add_column(Text(column), justify="right")
    for trial in rows:
        cells = [marked(trial), *(text(trial.params[key], 4) for key in ranges), *_shown(trial, study.objectives)]
        table.add_row(*map(Text, cells))
    say_table(table, _WIDTH)


def _table_file(study: Study) -> str:
    """Return all trials as CSV."""
    front, complete = ({number_of(trial) for trial in trials} for trials in (study.best(), study.complete))
    names = [objective.metric.name for objective in study.objectives]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    about = ["last_judged_after", "seconds", "best", "defaults", "error"]
    writer.writerow(["trial", "state", *study.space.ranges, *names, *about])
    for trial in study.trials:
        number, told = number_of(trial), trial.user_attrs
        values: list[Any] = trial.values if number in complete else [""] * len(names)
        params = [trial.params.get(key, "") for key in study.space.ranges]
        cells = [max(trial.intermediate_values, default=""), told.get(SECONDS, ""), int(number in front)]
        row = [number, state_of(trial), *params, *values, *cells, int(DEFAULTS in told), told.get(ERROR, "")]
        writer.writerow(row)
    return out.getvalue()
