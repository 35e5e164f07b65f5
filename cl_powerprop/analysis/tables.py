"""The tables of a comparison: numeric for programs (CSV), formatted for readers (Markdown)."""

import difflib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.runs import each_row
from cl_powerprop.analysis.statistics import estimate, holm, sign_flip_p
from cl_powerprop.analysis.verdicts import NONE, TITLE, zero_forgetting
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.evaluation.metrics import Metric
from cl_powerprop.naming import text
from cl_powerprop.shown import csv_cell, in_markdown

MOST_PAIRED = 32  # groups of which all pairs are tested: 496


def summary_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row for each (group, metric): n, mean, std, 95 % intervals by t and by bootstrap, and the seeds.

    Each has the settings in which groups differ: those they are grouped by, then the others.
    """
    rows = []
    also = [column for column in comparison.unlabelled if column not in comparison.by]
    for label, names in comparison.groups.items():
        runs = comparison.runs.runs.loc[names]
        settings = {column: _shared(runs[column]) for column in [*comparison.by, *also]}
        for metric in comparison.metrics:
            values = comparison.values(label, metric).dropna()
            if len(values):
                seeds = " ".join(map(str, values.index))
                numbers = asdict(estimate(values.to_numpy()))
                rows.append({"group": label, **settings, "metric": metric, **numbers, "seeds": seeds})
    return pd.DataFrame(rows)


def _shared(values: "pd.Series[Any]") -> object:
    """Return the value that the runs of a group have alike; all of them as text, if they were averaged over several."""
    texts = sorted({text(value) for value in values})
    return values.iloc[0] if len(texts) == 1 else " ".join(texts)


def pairwise_table(comparison: Comparison, baseline: str | None = None) -> pd.DataFrame:
    """Return the paired differences a - b over the seeds that both groups have, for each headline metric.

    p is that of the sign-flip test; p_holm is corrected for the number of pairs, metric by metric. The pairs of more
    than :data:`MOST_PAIRED` groups would be too many to read or to correct for: then each is compared with the best
    one.

    Args:
        comparison: the groups.
        baseline: compare each other group with this one only; None for every pair.

    Raises:
        ConfigurationError: for a baseline that is not a group.
    """
    labels = list(comparison.groups)
    if baseline is not None and baseline not in labels:
        raise ConfigurationError(unknown_group(baseline, labels))
    if baseline is None and len(labels) > MOST_PAIRED:
        baseline = comparison.ranked()[0]
    pairs = [(label, baseline) for label in labels if label != baseline] if baseline else list(combinations(labels, 2))
    columns = ["metric", "a", "b", *asdict(estimate([])), "p", "p_holm", "seeds"]
    tables = [pd.DataFrame(_paired(comparison, metric.name, pairs), columns=columns) for metric in comparison.headline]
    for table in tables:
        table["p_holm"] = holm(table["p"].tolist())
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def unknown_group(name: str, labels: Sequence[str]) -> str:
    """Say that there is no such group, and which there are, each as a shell takes it: labels have spaces and commas."""
    near = difflib.get_close_matches(name, labels, n=1)
    hint = f"did you mean {shlex.quote(near[0])}? " if near else ""
    shown = ", ".join(map(shlex.quote, labels[:MOST_PAIRED]))
    rest = f", and {len(labels) - MOST_PAIRED} more, see summary.csv" if len(labels) > MOST_PAIRED else ""
    return f"--baseline {shlex.quote(name)}: no such group; {hint}choose from: {shown}{rest}"


def _paired(comparison: Comparison, metric: str, pairs: list[tuple[str, str]]) -> Iterator[dict[str, object]]:
    values = {label: comparison.values(label, metric) for label in comparison.groups}
    for a, b in pairs:
        difference = (values[a] - values[b]).dropna()  # aligned by seed
        p = sign_flip_p(difference.to_numpy()) if len(difference) else np.nan
        seeds = " ".join(map(str, difference.index))
        yield {"metric": metric, "a": a, "b": b, **asdict(estimate(difference.to_numpy())), "p": p, "seeds": seeds}


def smallest_p(pairwise: pd.DataFrame) -> str:
    """Return a sentence on the smallest p that the number of shared seeds allows."""
    if pairwise.empty:
        return "There is no pair to test."
    fewest, most = int(pairwise["n"].min()), int(pairwise["n"].max())
    if most < 2:
        return "No pair has two seeds in common: there is nothing to test."
    seeds = f"{most}" if fewest == most else f"{fewest} to {most}"
    sentence = f"With {seeds} seeds in common the smallest p that a pair can have is {2.0 ** (1 - min(most, 17)):.3g}"
    return sentence + ("; p below 0.05 needs at least 6 seeds." if most < 6 else ".")


def best_groups(comparison: Comparison, summary: pd.DataFrame) -> set[tuple[str, str]]:
    """Return each (group, metric) whose mean, as it is printed, is the best; none where all print alike."""
    best = set()
    for name, rows in summary.groupby("metric"):
        metric = comparison.metrics[str(name)]
        if metric.direction is not None:
            first = format_value(metric, rows["mean"].agg(metric.direction))
            printed = {str(row.group): format_value(metric, row.mean) for row in each_row(rows)}
            if set(printed.values()) != {first}:
                best |= {(group, metric.name) for group, text in printed.items() if text == first}
    return best


def markdown(comparison: Comparison, summary: pd.DataFrame, pairwise: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """Return the comparison as Markdown: groups, notes, pairs, and warnings."""
    metrics = [metric for metric in comparison.metrics.values() if metric.level != "detail"]
    lines = ["# Comparison", "", in_markdown(heading(comparison)), ""]
    header = ["group", "seeds", *(metric.label for metric in metrics), TITLE]
    lines += markdown_header(header, "l" + "r" * (len(metrics) + 1) + "l")
    cells = {(row.group, row.metric): row for row in each_row(summary)}
    best, kept = best_groups(comparison, summary), zero_forgetting(comparison)
    for label in comparison.groups:
        shown = []
        for metric in metrics:
            cell = format_estimate(metric, cells.get((label, metric.name)))
            shown.append(f"**{cell}**" if (label, metric.name) in best else cell)
        lines.append(
            "| " + " | ".join([in_markdown(label), str(seeds_of(comparison, label)), *shown, kept[label][0]]) + " |"
        )
    lines += ["", "Mean ± half the 95 % t-interval, best means in bold; `summary.csv` has bootstrap intervals too."]
    lines += [line for note in notes for line in ("", f"Note: {in_markdown(note)}.")]
    lines += _pairs_in_markdown(comparison, pairwise)
    if comparison.warnings:
        lines += ["", "## Warnings", "", *(f"- {in_markdown(line)}" for line in comparison.warnings)]
    return "\n".join(lines) + "\n"


def _pairs_in_markdown(comparison: Comparison, pairwise: pd.DataFrame) -> list[str]:
    """Return the differences in average accuracy; if that is not tested, those in all metrics that are."""
    if pairwise.empty:
        return []
    accuracy = pairwise[pairwise["metric"] == "average_accuracy"]
    lines = ["", "## Differences over the same seeds", ""]
    lines += markdown_header(["metric", "a", "b", "seeds", "a - b", "95 % interval", "p", "p (Holm)"], "lllrrrrr")
    for row in each_row(pairwise if accuracy.empty else accuracy):
        numbers = [format_number(row.mean, "+.4f"), format_interval(row)]
        numbers += [format_number(row.p, ".3g"), format_number(row.p_holm, ".3g")]
        names = map(in_markdown, (comparison.metrics[row.metric].label, row.a, row.b))
        cells = [*names, str(row.n), *numbers]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", "p: paired sign-flip test, exact up to 16 seeds. " + smallest_p(pairwise)]


def csv_bytes(table: pd.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8, in which no text is a formula of a spreadsheet."""
    safe = table.map(csv_cell).rename(columns=csv_cell)
    return safe.to_csv(index=False).encode()


