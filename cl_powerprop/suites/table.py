"""The table of a suite: a row a method, with what it reaches, what it costs, and what it needs to know."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cl_powerprop.analysis.runs import Runs, load_runs
from cl_powerprop.analysis.statistics import Estimate, estimate
from cl_powerprop.config import RunConfig
from cl_powerprop.errors import RunFolderError
from cl_powerprop.suites.protocol import Outcome

ESTIMATED = ("average_accuracy", "average_forgetting", "total_size")
"""Metrics of which the table has the mean over the seeds and its 95 % t-interval; of the others it has the mean."""
MEANS = ("wsn_capacity", "mask_bits_stored", "seconds.total")
_NONE = float("nan")


@dataclass(frozen=True)
class Row:
    """A method in the table.

    Attributes:
        outcome: what came of it.
        measured: each metric over the seeds; one that no run has is estimated from nothing, and NaN.
        steps: optimizer steps a task; NaN without a run.
    """

    outcome: Outcome
    measured: Mapping[str, Estimate]
    steps: float


def rows(outcomes: Sequence[Outcome], problems: list[str]) -> list[Row]:
    """Return a row for each method, with what its runs have measured.

    Args:
        outcomes: what came of each method.
        problems: a line is added for each run that cannot be read.
    """
    folders = [folder for outcome in outcomes for folder in (outcome.runs or {}).values()]
    loaded = _load(folders, problems)
    return [_row(outcome, loaded) for outcome in outcomes]


def _load(folders: Sequence[Path], problems: list[str]) -> Runs | None:
    if not folders:
        return None
    try:
        loaded = load_runs(folders)
    except RunFolderError as error:
        problems.append(str(error))
        return None
    problems += loaded.problems
    return loaded


def _row(outcome: Outcome, loaded: Runs | None) -> Row:
    nothing = Row(outcome, {name: estimate([]) for name in (*ESTIMATED, *MEANS)}, _NONE)
    if loaded is None or not outcome.runs:
        return nothing
    own = loaded.runs[loaded.runs["path"].isin([str(folder) for folder in outcome.runs.values()])]
    numbers = own.reindex(columns=[*ESTIMATED, *MEANS]).apply(pd.to_numeric, errors="coerce")
    curves = loaded.curves[loaded.curves["run"].isin(list(own.index))]
    steps = curves.groupby("run")["step"].max() / own["n_tasks"]
    measured = {name: estimate(numbers[name].to_numpy(dtype=float)) for name in numbers}
    return Row(outcome, measured, float(steps.mean()))


def best_of_any_budget(found: Sequence[Row]) -> list[Row]:
    """Return the better row of each method on validation data: that of the equal budget, or that of its own.

    In the order of the methods; empty if no method has a budget of its own.
    """
    if not any(row.outcome.entry.any_budget for row in found):
        return []
    tries: dict[str, list[Row]] = {}
    for row in found:
        tries.setdefault(row.outcome.entry.name, []).append(row)
    return [max(those, key=_validation_accuracy) for those in tries.values()]


def _validation_accuracy(row: Row) -> float:
    return row.outcome.tuned.accuracy if row.outcome.tuned else -1.0


def needs(config: RunConfig) -> tuple[str, bool, bool]:
    """Return what a method needs to know: the task of test samples, earlier samples, the number of tasks in advance.

    The first says what for: the task's "weights", its "head" only, or "" where it does not need it.
    """
    strategy = config.make_strategy()
    of_weights = strategy.needs_task and not strategy.infers_task
    of_head = config.model.heads == "per_task" and not strategy.infers_task
    return "weights" if of_weights else "head" if of_head else "", strategy.keeps_samples, strategy.needs_n_tasks


def table(found: Sequence[Row]) -> pd.DataFrame:
    """Return the table as numbers and text, for programs: a row for each method, empty where nothing is known."""
    return pd.DataFrame([dict(_cells(row)) for row in found])


def _cells(row: Row) -> Iterator[tuple[str, Any]]:
    outcome, tuned = row.outcome, row.outcome.tuned
    yield "method", outcome.entry.name
    yield "label", outcome.entry.method.label
    yield "budget", "any" if outcome.entry.any_budget else "equal"
    for name in ESTIMATED:
        measured = row.measured[name]
        yield from ((name, measured.mean), (f"{name}_low", measured.t_low), (f"{name}_high", measured.t_high))
    for name in MEANS:
        yield name, row.measured[name].mean
    identity, buffer, n_tasks = needs(tuned.config) if tuned else (None, None, None)
    yield from (("task_identity", identity), ("buffer", buffer), ("number_of_tasks", n_tasks))
    yield "steps_per_task", row.steps
    yield "seeds", " ".join(map(str, outcome.runs or ()))
    yield "validation_accuracy", tuned.accuracy if tuned else _NONE
    yield from (("trials", tuned.trials[0] if tuned else 0), ("trials_not_complete", tuned.trials[1] if tuned else 0))
    yield "settings", " ".join(f"{key}={value}" for key, value in tuned.values.items()) if tuned else ""
    yield "reason", outcome.reason
