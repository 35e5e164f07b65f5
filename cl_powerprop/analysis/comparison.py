"""Which runs can be compared, how they are grouped, and what a reader should be warned of."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from cl_powerprop import naming
from cl_powerprop.analysis.choosing import check_columns, choose_metrics, measured_metrics
from cl_powerprop.analysis.runs import Runs
from cl_powerprop.errors import RunFolderError
from cl_powerprop.evaluation.metrics import Metric
from cl_powerprop.shown import as_setting

_MOST_NAMED = 3  # runs that a warning lists by name
_MOST_GROUPS = 12  # groups that a warning lists by name, or that have a warning each
_MOST_SEEDS = 20  # seeds that a warning lists


@dataclass(frozen=True)
class Comparison:
    """Runs in groups; the runs of a group are repetitions over seeds.

    Attributes:
        runs: the complete runs that are compared.
        groups: for each group's label, the names of its runs, ordered by seed.
        by: the columns that distinguish groups.
        metrics: the metrics that are reported, by name; each is a column of ``runs.runs``.
        warnings: what a reader should know, one line each.
        whole: the comparison whose best groups these are; None if they are all.
    """

    runs: Runs
    groups: dict[str, list[str]]
    by: list[str]
    metrics: dict[str, Metric]
    warnings: list[str]
    whole: "Comparison | None" = None

    @property
    def headline(self) -> list[Metric]:
        """The metrics that every table shows, and whose differences between groups are tested."""
        return [metric for metric in self.metrics.values() if metric.level == "headline"]

    def values(self, group: str, metric: str) -> pd.Series:
        """Return a group's values of a metric by seed (the mean, where a seed has several runs)."""
        values: pd.Series = self._by_seed[group][metric]
        return values

    @functools.cached_property
    def _by_seed(self) -> dict[str, pd.DataFrame]:
        """For each group, a row for each of its seeds and a column for each metric that some run has."""
        runs = self.runs.runs
        columns = [name for name in dict.fromkeys([*self.runs.metrics, *self.metrics]) if name in runs]
        numbers = runs[columns].apply(pd.to_numeric, errors="coerce")
        means = numbers.groupby([runs.index.map(self.group_of), runs["seed"]]).mean()
        return {str(label): rows.droplevel(0) for label, rows in means.groupby(level=0)}

    def best(self, most: int, keep: str | None = None) -> "Comparison":
        """Return the ``most`` best groups, in the order they have here, by the first metric that has a best.

        Args:
            most: how many groups.
            keep: a group that is among them in any case.
        """
        if len(self.groups) <= most:
            return self
        ranked = self.ranked()
        chosen = {*ranked[:most]} if keep is None else {keep, *[label for label in ranked if label != keep][: most - 1]}
        groups = {label: names for label, names in self.groups.items() if label in chosen}
        return replace(
            self,
            runs=self.runs.select([name for names in groups.values() for name in names]),
            groups=groups,
            whole=self,
        )

    def ranked(self) -> list[str]:
        """Return the groups from best to worst by :attr:`decisive`; those without a value come last."""
        metric = self.decisive
        if metric is None:
            return list(self.groups)
        means = pd.Series({label: self.values(label, metric.name).mean() for label in self.groups})
        return [str(label) for label in means.sort_values(ascending=metric.direction == "min", kind="stable").index]

    @property
    def decisive(self) -> Metric | None:
        """The metric that says which group is better: the first reported one that has a best."""
        return next((metric for metric in self.metrics.values() if metric.direction is not None), None)

    @functools.cached_property
    def unlabelled(self) -> dict[str, str]:
        """The settings in which groups differ and which the labels of some do not tell, with their values as text."""
        return naming.unlabelled(list(rows_of(self.runs.runs).values()), _settings(self.runs), self.by)

    @functools.cached_property
    def group_of(self) -> dict[str, str]:
        """The group of each run."""
        return {name: label for label, names in self.groups.items() for name in names}

    @functools.cached_property
    def position(self) -> dict[str, int]:
        """The position of each group among all."""
        return {label: index for index, label in enumerate(self.groups)}


