"""Which runs can be compared, how they are grouped, and what a reader should be warned of."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from cl_powerprop import naming, registry
from cl_powerprop.analysis.runs import Runs
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.evaluation.metrics import Metric

_MOST_NAMED = 3  # runs that a warning lists by name


@dataclass(frozen=True)
class Comparison:
    """Runs in groups; the runs of a group are repetitions over seeds.

    Attributes:
        runs: the complete runs that are compared.
        groups: for each group's label, the names of its runs, ordered by seed.
        by: the columns that distinguish groups.
        metrics: the metrics that are reported, by name; each is a column of ``runs.runs``.
        warnings: what a reader should know, one line each.
    """

    runs: Runs
    groups: dict[str, list[str]]
    by: list[str]
    metrics: dict[str, Metric]
    warnings: list[str]

    @property
    def headline(self) -> list[Metric]:
        """The metrics that every table shows, and whose differences between groups are tested."""
        return [metric for metric in self.metrics.values() if metric.level == "headline"]

    def values(self, group: str, metric: str) -> pd.Series:
        """Return a group's values of a metric by seed (the mean, where a seed has several runs)."""
        rows = self.runs.runs.loc[self.groups[group]]
        numbers: pd.Series = pd.to_numeric(rows[metric], errors="coerce")
        return numbers.groupby(rows["seed"]).mean()

    @property
    def group_of(self) -> dict[str, str]:
        """The group of each run."""
        return {name: label for label, names in self.groups.items() for name in names}

    @property
    def position(self) -> dict[str, int]:
        """The position of each group among all."""
        return {label: index for index, label in enumerate(self.groups)}


def compare_runs(
    loaded: Runs, by: Sequence[str] | None = None, metrics: Sequence[str] | None = None, allow_mixed: bool = False
) -> Comparison:
    """Group the complete runs over seeds.

    Args:
        loaded: the runs.
        by: columns of ``loaded.runs`` to group by; None for the strategy and the settings that vary within a strategy.
        metrics: names of those to report in every table and to test; None for all that some run has.
        allow_mixed: compare runs even if their benchmarks, data or tasks differ.

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
            "choose runs that differ in none of these, or compare them anyway with --allow-mixed"
        )
    warnings += [f"the runs differ: {line}" for line in mixed.values()]
    settings = _settings(loaded)
    if by:
        chosen = _check_columns(complete, by, settings)
    else:
        base = [*mixed, "strategy"]
        chosen = [*base, *naming.distinguishing(list(_rows(complete).values()), settings, base)]
    complete, repeated = _without_repeats(complete, [*settings, *chosen], loaded.metrics)
    warnings += repeated
    groups = _groups(complete, chosen)
    warnings += _varying(complete, groups, settings) if by else []
    warnings += _different_training(complete, groups, [column for column in settings if column not in chosen])
    warnings += _missing_seeds(complete, groups)
    warnings += _diverged(complete)
    measured = _measured(complete, loaded.metrics)
    reported = _choose(measured, metrics) if metrics else measured
    return Comparison(loaded.select(list(complete.index)), groups, chosen, reported, warnings)


def _settings(loaded: Runs) -> list[str]:
    """Return the columns that are settings of a run and can change what it measures."""
    return [name for name in naming.settings(list(loaded.runs.columns)) if name not in loaded.metrics]


def _unfinished(runs: pd.DataFrame) -> list[str]:
    lines = []
    for name, row in runs[runs["status"] != "complete"].iterrows():
        reason = f" ({row['error']})" if isinstance(row["error"], str) else ""
        lines.append(
            f"{name}: {row['status']} after {row['trained_tasks']} of {row['n_tasks']} tasks{reason}, left out"
        )
    return lines


def _differences(runs: pd.DataFrame) -> dict[str, str]:
    """Return the columns that make the runs incomparable, each with a phrase that lists its values."""
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


def _check_columns(runs: pd.DataFrame, by: Sequence[str], settings: list[str]) -> list[str]:
    for column in by:
        if column not in runs or runs[column].map(lambda value: isinstance(value, list)).any():
            near = difflib.get_close_matches(column, runs.columns, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            known = [name for name in ("strategy", *settings) if runs[name].nunique() > 1]
            raise ConfigurationError(
                f"--by {column}: runs have no such column; {hint}those that vary: {', '.join(known) or 'none'}"
            )
    return list(by)


def _rows(runs: pd.DataFrame) -> dict[str, naming.Row]:
    """Return each run's row of the table by its name."""
    columns = list(map(str, runs.columns))
    cells = zip(map(str, runs.index), runs.to_numpy(object), strict=True)
    return {name: dict(zip(columns, row, strict=True)) for name, row in cells}


