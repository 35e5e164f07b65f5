"""Runs as a table."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

RUN = ("benchmark", "scenario", "data", "model", "strategy", "alpha", "optimizer", "seed", "status")
METRICS = (
    *("average_accuracy", "average_forgetting", "learning_accuracy", "validation_accuracy"),
    *("task_identification", "capacity_used"),
)


def load_summary(folders: Iterable[Path]) -> pd.DataFrame:
    """Return one row a run: what it was, its metrics, its time and its status."""
    rows = []
    for folder in folders:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        row = {key: content[key] for key in RUN}
        row |= {metric: content["metrics"].get(metric) for metric in METRICS}
        row["zero_forgetting_verified"] = content["zero_forgetting_verified"]
        row["seconds"] = content["seconds"]["total"]
        row["folder"] = str(folder)
        rows.append(row)
    return pd.DataFrame(rows)


def print_runs(folders: Iterable[Path]) -> None:
    """Print the runs as a table, and below it where they are and what a user should know of them."""
    folders = list(folders)
    runs = load_summary(folders)
    table = Table(title=", ".join(f"{row.benchmark} on {row.data}" for row in _distinct(runs, "benchmark", "data")))
    columns = ["strategy", "alpha", "optimizer", "seed"]
    if runs.scenario.nunique() > 1 or runs.scenario.iloc[0] != "task":
        columns.insert(0, "scenario")
    found = ["tasks found"] if runs.task_identification.notna().any() else []
    for name in (*columns, "average accuracy", *found, "forgetting", "capacity used", "zero forgetting", "time"):
        table.add_column(name, justify="left" if name in ("scenario", "strategy") else "right")
    row: Any
    for row in runs.itertuples():
        verified = {True: "verified to the bit", False: "no", None: "-"}[row.zero_forgetting_verified]
        table.add_row(
            *(str(getattr(row, column)) for column in columns),
            _number(row.average_accuracy, ".4f"),
            *(_number(row.task_identification, ".1%") for _ in found),
            _number(row.average_forgetting, ".4f"),
            _number(row.capacity_used, ".1%"),
            verified,
            f"{row.seconds:.0f} s",
        )
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    for folder in folders:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        for message in content["messages"]:
            print(f"{content['strategy']}, seed {content['seed']}: {message}")
        if content["status"] != "complete":
            print(f"{content['strategy']}, seed {content['seed']}: {content['status']}: {content['error']}")
    print(f"run folder: {folders[0]}" if len(folders) == 1 else f"run folders: {folders[0].parent}/*")


def _distinct(runs: pd.DataFrame, *columns: str) -> Iterable[Any]:
    distinct: Iterable[Any] = runs[list(columns)].drop_duplicates().itertuples()
    return distinct


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None or pd.isna(value) else format(value, pattern)
