"""The table of runs that is printed when they have finished."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cl_powerprop import registry
from cl_powerprop.analysis.tables import NONE, format_value
from cl_powerprop.evaluation.metrics import Metric

_FACTS = ("strategy", "alpha", "optimizer", "seed")
_VERIFIED = {True: "verified to the bit", False: "no", None: NONE}


def print_runs(folders: Iterable[Path]) -> None:
    """Print one row per run: what it was, its metrics and its time; then its messages, and where the runs are."""
    folders = list(folders)
    runs = [json.loads((folder / "run.json").read_text(encoding="utf-8")) for folder in folders]
    metrics = _shown(runs)
    scenarios = {run["scenario"] for run in runs}
    facts = _FACTS if scenarios == {"task"} else ("scenario", *_FACTS)
    table = Table(title=", ".join(dict.fromkeys(f"{run['benchmark']} on {run['data']}" for run in runs)))
    for name in (*facts, *(escape(metric.label) for metric in metrics), "zero forgetting", "time"):
        table.add_column(name, justify="left" if name in ("scenario", "strategy") else "right")
    for run in runs:
        values = [format_value(metric, _number(run, metric)) for metric in metrics]
        verified, seconds = _VERIFIED[run["zero_forgetting_verified"]], run["seconds"]["total"]
        table.add_row(*(str(run[fact]) for fact in facts), *values, verified, f"{seconds:.0f} s")
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    for run in runs:
        name = f"{run['strategy']}, seed {run['seed']}"
        for message in run["messages"]:
            print(f"{name}: {message}")
        if run["status"] != "complete":
            print(f"{name}: {run['status']}: {run['error']}")
    print(f"run folder: {folders[0]}" if len(folders) == 1 else f"run folders: {folders[0].parent}/*")


def _shown(runs: list[dict[str, Any]]) -> list[Metric]:
    """Return the headline metrics that some run has."""
    metrics: list[Metric] = [metric for metric in registry.metrics().values() if metric.level == "headline"]
    return [metric for metric in metrics if any(not pd.isna(_number(run, metric)) for run in runs)]


def _number(run: dict[str, Any], metric: Metric) -> float:
    value = run["metrics"].get(metric.name)
    return float("nan") if value is None else float(value)