def _without_repeats(
    runs: pd.DataFrame, columns: Sequence[str], metrics: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Leave out runs that repeat the config and seed of another: the one with most metrics stays, then the latest."""
    text = runs.astype(object).where(runs.notna(), "none").astype(str)
    same = ["benchmark", "data", "strategy", "seed", *columns]
    same += [column for column in text.columns if column.startswith("benchmark.")]
    known = runs[list(metrics)].notna().sum(axis=1)
    later = text.assign(known=known).sort_values(["known", "finished"], kind="stable")
    repeats = later[later.duplicated(list(dict.fromkeys(same)), keep="last")].index
    kept = runs.drop(index=repeats)
    if repeats.empty:
        return kept, []
    named = ", ".join(map(str, repeats[:_MOST_NAMED])) + (", ..." if len(repeats) > _MOST_NAMED else "")
    return kept, [f"{len(repeats)} run(s) repeat the config and seed of another and are left out: {named}"]


def _groups(runs: pd.DataFrame, by: Sequence[str]) -> dict[str, list[str]]:
    """Return the runs of each group, ordered by seed; the groups are in the order of their first runs."""
    labels = naming.labels(_rows(runs), by)
    groups: dict[str, list[str]] = {label: [] for label in labels.values()}
    for name in map(str, runs.sort_values("seed", kind="stable").index):
        groups[labels[name]].append(name)
    return groups


def _varying(runs: pd.DataFrame, groups: dict[str, list[str]], settings: list[str]) -> list[str]:
    lines = []
    for label, names in groups.items():
        rows = runs.loc[names]
        varying = [
            f"{column} ({', '.join(sorted({naming.text(value) for value in rows[column]}))})"
            for column in ("strategy", "benchmark", "data", "scenario", *settings)
            if rows[column].nunique(dropna=False) > 1
        ]
        if varying:
            lines.append(f"{label}: its runs differ in {', '.join(varying)} and are averaged anyway")
    return lines


def _different_training(runs: pd.DataFrame, groups: dict[str, list[str]], settings: list[str]) -> list[str]:
    """Warn of training settings that differ between groups, other than those that distinguish the groups."""
    lines = []
    for column in settings:
        if not column.startswith("train."):
            continue
        values = {label: set(map(naming.text, runs.loc[names, column])) for label, names in groups.items()}
        if len(set(map(frozenset, values.values()))) > 1:
            listed = "; ".join(f"{label} {', '.join(sorted(found))}" for label, found in values.items())
            lines.append(f"groups differ in {column}: {listed}")
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
        f"{name}: no better than guessing on task(s) {', '.join(map(str, tasks))}, which count anyway"
        for name, tasks in runs["diverged_tasks"].items()
        if isinstance(tasks, list) and tasks
    ]


def _measured(runs: pd.DataFrame, columns: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics that some run has: those registered, then those of plugins that are not imported now."""
    known: dict[str, Metric] = registry.metrics()
    known |= {name: Metric(name, name, "", None, None) for name in columns if name not in known}
    return {
        name: metric
        for name, metric in known.items()
        if name in runs and pd.to_numeric(runs[name], errors="coerce").notna().any()
    }


def _choose(measured: dict[str, Metric], names: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics of these names; chosen ones are headline metrics."""
    for name in names:
        if name not in measured:
            near = difflib.get_close_matches(name, measured, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigurationError(f"--metric {name}: no run has it; {hint}choose from: {', '.join(measured)}")
    return {name: replace(measured[name], level="headline") for name in names}
