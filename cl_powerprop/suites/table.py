"""The table of a suite: a row a method, with what it reaches, what it costs, and what it needs to know."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cl_powerprop.analysis.runs import Runs, load_runs
from cl_powerprop.analysis.statistics import Estimate, estimate
from cl_powerprop.config import RunConfig
from cl_powerprop.errors import RunFolderError
from cl_powerprop.shown import as_line
from cl_powerprop.suites.protocol import Entry, Outcome, csv_rows

ESTIMATED = ("average_accuracy", "average_forgetting", "total_size")
"""Metrics of which the table has the mean over the seeds and its 95 % t-interval; of the others it has the mean."""
MEANS = ("wsn_capacity", "mask_bits_stored", "seconds.total")
_NEEDS = ("task_identity", "buffer", "number_of_tasks")
_TRIALS = ("trials", "trials_not_complete")
_NONE = float("nan")


@dataclass(frozen=True)
class Row:
    """A method in the table.

    Attributes:
        entry: the method.
        measured: each metric over the seeds; one that no run has is estimated from nothing, and NaN.
        steps: optimizer steps a task; NaN without a run.
        seeds: of its runs.
        needs: what it needs to know, as :func:`needs` returns it; None if no settings were found that work.
        accuracy: average validation accuracy of the best trial, or NaN.
        trials: how many have ended, and how many of these failed or diverged.
        settings: that were tuned, as text.
        reason: why there is no run, or fewer than there are seeds; "" if all are there.
        refused: whether it cannot run in the suite's scenario.
    """

    entry: Entry
    measured: Mapping[str, Estimate]
    steps: float = _NONE
    seeds: tuple[int, ...] = ()
    needs: tuple[str, bool, bool] | None = None
    accuracy: float = _NONE
    trials: tuple[int, int] = (0, 0)
    settings: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    refused: bool = False


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
    measured, steps = _measurements(outcome.runs, loaded)
    row = Row(
        outcome.entry,
        measured,
        steps,
        seeds=tuple(outcome.runs or ()),
        reason=outcome.reason,
        refused=outcome.refused,
    )
    if (tuned := outcome.tuned) is None:
        return row
    return replace(row, needs=needs(tuned.config), accuracy=tuned.accuracy, trials=tuned.trials, settings=tuned.values)


def _measurements(runs: Mapping[int, Path] | None, loaded: Runs | None) -> tuple[dict[str, Estimate], float]:
    """Return each metric over the runs of a method, and their steps a task."""
    if loaded is None or not runs:
        return {name: estimate([]) for name in (*ESTIMATED, *MEANS)}, _NONE
    own = loaded.runs[loaded.runs["path"].isin([str(folder) for folder in runs.values()])]
    numbers = own.reindex(columns=[*ESTIMATED, *MEANS]).apply(pd.to_numeric, errors="coerce")
    curves = loaded.curves[loaded.curves["run"].isin(list(own.index))]
    steps = curves.groupby("run")["step"].max() / own["n_tasks"]
    return {name: estimate(numbers[name].to_numpy(dtype=float)) for name in numbers}, float(steps.mean())


def best_of_any_budget(found: Sequence[Row]) -> list[Row]:
    """Return the better row of each method on validation data: that of the equal budget, or that of its own.

    In the order of the methods; empty if no method has a budget of its own.
    """
    if not any(row.entry.any_budget for row in found):
        return []
    tries: dict[str, list[Row]] = {}
    for row in found:
        tries.setdefault(row.entry.name, []).append(row)
    return [max(those, key=_validation_accuracy) for those in tries.values()]


def _validation_accuracy(row: Row) -> float:
    return -1.0 if math.isnan(row.accuracy) else row.accuracy


def needs(config: RunConfig) -> tuple[str, bool, bool]:
    """Return what a method needs to know: the task of test samples, earlier samples, the number of tasks in advance.

    The first says what for: the task's "weights", its "head" only, or "" where it does not need it; and "100 of one
    task" where it infers the task from that many test samples.
    """
    strategy = config.make_strategy()
    if strategy.infers_task:
        task = f"{strategy.inference_batch} of one task" if strategy.inference_batch > 1 else ""
    else:
        task = "weights" if strategy.needs_task else "head" if config.model.heads == "per_task" else ""
    return task, strategy.keeps_samples, strategy.needs_n_tasks


def table(found: Sequence[Row]) -> pd.DataFrame:
    """Return the table as numbers and text, for programs: a row for each method, empty where nothing is known."""
    return pd.DataFrame([dict(_cells(row)) for row in found])


def _cells(row: Row) -> Iterator[tuple[str, Any]]:
    yield "method", row.entry.name
    yield "label", row.entry.method.label
    yield "budget", _budget(row.entry)
    for name in ESTIMATED:
        measured = row.measured[name]
        yield from ((name, measured.mean), (f"{name}_low", measured.t_low), (f"{name}_high", measured.t_high))
    for name in MEANS:
        yield name, row.measured[name].mean
    yield from zip(_NEEDS, row.needs or (None, None, None), strict=True)
    yield "steps_per_task", row.steps
    yield "seeds", " ".join(map(str, row.seeds))
    yield "validation_accuracy", row.accuracy
    yield from zip(_TRIALS, row.trials, strict=True)
    yield "settings", " ".join(f"{key}={value}" for key, value in row.settings.items())
    yield "reason", row.reason
    yield "refused", row.refused


def _budget(entry: Entry) -> str:
    return "any" if entry.any_budget else "equal"


def recorded_rows(file: Path, known: Sequence[Entry]) -> list[Row]:
    """Return the rows that an earlier table has of some methods; none if there is no table.

    Args:
        file: the table as CSV, which :func:`table` made.
        known: the methods.

    Raises:
        RunFolderError: if it cannot be read, or is no such table.
    """
    lines = csv_rows(file)
    by_name = {(entry.name, _budget(entry)): entry for entry in known}
    try:
        return [
            _recorded(by_name[name], line) for line in lines if (name := (line["method"], line["budget"])) in by_name
        ]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{file} is damaged, and its other rows would be lost; move it away first") from error


def _recorded(entry: Entry, line: Mapping[str, str]) -> Row:
    """Return a row from its cells.

    Raises:
        KeyError, ValueError, TypeError, AttributeError: if they are not those of a row.
    """
    seeds = tuple(int(seed) for seed in line["seeds"].split())
    settings = dict(setting.split("=", 1) for setting in line["settings"].split())
    if not (line["settings"] + line[_NEEDS[0]]).isprintable():
        raise ValueError("text that no terminal should show")
    bounds = {name: (_number(line[f"{name}_low"]), _number(line[f"{name}_high"])) for name in ESTIMATED}
    measured = {
        name: _known(len(seeds), _number(line[name]), *bounds.get(name, (_NONE, _NONE)))
        for name in (*ESTIMATED, *MEANS)
    }
    task, *flags = (line[name] for name in _NEEDS)
    return Row(
        entry,
        measured,
        steps=_number(line["steps_per_task"]),
        seeds=seeds,
        needs=(task, _flag(flags[0]), _flag(flags[1])) if any(flags) else None,
        accuracy=_number(line["validation_accuracy"]),
        trials=(int(line[_TRIALS[0]]), int(line[_TRIALS[1]])),
        settings=settings,
        reason=as_line(line["reason"]),
        refused=_flag(line.get("refused", "False")),  # which tables did not have at first
    )


def _known(n: int, mean: float, low: float = _NONE, high: float = _NONE) -> Estimate:
    return estimate([]) if math.isnan(mean) else Estimate(n, mean, _NONE, low, high, _NONE, _NONE)


def _number(text: str) -> float:
    return float(text) if text else _NONE


def _flag(text: str) -> bool:
    return {"True": True, "False": False}[text]