def heading(comparison: Comparison) -> str:
    """Return one line that says what was compared."""
    runs = comparison.runs.runs
    what = [", ".join(map(str, runs[column].unique())) for column in ("benchmark", "data", "scenario")]
    tasks = ", ".join(map(str, runs["n_tasks"].unique()))
    groups = len(comparison.groups)
    data = f" on {what[1]}" if runs["data"].notna().any() else ""
    counted = f"{len(runs)} run{'s' * (len(runs) != 1)} in {groups} group{'s' * (groups != 1)}"
    return f"{what[0]}{data}, {tasks} task{'s' * (tasks != '1')}, scenario {what[2]}; {counted}"


def markdown_header(names: list[str], align: str) -> list[str]:
    """Return the first two lines of a table in Markdown; ``align`` has an l or r for each column."""
    rule = ["---:" if side == "r" else "---" for side in align]
    return ["| " + " | ".join(map(in_markdown, names)) + " |", "| " + " | ".join(rule) + " |"]


def format_value(metric: Metric, value: float, half: float = np.nan) -> str:
    """Return ``value`` in the metric's unit, "± half" if that is given; "-" for NaN."""
    if np.isnan(value):
        return NONE
    scale, pattern = (100, "z.1f") if metric.unit == "%" else (1, "z.0f" if metric.is_whole else "z.4f")
    text = format(scale * value, pattern)
    if not np.isnan(half):
        text += f" ± {format(scale * half, pattern)}"
    return f"{text} %" if metric.unit == "%" else text


def format_estimate(metric: Metric, row: Any) -> str:
    """Return "mean ± half of the t-interval" for a row of the summary; "-" for None."""
    return NONE if row is None else format_value(metric, row.mean, row.mean - row.t_low)


def format_interval(row: Any) -> str:
    """Return the t-interval of a difference; "-" if there is none."""
    return NONE if np.isnan(row.t_low) else f"{row.t_low:+.4f} to {row.t_high:+.4f}"


def format_number(value: float, pattern: str) -> str:
    """Return the number as text; "-" for NaN."""
    return NONE if np.isnan(value) else format(value, pattern)


def seeds_of(comparison: Comparison, group: str) -> int:
    """Return how many seeds a group has."""
    return int(comparison.runs.runs.loc[comparison.groups[group], "seed"].nunique())
