"""What a study found: a line for each trial, a table, `trials.csv`, figures, and the best settings as a recipe."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cl_powerprop.composition import compose
from cl_powerprop.files import write_file
from cl_powerprop.naming import heading, text
from cl_powerprop.output import duration, say, say_table
from cl_powerprop.shown import shell_word
from cl_powerprop.tuning.recipe import write_recipe

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from cl_powerprop.tuning.objectives import Objective
    from cl_powerprop.tuning.study import Study

_MOST_ROWS = 10  # of the table
_WIDTH = 120  # of the table, where there is no terminal


def trial_line(trial: FrozenTrial, name: str, objectives: Sequence[Objective]) -> str:
    """Return what became of a trial, in one line."""
    from optuna.trial import TrialState

    start = f"trial {trial.number}: {name}: "
    if "error" in trial.user_attrs:
        return f"{start}failed: {trial.user_attrs['error']}"
    if trial.state == TrialState.PRUNED:
        (task, accuracy) = max(trial.intermediate_values.items())
        return f"{start}pruned after task {task}, validation accuracy {accuracy:.4f}"
    shown = zip(objectives, _shown(trial, objectives), strict=True)
    reached = ", ".join(f"{objective.metric.label} {value}" for objective, value in shown)
    return f"{start}{reached}, {duration(trial.user_attrs.get('seconds', 0.0))}"


def _shown(trial: FrozenTrial, objectives: Sequence[Objective]) -> list[str]:
    from cl_powerprop.analysis.tables import format_value

    values = trial.values or [math.nan] * len(objectives)
    return [format_value(objective.metric, value) for objective, value in zip(objectives, values, strict=True)]


def write_report(study: Study) -> bool:
    """Write and print what the study found; return whether any trial is complete."""
    from cl_powerprop.tuning.figures import draw_figures

    write_file(study.folder / "trials.csv", _table_file(study).encode())
    trials, best = study.trials, study.best()
    states = [trial.state.name.lower().replace("fail", "failed") for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    say(f"{len(trials)} trials: {counts}")
    if not best:
        say("no trial is complete: there is no best one")
        return False
    _print(study, best)
    configs = None
    about = "found by cl-powerprop tune: the best trial, and with several objectives each one of the Pareto front"
    for name, trial in [("best", best[0]), *((f"trial_{each.number}", each) for each in best if len(best) > 1)]:
        config = compose(study.space.overrides(study.values(trial.number)))
        configs = write_recipe(study.folder, name, config, about)
    draw_figures(study)
    say(f"table, figures and runs: {study.folder}")
    say(f"run the best settings by: cl-powerprop run --config-dir {shell_word(str(configs))} experiment=best")
    return True


def _print(study: Study, best: Sequence[FrozenTrial]) -> None:
    from rich.table import Table
    from rich.text import Text

    front = len(study.objectives) > 1
    first = study.objectives[0]
    ranked = sorted(study.complete, key=lambda trial: -first.sign * trial.values[0])
    rows = list(best) if front else ranked[:_MOST_ROWS]
    ranges = [*study.space.ranges]
    table = Table(title="trials that no other one beats" if front else "the best trials, on validation data")
    for column in (
        "trial",
        *(heading(key, ranges) for key in ranges),
        *(each.metric.label for each in study.objectives),
    ):
        table.add_column(Text(column), justify="right")
    for trial in rows:
        cells = [str(trial.number), *(text(trial.params[key], 4) for key in ranges), *_shown(trial, study.objectives)]
        table.add_row(*map(Text, cells))
    say_table(table, _WIDTH)


def _table_file(study: Study) -> str:
    """Return all trials as CSV."""
    front, complete = ({trial.number for trial in trials} for trials in (study.best(), study.complete))
    names = [objective.metric.name for objective in study.objectives]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trial", "state", *study.space.ranges, *names, "last_judged_after", "seconds", "best", "error"])
    for trial in study.trials:
        values: list[Any] = trial.values if trial.number in complete else [""] * len(names)
        told = [max(trial.intermediate_values, default=""), trial.user_attrs.get("seconds", "")]
        params = [trial.params.get(key, "") for key in study.space.ranges]
        about = [int(trial.number in front), trial.user_attrs.get("error", "")]
        writer.writerow([trial.number, trial.state.name.lower(), *params, *values, *told, *about])
    return out.getvalue()
