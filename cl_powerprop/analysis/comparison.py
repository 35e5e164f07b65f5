"""Which runs can be compared, what differs between them, and what a reader should be warned of."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cl_powerprop.analysis.runs import Runs
from cl_powerprop.errors import ConfigurationError, RunFolderError

# Best first where more is better, then where less is; times and memory last.
METRICS = {
    "average_accuracy": "average accuracy",
    "average_forgetting": "average forgetting",
    "learning_accuracy": "learning accuracy",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
    "average_incremental_accuracy": "average incremental accuracy",
    "min_accuracy": "min-accuracy",
    "worst_case_accuracy": "worst-case accuracy",
    "intransigence": "intransigence",
    "joint_gap": "gap to joint training",
    "task_identification": "tasks identified",
    "capacity_used": "capacity used",
    "mask_bits": "bits of masks",
    "validation_accuracy": "validation accuracy",
    "seconds.total": "seconds",
    "peak_memory_mb": "peak memory (MiB)",
}
_TESTED = ("average_accuracy", "average_forgetting", "learning_accuracy", "capacity_used")

# Settings that do not change what is measured.
_INDIFFERENT = ("train.threads", "train.eval_batch_size", "data.root", "data.download")
_PREFERRED = ("alpha", "model", "optimizer")  # what a group is named by first, where settings vary together
_MOST_NAMED = 3  # runs that a message names


@dataclass(frozen=True)
class Comparison:
    """Runs in groups over seeds.

    Attributes:
        runs: the complete ones that are compared.
        groups: for each group's label the names of its runs, by seed.
        by: the columns that tell groups apart.
        metrics: the columns of ``runs.runs`` that are reported, and of them those that are tested in pairs.
        warnings: what a reader should know, a line each.
    """

    runs: Runs
    groups: dict[str, list[str]]
    by: list[str]
    metrics: list[str]
    tested: list[str]
    warnings: list[str]

    def values(self, group: str, metric: str) -> pd.Series:
        """Return a metric of each run of a group, by seed (a mean, where a seed has several runs)."""
        rows = self.runs.runs.loc[self.groups[group]]
        numbers: pd.Series = pd.to_numeric(rows[metric], errors="coerce")
        return numbers.groupby(rows["seed"]).mean()

    @property
    def group_of(self) -> dict[str, str]:
        """The group of each run."""
        return {name: label for label, names in self.groups.items() for name in names}


def compare_runs(
    loaded: Runs, by: Sequence[str] | None = None, metrics: Sequence[str] | None = None, allow_mixed: bool = False
) -> Comparison:
    """Group the complete runs over seeds.

    Args:
        loaded: the runs.
        by: columns of ``loaded.runs`` to group by; None for strategy and whatever varies within one.
        metrics: columns to report; None for all that some run has.
        allow_mixed: compare runs of different benchmarks, data or tasks all the same.

    Raises:
        RunFolderError: if no run is complete, or they are not comparable.
        ConfigurationError: for a column or metric that does not exist.
    """
    runs = loaded.runs
    warnings = [*loaded.problems, *_unfinished(runs)]
    complete = runs[runs["status"] == "complete"]
    if complete.empty:
        raise RunFolderError(f"none of {len(runs)} runs is complete" + (f": {warnings[0]}" if warnings else ""))
    mixed = _differences(complete)
    if mixed and not allow_mixed:
        raise RunFolderError(
            f"the runs are not comparable: {'; '.join(mixed.values())}; "
            "choose runs of one kind, or compare them all the same with --allow-mixed"
        )
    warnings += [f"not of one kind: {line}" for line in mixed.values()]
    chosen = _check_columns(complete, by) if by else [*mixed, *_distinguishing(complete, mixed)]
    complete, repeated = _without_repeats(complete, chosen)
    warnings += repeated
    groups = _groups(complete, chosen)
    warnings += _varying(complete, groups) if by else []
    warnings += _different_settings(complete, groups, chosen)
    warnings += _missing_seeds(complete, groups)
    warnings += _diverged(complete)
    reported = _metrics(complete, metrics)
    tested = list(metrics) if metrics else [metric for metric in _TESTED if metric in reported]
    return Comparison(loaded.select(list(complete.index)), groups, chosen, reported, tested, warnings)


def _unfinished(runs: pd.DataFrame) -> list[str]:
    lines = []
    for name, row in runs[runs["status"] != "complete"].iterrows():
        reason = f" ({row['error']})" if isinstance(row["error"], str) else ""
        lines.append(
            f"{name}: {row['status']} after {row['trained_tasks']} of {row['n_tasks']} tasks{reason}, left out"
        )
    return lines


def _differences(runs: pd.DataFrame) -> dict[str, str]:
    """Return what makes runs incomparable: for each column a phrase with its values."""
    columns = ["benchmark", "scenario", "data", "n_tasks", "data.size"]
    columns += [column for column in runs.columns if column.startswith("benchmark.")]
    found = {}
    for column in dict.fromkeys(columns):
        if column not in runs or (column == "benchmark.n_tasks" and "n_tasks" in found):
            continue
        counts = runs[column].astype(object).where(runs[column].notna(), "none").value_counts()
        if column == "benchmark.scenario" or len(counts) < 2:
            continue
        if column.startswith("benchmark.") and "benchmark" in found:
            continue  # another benchmark has other options
        found[column] = f"{column} is " + " and ".join(
            f"{value} ({count} run{'s' if count > 1 else ''})" for value, count in counts.items()
        )
    return found


def _check_columns(runs: pd.DataFrame, by: Sequence[str]) -> list[str]:
    for column in by:
        if column not in runs or runs[column].map(lambda value: isinstance(value, list)).any():
            near = difflib.get_close_matches(column, runs.columns, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            known = [name for name in ("strategy", *_settings(runs)) if name in runs and runs[name].nunique() > 1]
            raise ConfigurationError(
                f"--by {column}: runs have no such column; {hint}those that vary: {', '.join(known) or 'none'}"
            )
    return list(by)


def _settings(runs: pd.DataFrame) -> list[str]:
    dotted = [name for name in runs.columns if "." in name and not name.startswith(("seconds.", "evaluation."))]
    rest = [name for name in dotted if name not in _INDIFFERENT and name != "model.alpha"]
    return [*_PREFERRED, *rest]


def _distinguishing(runs: pd.DataFrame, mixed: dict[str, str]) -> list[str]:
    """Return strategy, and as few settings as tell apart the runs of one strategy that differ in any."""
    text = runs.astype(object).where(runs.notna(), "none").astype(str)
    by_strategy = text.groupby("strategy")
    varying = [
        column
        for column in _settings(runs)
        if column in text and column not in mixed and (by_strategy[column].nunique() > 1).any()
    ]
    base = [*mixed, "strategy"]
    target = text.groupby([*base, *varying]).ngroups
    chosen: list[str] = []
    for column in varying:
        if text.groupby([*base, *chosen]).ngroups == target:
            break
        if text.groupby([*base, *chosen, column]).ngroups > text.groupby([*base, *chosen]).ngroups:
            chosen.append(column)
    return ["strategy", *chosen]


def _without_repeats(runs: pd.DataFrame, by: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Leave out all but the last of runs that repeat one config and seed."""
    text = runs.astype(object).where(runs.notna(), "none").astype(str)
    same = [column for column in ("benchmark", "data", "strategy", "seed", *_settings(runs), *by) if column in text]
    same += [str(column) for column in text if str(column).startswith("benchmark.")]
    known = (
        runs[[metric for metric in METRICS if metric in runs]].notna().sum(axis=1)
    )  # one evaluated within tasks has more
    later = text.assign(known=known).sort_values(["known", "finished"], kind="stable")
    repeats = later[later.duplicated(list(dict.fromkeys(same)), keep="last")].index
    kept = runs.drop(index=repeats)
    if repeats.empty:
        return kept, []
    named = ", ".join(map(str, repeats[:_MOST_NAMED])) + (", ..." if len(repeats) > _MOST_NAMED else "")
    return kept, [f"{len(repeats)} run(s) repeat the config and seed of another and are left out: {named}"]


