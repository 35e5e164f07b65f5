"""The tables of a comparison: numbers in numeric columns, and Markdown for people."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from cl_powerprop.analysis.comparison import METRICS, Comparison
from cl_powerprop.analysis.runs import each_row
from cl_powerprop.analysis.statistics import estimate, holm, sign_flip_p
from cl_powerprop.errors import ConfigurationError

_WHOLE = ("mask_bits", "seconds.total", "peak_memory_mb")  # shown without decimals
_IN_MARKDOWN = (
    *("average_accuracy", "average_forgetting", "learning_accuracy", "forward_transfer", "min_accuracy"),
    *("worst_case_accuracy", "intransigence", "joint_gap", "task_identification", "capacity_used"),
)


def summary_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row for each (group, metric): n, mean, std, 95 % intervals by t and by bootstrap, and the seeds."""
    rows = []
    for label, names in comparison.groups.items():
        first: Any = comparison.runs.runs.loc[names[0]]
        told = {column: first[column] for column in comparison.by}
        for metric in comparison.metrics:
            values = comparison.values(label, metric).dropna()
            if len(values):
                seeds = " ".join(map(str, values.index))
                rows.append(
                    {"group": label, **told, "metric": metric, **asdict(estimate(values.to_numpy())), "seeds": seeds}
                )
    return pd.DataFrame(rows)


def pairwise_table(comparison: Comparison, baseline: str | None = None) -> pd.DataFrame:
    """Return paired differences over the seeds that both groups have, a minus b, for each metric that is tested.

    p is exact over all flips of sign; p_holm is corrected over the pairs of a metric.

    Args:
        comparison: the groups.
        baseline: compare each other group with this one only; None for every pair.

    Raises:
        ConfigurationError: for a baseline that is no group.
    """
    labels = list(comparison.groups)
    if baseline is not None and baseline not in labels:
        raise ConfigurationError(f"--baseline {baseline}: no such group; choose from: {', '.join(labels)}")
    pairs = [(label, baseline) for label in labels if label != baseline] if baseline else list(combinations(labels, 2))
    columns = ["metric", "a", "b", *asdict(estimate([])), "p", "p_holm", "seeds"]
    tables = [pd.DataFrame(_paired(comparison, metric, pairs), columns=columns) for metric in comparison.tested]
    for table in tables:
        table["p_holm"] = holm(table["p"].tolist())
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _paired(comparison: Comparison, metric: str, pairs: list[tuple[str, str]]) -> Iterator[dict[str, object]]:
    values = {label: comparison.values(label, metric) for label in comparison.groups}
    for a, b in pairs:
        difference = (values[a] - values[b]).dropna()  # aligned by seed
        p = sign_flip_p(difference.to_numpy()) if len(difference) else np.nan
        seeds = " ".join(map(str, difference.index))
        yield {"metric": metric, "a": a, "b": b, **asdict(estimate(difference.to_numpy())), "p": p, "seeds": seeds}


def smallest_p(pairwise: pd.DataFrame) -> str:
    """Return a sentence on what the numbers of shared seeds can show at all."""
    if pairwise.empty:
        return "There is no pair to test."
    fewest, most = int(pairwise["n"].min()), int(pairwise["n"].max())
    if most < 2:
        return "No pair has two seeds in common: there is nothing to test."
    seeds = f"{most}" if fewest == most else f"{fewest} to {most}"
    sentence = f"With {seeds} seeds in common the smallest p that a pair can have is {2.0 ** (1 - min(most, 17)):.3g}"
    return sentence + ("; below 0.05 it takes 6." if most < 6 else ".")


def markdown(comparison: Comparison, summary: pd.DataFrame, pairwise: pd.DataFrame) -> str:
    """Return the comparison as Markdown: groups, pairs, and warnings."""
    metrics = [metric for metric in comparison.metrics if metric in _IN_MARKDOWN] or comparison.metrics
    lines = ["# Comparison", "", heading(comparison), ""]
    lines += _markdown_rows(
        ["group", "seeds", *(METRICS.get(metric, metric) for metric in metrics)], "l" + "r" * (len(metrics) + 1)
    )
    cells = {(row.group, row.metric): row for row in each_row(summary)}
    for label in comparison.groups:
        shown = [format_estimate(metric, cells.get((label, metric))) for metric in metrics]
        lines.append("| " + " | ".join([label, str(seeds_of(comparison, label)), *shown]) + " |")
    lines += ["", "Means with half the 95 % interval by Student's t; `summary.csv` has the bootstrap's too."]
    lines += _pairs_in_markdown(comparison, pairwise)
    if comparison.warnings:
        lines += ["", "## Warnings", "", *(f"- {line}" for line in comparison.warnings)]
    return "\n".join(lines) + "\n"


def _pairs_in_markdown(comparison: Comparison, pairwise: pd.DataFrame) -> list[str]:
    """Return the differences in average accuracy; of whatever is tested, if that is not."""
    if pairwise.empty:
        return []
    shown = ["average_accuracy"] if "average_accuracy" in comparison.tested else comparison.tested
    lines = ["", "## Differences over the same seeds", ""]
    lines += _markdown_rows(["metric", "a", "b", "seeds", "a - b", "95 % interval", "p", "p (Holm)"], "lllrrrrr")
    for row in each_row(pairwise[pairwise["metric"].isin(shown)]):
        interval = "-" if np.isnan(row.t_low) else f"{row.t_low:+.4f} to {row.t_high:+.4f}"
        tested = [format_number(row.p, ".3g"), format_number(row.p_holm, ".3g")]
        cells = [
            METRICS.get(row.metric, row.metric),
            row.a,
            row.b,
            str(row.n),
            format_number(row.mean, "+.4f"),
            interval,
        ]
        lines.append("| " + " | ".join([*cells, *tested]) + " |")
    return [*lines, "", "Exact test over all flips of sign. " + smallest_p(pairwise)]


def heading(comparison: Comparison) -> str:
    """Return one line that says what was compared."""
    runs = comparison.runs.runs
    what = [", ".join(map(str, runs[column].unique())) for column in ("benchmark", "data", "scenario")]
    tasks = ", ".join(map(str, runs["n_tasks"].unique()))
    groups = len(comparison.groups)
    return f"{what[0]} on {what[1]}, {tasks} tasks, scenario {what[2]}; {len(runs)} runs in {groups} groups"


def _markdown_rows(names: list[str], align: str) -> list[str]:
    rule = ["---:" if side == "r" else "---" for side in align]
    return ["| " + " | ".join(names) + " |", "| " + " | ".join(rule) + " |"]


def format_estimate(metric: str, row: Any) -> str:
    """Return "mean ± half of the t-interval" in the metric's unit; "-" if there is none."""
    if row is None:
        return "-"
    mean, low = float(row.mean), float(row.t_low)
    scale, pattern = (100, ".1f") if metric == "capacity_used" else (1, ".0f" if metric in _WHOLE else ".4f")
    half = "" if np.isnan(low) else f" ± {format(scale * (mean - low), pattern)}"
    return f"{format(scale * mean, pattern)}{half}" + (" %" if metric == "capacity_used" else "")


def format_number(value: float, pattern: str) -> str:
    """Return the number as text; "-" for NaN."""
    return "-" if np.isnan(value) else format(value, pattern)


def seeds_of(comparison: Comparison, group: str) -> int:
    """Return how many seeds a group has."""
    return int(comparison.runs.runs.loc[comparison.groups[group], "seed"].nunique())
