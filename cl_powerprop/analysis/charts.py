"""The figures of the report, as Plotly specifications."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cl_powerprop.analysis import series
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.plotly_elements import (
    axes,
    error_bar,
    heat_map,
    line_style,
    line_with_band,
    marker_style,
    matrix_axes,
)
from cl_powerprop.analysis.runs import each_row
from cl_powerprop.analysis.style import colour, shades


@dataclass
class Chart:
    """One figure of the report, for Plotly.

    Attributes:
        name, title: of the figure.
        about: what it shows and how to read it: its caption, and its description for screen readers.
        traces: Plotly's. Each has ``meta`` {"group": ..., "choice": ...}: the group and the choice with which it is
            shown and hidden, or None.
        layout: Plotly's.
        choices: {value: text} of the drop-down list above the figure; empty for none.
        columns, rows: the numbers as a table, if there is one.
    """

    name: str
    title: str
    about: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    choices: dict[str, str] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def make_charts(comparison: Comparison, summary: pd.DataFrame) -> Iterable[Chart | None]:
    """Yield the figures of the report; None for one that the runs have no data for."""
    yield _forgetting(comparison)
    yield _final(comparison, summary)
    yield _matrices(comparison)
    yield _capacity(comparison)
    yield _composition(comparison)
    yield _pareto(comparison)
    yield _overlap(comparison)
    yield _weights(comparison)


def _forgetting(comparison: Comparison) -> Chart | None:
    table = series.forgetting_curves(comparison)
    tasks = [task for task in dict.fromkeys(table["task"]) if task != series.AVERAGE]
    choices = (
        {series.AVERAGE: "average over the tasks learned so far"} if (table["task"] == series.AVERAGE).any() else {}
    )
    choices |= {task: f"task {task}" for task in sorted(tasks, key=int)}
    traces = []
    for (label, task), rows in table.groupby(["group", "task"], sort=False):
        traces += line_with_band(comparison.position[str(label)], str(label), rows, "progress", str(task))
    first = next(iter(choices), None)
    shown = table[table["task"] == first]
    numbers = [
        [str(label), f"{rows['mean'].iloc[0]:.4f}", f"{rows['mean'].min():.4f}", f"{rows['mean'].iloc[-1]:.4f}"]
        for label, rows in shown.groupby("group", sort=False)
    ]
    return Chart(
        "forgetting",
        "Forgetting curves",
        "Test accuracy over the sequence, mean over seeds, with the 95 % t-interval as a band. A task's curve begins "
        "with its own training; where it falls afterwards, the task is being forgotten.",
        traces,
        axes("tasks trained", "test accuracy", xaxis_rangemode="tozero"),
        choices,
        ["group", "first", "lowest", "last"],
        numbers,
    )


def _final(comparison: Comparison, summary: pd.DataFrame) -> Chart | None:
    traces = []
    for index, label in enumerate(comparison.groups):
        for row in each_row(summary[summary["group"] == label]):
            values = comparison.values(label, row.metric).dropna()
            meta: Any = {"group": label, "choice": row.metric}
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": label,
                    "x": [label],
                    "y": [row.mean],
                    "error_y": error_bar(row.t_high - row.mean),
                    "marker": marker_style(index) | {"size": 11},
                    "hovertemplate": f"%{{y:.4f}} over {row.n} seed(s)",
                    "meta": meta,
                }
            )
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": label,
                    "x": [label] * len(values),
                    "y": values.tolist(),
                    "text": [f"seed {seed}" for seed in values.index],
                    "marker": {"color": colour(index), "size": 6, "opacity": 0.45, "symbol": "circle-open"},
                    "hovertemplate": "%{text}: %{y:.4f}",
                    "showlegend": False,
                    "meta": meta,
                }
            )
    shown = set(summary["metric"])
    return Chart(
        "metrics",
        "Metrics at the end",
        "Mean over seeds with the 95 % t-interval; open circles are single runs.",
        traces,
        axes("", "", hovermode="closest", xaxis_automargin=True, yaxis_automargin=True),
        {name: metric.label for name, metric in comparison.metrics.items() if name in shown},
    )


def _matrices(comparison: Comparison) -> Chart | None:
    traces = []
    for label, matrix in series.accuracy_matrices(comparison).items():
        after = [f"after {tasks}" for tasks in matrix.index]
        hover = "%{x} %{y}: %{z:.4f}<extra></extra>"
        traces.append(heat_map(label, matrix.to_numpy(), list(matrix.columns), after, hover))
    return Chart(
        "matrix",
        "Accuracy matrix",
        "Rows: the number of tasks trained; columns: the task tested. Mean over seeds; empty where not tested.",
        traces,
        matrix_axes("task tested", "tasks trained"),
        {label: label for label in comparison.groups},
    )


def _capacity(comparison: Comparison) -> Chart | None:
    table = series.capacity_growth(comparison)
    if table.empty:
        return None
    traces, numbers = [], []
    for label, rows in table.groupby("group", sort=False):
        traces += line_with_band(comparison.position[str(label)], str(label), rows, "tasks")
        numbers.append([str(label), f"{rows['mean'].iloc[0]:.1%}", f"{rows['mean'].iloc[-1]:.1%}"])
    return Chart(
        "capacity",
        "Capacity used",
        "Share of the maskable weights that belong to some task's mask; mean over seeds, with the 95 % t-interval.",
        traces,
        axes("tasks trained", "maskable weights in use", yaxis_tickformat=".0%", yaxis_rangemode="tozero"),
        {},
        ["group", "after the first task", "at the end"],
        numbers,
    )


def _composition(comparison: Comparison) -> Chart | None:
    table = series.mask_composition(comparison)
    if table.empty:
        return None
    colours = shades(int(table["task"].max()) + 1)
    traces, numbers = [], []
    labels = [label for label in comparison.groups if label in set(table["group"])]
    for label in labels:
        shares = table[table["group"] == label].pivot_table(
            index="task", columns="source", values="share", fill_value=0.0
        )
        for source in map(int, shares.columns):
            traces.append(
                {
                    "type": "bar",
                    "name": f"frozen by task {source}",
                    "x": shares.index.tolist(),
                    "y": shares[source].tolist(),
                    "marker": {"color": colours[source]},
                    "hovertemplate": f"%{{y:.2%}} frozen by task {source}<extra></extra>",
                    "showlegend": False,
                    "meta": {"group": None, "choice": label},
                }
            )
        total = shares.sum(axis=1)
        own = pd.Series({task: shares.loc[task, task] if task in shares.columns else 0.0 for task in shares.index})
        reused = 1.0 - own / total
        later = reused[reused.index > 0]
        numbers.append([label, f"{total.mean():.1%}", f"{later.mean():.1%}" if len(later) else "-"])
    return Chart(
        "composition",
        "Composition of the masks",
        "Height of a bar: the share of the maskable weights in a task's mask. Colours: the task that froze them, dark "
        "for early tasks; the topmost part of a bar is what the task froze itself.",
        traces,
        axes("task", "share of the maskable weights", barmode="stack", yaxis_tickformat=".0%", hovermode="closest"),
        {label: label for label in labels},
        ["group", "mean size of a mask", "share of it reused (from task 1 on)"],
        numbers,
    )


def _pareto(comparison: Comparison) -> Chart | None:
    traces = []
    largest = 0.0
    for index, label, capacity, accuracy in series.pareto_points(comparison):
        largest = max(largest, capacity.mean)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label,
                "x": [capacity.mean],
                "y": [accuracy.mean],
                "error_x": error_bar(capacity.t_high - capacity.mean),
                "error_y": error_bar(accuracy.t_high - accuracy.mean),
                "marker": marker_style(index) | {"size": 11},
                "hovertemplate": "%{y:.4f} at %{x:.1%}",
                "meta": {"group": label, "choice": None},
            }
        )
    if not traces:
        return None
    layout = axes("capacity used", "average test accuracy", hovermode="closest")
    layout["xaxis"]["tickformat"] = ".0%"
    if largest > 2:
        layout["xaxis"]["type"] = "log"
    return Chart(
        "pareto",
        "Accuracy against capacity",
        "Better is up and to the left. Mean over seeds, with 95 % t-intervals. A network without masks uses every "
        "weight for every task: 100 %; independent networks use 100 % each.",
        traces,
        layout,
    )


def _overlap(comparison: Comparison) -> Chart | None:
    traces = []
    maps = series.mask_overlaps(comparison)
    for label, matrix in maps.items():
        tasks = [str(task) for task in range(len(matrix))]
        traces.append(heat_map(label, matrix, tasks, tasks, "tasks %{y} and %{x}: %{z:.3f}<extra></extra>"))
    if not traces:
        return None
    return Chart(
        "overlap",
        "Overlap of masks",
        "For each pair of tasks, the weights in both masks as a share of the weights in either mask (Jaccard index).",
        traces,
        matrix_axes("task", "task"),
        {label: label for label in maps},
    )


def _weights(comparison: Comparison) -> Chart | None:
    table = series.weight_sizes(comparison)
    table = table[table["low"] > 0]
    if table.empty:
        return None
    traces = []
    for index, label in enumerate(comparison.groups):
        rows = table[table["group"] == label].sort_values("low")
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label,
                "x": rows["low"].tolist(),
                "y": rows["share"].tolist(),
                "line": line_style(index) | {"shape": "hv"},
                "hovertemplate": "%{y:.2%}",
                "meta": {"group": label, "choice": None},
            }
        )
    return Chart(
        "weights",
        "Magnitudes of the used weights",
        "Distribution of the magnitudes of the weights in some task's mask, in bins of a tenth of a decade; "
        "mean over runs.",
        traces,
        axes(
            "magnitude of a weight, |theta|",
            "share of the used weights",
            xaxis_type="log",
            xaxis_exponentformat="power",
        ),
    )