def _groups(runs: pd.DataFrame, by: Sequence[str]) -> dict[str, list[str]]:
    """Return the runs of each group by seed, groups in the order their first run was given in."""
    keys = {
        str(name): tuple(repr(runs.loc[name, column]) if pd.notna(runs.loc[name, column]) else "" for column in by)
        for name in runs.index
    }
    labels: dict[tuple[str, ...], str] = {}
    for name, key in keys.items():
        if key not in labels:
            row: Any = runs.loc[name]
            label = _label(row, by, runs)
            labels[key] = label if label not in labels.values() else f"{label} ({', '.join(key)})"
    groups: dict[str, list[str]] = {label: [] for label in labels.values()}
    for name in runs.sort_values("seed", kind="stable").index:
        groups[labels[keys[str(name)]]].append(str(name))
    return groups


def _label(row: pd.Series, by: Sequence[str], runs: pd.DataFrame) -> str:
    """Return the strategy, and what else a group is told by where that varies for it."""
    parts = []
    for column in by:
        value = row[column]
        if column in ("strategy", "benchmark", "data"):
            parts.append(str(value))
            continue
        alike = runs[runs["strategy"] == row["strategy"]] if "strategy" in by else runs
        if alike[column].nunique(dropna=False) > 1 and pd.notna(value):
            name = column.rpartition(".")[2] if column not in ("model", "optimizer") else ""
            parts.append(f"{name} {_short(value)}".strip())
    return ", ".join(parts) or "all runs"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _varying(runs: pd.DataFrame, groups: dict[str, list[str]]) -> list[str]:
    lines = []
    for label, names in groups.items():
        rows = runs.loc[names]
        varying = [
            f"{column} ({', '.join(sorted({_short(value) for value in rows[column]}))})"
            for column in ("strategy", "benchmark", "data", "scenario", *_settings(runs))
            if column in rows and rows[column].nunique(dropna=False) > 1
        ]
        if varying:
            lines.append(f"{label}: its runs differ in {', '.join(varying)}, and are averaged all the same")
    return lines