def compare_runs(
    loaded: Runs, by: Sequence[str] | None = None, metrics: Sequence[str] | None = None, allow_mixed: bool = False
) -> Comparison:
    """Group the complete runs over seeds.

    Args:
        loaded: the runs.
        by: columns of ``loaded.runs`` to group by; None for the strategy, and as few settings as tell all runs of a
            strategy apart that differ in any but the seed.
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
        chosen = check_columns(complete, by, settings)
    else:
        base = [*mixed, "strategy"]
        chosen = [*base, *naming.distinguishing(list(rows_of(complete).values()), settings, base)]
    complete, repeated = _without_repeats(complete, [*settings, *chosen], loaded.metrics)
    warnings += repeated
    groups = _groups(complete, chosen)
    warnings += _varying(complete, groups, settings) if by else []
    warnings += _different_training(complete, groups, [column for column in settings if column not in chosen])
    warnings += _missing_seeds(complete, groups)
    warnings += _diverged(complete)
    measured = measured_metrics(complete, loaded.metrics)
    reported = choose_metrics(measured, metrics) if metrics else measured
    return Comparison(loaded.select(list(complete.index)), groups, chosen, reported, warnings)


def _settings(loaded: Runs) -> list[str]:
    """Return the columns that are settings of a run and can change what it measures."""
    other = {*loaded.metrics, "benchmark.n_tasks"}  # null for all tasks there are: the fact n_tasks says how many
    return [name for name in naming.settings(list(loaded.runs.columns)) if name not in other]


def _unfinished(runs: pd.DataFrame) -> list[str]:
    pruned = runs["status"] == "pruned"
    lines = []
    for name, row in runs[(runs["status"] != "complete") & ~pruned].iterrows():
        reason = f" ({row['error']})" if isinstance(row["error"], str) else ""
        lines.append(
            f"{name}: {row['status']} after {row['trained_tasks']} of {row['n_tasks']} tasks{reason}, left out"
        )
    if count := int(pruned.sum()):
        lines.append(f"{count} pruned trial{'s' * (count > 1)} of cl-powerprop tune, left out")
    return lines


def _differences(runs: pd.DataFrame) -> dict[str, str]:
    """Return the columns that make the runs incomparable, each with a phrase that lists its values."""
    columns = ["benchmark", "scenario", "data", "n_tasks", "data.size"]
    columns += [column for column in runs.columns if column.startswith("benchmark.")]
    found = {}
    for column in dict.fromkeys(columns):
        if column not in runs or column in ("benchmark.scenario", "benchmark.n_tasks"):  # facts say what these became
            continue
        values = runs[column].map(_text)
        counts = values.value_counts()
        if len(counts) < 2:
            continue
        if column.startswith("benchmark.") and "benchmark" in found:
            continue  # another benchmark has other options
        found[column] = f"{column} is " + " and ".join(
            f"{value} ({f'{count} runs' if count > 1 else f'1 run: {values.index[values == value][0]}'})"
            for value, count in counts.items()
        )
    return found


def rows_of(runs: pd.DataFrame) -> dict[str, naming.Row]:
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
    named = _some([str(name) for name in repeats], _MOST_NAMED)
    return kept, [f"{len(repeats)} run(s) repeat the config and seed of another and are left out: {named}"]


def _groups(runs: pd.DataFrame, by: Sequence[str]) -> dict[str, list[str]]:
    """Return the runs of each group, ordered by seed; the groups are in the order of their first runs."""
    labels = naming.labels(rows_of(runs), by)
    groups: dict[str, list[str]] = {label: [] for label in labels.values()}
    for name in map(str, runs.sort_values("seed", kind="stable").index):
        groups[labels[name]].append(name)
    return groups


def _varying(runs: pd.DataFrame, groups: dict[str, list[str]], settings: list[str]) -> list[str]:
    columns = ["strategy", "benchmark", "data", "scenario", *settings]
    lines = []
    for label, names in groups.items():
        rows = runs.loc[names, columns]
        varying = [
            f"{column} ({', '.join(sorted(set(map(_text, rows[column]))))})"
            for column in naming.differing(list(rows_of(rows).values()), columns)
        ]
        if varying:
            lines.append(f"{label}: its runs differ in {', '.join(varying)} and are averaged anyway")
    return lines


def _different_training(runs: pd.DataFrame, groups: dict[str, list[str]], settings: list[str]) -> list[str]:
    """Warn of training settings that differ between groups, other than those that distinguish the groups."""
    lines = []
    for column in settings:
        if not column.startswith("train.") or runs[column].nunique(dropna=False) < 2:
            continue
        if column == "train.epochs" and "train.steps" in runs and runs["train.steps"].notna().all():
            continue  # which train.steps take the place of
        values = {
            label: {as_setting(_text(each)) for each in runs.loc[names, column]} for label, names in groups.items()
        }
        if len(set(map(frozenset, values.values()))) > 1:
            listed = [f"{label} {', '.join(sorted(found))}" for label, found in values.items()]
            lines.append(f"groups differ in {column}: {_some(listed, _MOST_GROUPS, '; ')}")
    return lines


def _text(value: object) -> str:
    """Return a value of the table of runs as text: "null" where there is none, which pandas may hold as NaN."""
    return "null" if value is None or value != value else naming.text(value)


def _missing_seeds(runs: pd.DataFrame, groups: dict[str, list[str]]) -> list[str]:
    every = sorted(runs["seed"].unique())
    missing: dict[str, list[str]] = {}  # groups by the seeds that they lack
    for label, names in groups.items():
        there = set(runs.loc[names, "seed"])
        if lacking := [str(seed) for seed in every if seed not in there]:
            missing.setdefault(_some(lacking, _MOST_SEEDS), []).append(label)
    lines = []
    for seeds, labels in missing.items():
        if len(labels) > _MOST_GROUPS:
            lines.append(f"{len(labels)} groups have no run with seed {seeds}: {_some(labels, _MOST_NAMED, '; ')}")
        else:
            lines += [f"{label}: no run with seed {seeds}" for label in labels]
    return lines


def _some(items: Sequence[str], most: int, between: str = ", ") -> str:
    """Return the items as a list in one line, of which the first ``most`` are named."""
    return between.join(items[:most]) + (f"{between}and {len(items) - most} more" if len(items) > most else "")


def _diverged(runs: pd.DataFrame) -> list[str]:
    return [
        f"{name}: no better than guessing on task(s) {', '.join(map(str, tasks))}, which count anyway"
        for name, tasks in runs["diverged_tasks"].items()
        if isinstance(tasks, list) and tasks
    ]
