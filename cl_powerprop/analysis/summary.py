"""The table of runs that is printed when they have finished."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from cl_powerprop import naming, registry
from cl_powerprop.analysis.run_record import read_record
from cl_powerprop.analysis.runs import read_settings
from cl_powerprop.analysis.tables import format_value
from cl_powerprop.analysis.verdicts import CONFUSED, NONE, TITLE, VERIFIED, confusion_note
from cl_powerprop.errors import RunFolderError
from cl_powerprop.evaluation.metrics import Metric, headline_for
from cl_powerprop.naming import SPARSE_TRAINING
from cl_powerprop.output import say, say_table

_FACTS = ("strategy", "benchmark", "data", "scenario", "model", "alpha", *SPARSE_TRAINING, "optimizer", "seed")
_VERIFIED = {True: VERIFIED, False: "no", None: NONE}
_ALSO = "validation_accuracy"  # what settings are chosen by
_MOST_SETTINGS = 6  # columns of the table; where more settings differ, only those that tell the runs apart


def print_runs(folders: Iterable[Path]) -> None:
    """Print one row per run: in what it differs from the others, its metrics and its time.

    What each run has to say follows, and where the runs are. Of a damaged run, a line says what is wrong with it.
    """
    read = _read(folders)
    if not read:
        return
    folders, runs = list(read), list(read.values())
    if len({folder.is_absolute() for folder in folders}) > 1:
        folders = [folder.absolute() for folder in folders]
    rows = [settings_of(folder, run) for folder, run in zip(folders, runs, strict=True)]
    shared = Path(os.path.commonpath([folder.parent for folder in folders]))
    places = [folder.relative_to(shared).as_posix() for folder in folders]
    metrics = _shown(runs)
    columns = _columns(runs, rows)
    jobs = _jobs(runs, places)
    table = Table(title=Text(", ".join(dict.fromkeys(f"{run['benchmark']} on {run['data']}" for run in runs))))
    for name in (*jobs, *(naming.heading(column, columns) for column in columns)):
        table.add_column(Text(name), justify="left" if name in ("folder", "scenario", "strategy") else "right")
    for name in (*(metric.label for metric in metrics), TITLE, "time"):
        table.add_column(Text(name), justify="right")
    for index, (run, row) in enumerate(zip(runs, rows, strict=True)):
        about = [jobs[name][index] for name in jobs] + naming.values(row, columns, rows)
        values = [format_value(metric, _number(run, metric)) for metric in metrics]
        verified, seconds = _VERIFIED[run.get("zero_forgetting_verified")], run["seconds"].get("total") or 0.0
        verified += CONFUSED if _confused(run) else ""
        table.add_row(*map(Text, about), *values, verified, f"{seconds:.0f} s")
    say_table(table, 160)
    known = _settings(rows)
    if len(runs) > 1 and (hidden := [column for column in naming.differing(rows, known) if column not in columns]):
        listed = ", ".join(f"{column} ({naming.different_values(rows, column)})" for column in hidden)
        say(f"note: the runs also differ in {listed}")
    if any(map(_confused, runs)):
        say(f"note: {confusion_note()}")
    for index, (run, name) in enumerate(zip(runs, naming.run_names(rows), strict=True)):
        name = f"job {jobs['job'][index]}: {name}" if "job" in jobs else name
        for message in run["messages"]:
            say(f"{name}: {message}")
        if run["status"] != "complete":
            say(": ".join(str(part) for part in (name, run["status"], run["error"]) if part))
    say(f"run folder: {folders[0]}" if len(folders) == 1 else f"run folders: {shared}/*")


def _read(folders: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    found = {}
    for folder in folders:
        try:
            record = read_record(folder)
        except RunFolderError as error:
            say(f"{folder}: {error}")
        else:
            numbers = {key: record.get(key) or {} for key in ("metrics", "seconds")}
            found[folder] = dict.fromkeys(_FACTS) | record | numbers
    return found


def settings_of(folder: Path, run: Mapping[str, Any]) -> naming.Row:
    """Return what a run is named by, from its folder and the content of its `run.json`."""
    facts = {key: run.get(key) for key in _FACTS}
    try:
        return read_settings(folder, run) | facts
    except RunFolderError:
        return facts


def _columns(runs: Sequence[Mapping[str, Any]], rows: Sequence[naming.Row]) -> list[str]:
    """Return the strategy, how runs are trained sparsely if any is, the settings in which they differ, and the seed."""
    settings = naming.differing(rows, _settings(rows))
    if len(settings) > _MOST_SETTINGS:
        settings = naming.distinguishing(rows, settings)
    scenario = [] if {run["scenario"] for run in runs} == {"task"} else ["scenario"]
    sparse = SPARSE_TRAINING if any(run.get("controller") for run in runs) else ()
    return list(dict.fromkeys([*scenario, "strategy", *sparse, *settings, "seed"]))


def _settings(rows: Sequence[naming.Row]) -> list[str]:
    """Return what can be a column of the table, besides the facts that always are."""
    known = naming.settings(list(dict.fromkeys(column for row in rows for column in row)))
    return ["benchmark", "data", *(column for column in known if column != "benchmark.scenario")]


def _jobs(runs: Sequence[Mapping[str, Any]], places: Sequence[str]) -> dict[str, list[str]]:
    """Return columns that say which run is where: the number in the multirun, and the folder if it is another one."""
    if len(runs) == 1:
        return {}
    if all(run.get("job") is None for run in runs):
        return {"folder": list(places)}
    numbers = [place if run.get("job") is None else str(run["job"]) for run, place in zip(runs, places, strict=True)]
    return {"job": numbers} if numbers == places else {"job": numbers, "folder": list(places)}


def _confused(run: dict[str, Any]) -> bool:
    """Return whether the run forgot nothing, but inferred some tasks wrongly."""
    identified = run["metrics"].get("task_identification")
    return bool(run.get("zero_forgetting_verified")) and identified is not None and identified < 1.0


def _shown(runs: list[dict[str, Any]]) -> list[Metric]:
    """Return the headline metrics that some run has, and validation accuracy."""
    known = headline_for(
        registry.metrics(), [run.get("controller") for run in runs], max(run["n_tasks"] for run in runs)
    )
    metrics = [metric for metric in known.values() if metric.level == "headline" or metric.name == _ALSO]
    return [metric for metric in metrics if any(not pd.isna(_number(run, metric)) for run in runs)]


def _number(run: dict[str, Any], metric: Metric) -> float:
    value = run["metrics"].get(metric.name)
    return float("nan") if value is None else float(value)