def _different_settings(runs: pd.DataFrame, groups: dict[str, list[str]], by: Sequence[str]) -> list[str]:
    """Tell of training settings that differ between groups without being what tells them apart."""
    lines = []
    for column in _settings(runs):
        if column in by or not column.startswith("train.") or column not in runs:
            continue
        values = {label: set(map(_short, runs.loc[names, column])) for label, names in groups.items()}
        if len(set(map(frozenset, values.values()))) > 1:
            told = "; ".join(f"{label} {', '.join(sorted(found))}" for label, found in values.items())
            lines.append(f"groups differ in {column}: {told}")
    return lines


def _missing_seeds(runs: pd.DataFrame, groups: dict[str, list[str]]) -> list[str]:
    every = sorted(runs["seed"].unique())
    lines = []
    for label, names in groups.items():
        missing = [str(seed) for seed in every if seed not in set(runs.loc[names, "seed"])]
        if missing:
            lines.append(f"{label}: no run with seed {', '.join(missing)}")
    return lines


def _diverged(runs: pd.DataFrame) -> list[str]:
    return [
        f"{name}: no better than guessing on task(s) {', '.join(map(str, tasks))}, which count all the same"
        for name, tasks in runs["diverged_tasks"].items()
        if isinstance(tasks, list) and tasks
    ]


def _metrics(runs: pd.DataFrame, metrics: Sequence[str] | None) -> list[str]:
    known = [metric for metric in METRICS if metric in runs and pd.to_numeric(runs[metric]).notna().any()]
    if not metrics:
        return known
    for metric in metrics:
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigurationError(f"--metric {metric}: no run has it; {hint}choose from: {', '.join(known)}")
    return list(metrics)
