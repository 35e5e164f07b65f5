"""The figures of the report, as Plotly takes them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cl_powerprop.analysis import series
from cl_powerprop.analysis.comparison import METRICS, Comparison
from cl_powerprop.analysis.runs import each_row
from cl_powerprop.analysis.style import PLOTLY_DASHES, SYMBOLS, colour, dash, shades


@dataclass
class Chart:
    """One figure of the report, for Plotly.

    Attributes:
        name, title: of the figure.
        about: what it shows and how to read it, also for those who cannot see it.
        traces: Plotly's, each with ``meta`` {"group": label or None, "choice": one of ``choices`` or None}.
        layout: Plotly's.
        choices: what the reader chooses from with the list above the figure: {value: what is shown}.
        rows, columns: the numbers as a table.
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
    """Return the figures that the runs have data for."""
    yield _forgetting(comparison)
    yield _final(comparison, summary)
    yield _matrices(comparison)
    yield _capacity(comparison)
    yield _composition(comparison)
    yield _pareto(comparison)
    yield _overlap(comparison)
    yield _weights(comparison)


def _line(
    comparison: Comparison, label: str, rows: pd.DataFrame, x: str, choice: str | None = None
) -> list[dict[str, Any]]:
    """Return a line and its band; the band is a trace of its own, which follows the line."""
    index = list(comparison.groups).index(label)
    meta = {"group": label, "choice": choice}
    shown = [
        f"{low:.4f} to {high:.4f}" if low == low else "one run"
        for low, high in zip(rows["low"], rows["high"], strict=True)
    ]
    line = {
        "type": "scatter",
        "mode": "lines+markers" if len(rows) <= 40 else "lines",
        "name": label,
        "x": rows[x].tolist(),
        "y": rows["mean"].tolist(),
        "customdata": shown,
        "line": {"color": colour(index), "dash": PLOTLY_DASHES[dash(index)], "width": 2},
        "marker": {"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 6},
        "hovertemplate": "%{y:.4f} (%{customdata})",
        "meta": meta,
    }
    if not rows["low"].notna().any():
        return [line]
    band = {
        "type": "scatter",
        "mode": "lines",
        "x": [*rows[x], *rows[x][::-1]],
        "y": [*rows["high"], *rows["low"][::-1]],
        "fill": "toself",
        "fillcolor": _faded(colour(index)),
        "line": {"width": 0, "color": colour(index)},
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": meta,
    }
    return [band, line]


def _faded(hexadecimal: str) -> str:
    red, green, blue = (int(hexadecimal[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _axes(x: str, y: str, **options: Any) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "hovermode": "x unified",
    }
    for key, value in options.items():
        axis, _, name = key.partition("_")
        if name:
            layout[axis][name] = value
        else:
            layout[key] = value
    return layout


def _forgetting(comparison: Comparison) -> Chart | None:
    table = series.forgetting_curves(comparison)
    tasks = [task for task in dict.fromkeys(table["task"]) if task != series.AVERAGE]
    choices = (
        {series.AVERAGE: "average over the tasks learned so far"} if (table["task"] == series.AVERAGE).any() else {}
    )
    choices |= {task: f"task {task}" for task in sorted(tasks, key=int)}
    traces = []
    for (label, task), rows in table.groupby(["group", "task"], sort=False):
        traces += _line(comparison, str(label), rows, "progress", str(task))
    first = next(iter(choices), None)
    shown = table[table["task"] == first]
    rows_ = [
        [str(label), f"{rows['mean'].iloc[0]:.4f}", f"{rows['mean'].min():.4f}", f"{rows['mean'].iloc[-1]:.4f}"]
        for label, rows in shown.groupby("group", sort=False)
    ]
    return Chart(
        "forgetting",
        "Forgetting curves",
        "Test accuracy over the sequence, mean over seeds with the 95 % t-interval as a band. A task's curve begins "
        "with its own training; a line that falls afterwards is forgetting.",
        traces,
        _axes("tasks trained", "test accuracy", xaxis_rangemode="tozero"),
        choices,
        ["group", "at first", "lowest", "at the end"],
        rows_,
    )


def _final(comparison: Comparison, summary: pd.DataFrame) -> Chart | None:
    traces = []
    for index, label in enumerate(comparison.groups):
        for row in each_row(summary[summary["group"] == label]):
            values = comparison.values(label, row.metric).dropna()
            meta: Any = {"group": label, "choice": row.metric}
            half = row.t_high - row.mean
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": label,
                    "x": [label],
                    "y": [row.mean],
                    "error_y": {"type": "data", "array": [half], "visible": half == half, "thickness": 2},
                    "marker": {"color": colour(index), "size": 11, "symbol": SYMBOLS[index % len(SYMBOLS)]},
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
    metrics = [metric for metric in comparison.metrics if metric in set(summary["metric"])]
    return Chart(
        "metrics",
        "Metrics at the end",
        "Mean over seeds with the 95 % t-interval; rings are single runs.",
        traces,
        _axes("", "", hovermode="closest", xaxis_automargin=True, yaxis_automargin=True),
        {metric: METRICS.get(metric, metric) for metric in metrics},
    )


def _heat(label: str, matrix: np.ndarray, x: list[str], y: list[str], hover: str) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": [list(row) for row in matrix],
        "x": x,
        "y": y,
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Cividis",
        "hovertemplate": hover,
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 12},
        "meta": {"group": None, "choice": label},
    }
    if len(matrix) <= 12:
        trace["texttemplate"] = "%{z:.2f}"
    return trace


def _square(x: str, y: str) -> dict[str, Any]:
    return _axes(
        x, y, hovermode="closest", yaxis_autorange="reversed", xaxis_automargin=True, yaxis_automargin=True
    ) | {"height": 460}


def _matrices(comparison: Comparison) -> Chart | None:
    traces = []
    for label, matrix in series.accuracy_matrices(comparison).items():
        after = [f"after {tasks}" for tasks in matrix.index]
        hover = "%{x} %{y}: %{z:.4f}<extra></extra>"
        traces.append(_heat(label, matrix.to_numpy(), list(matrix.columns), after, hover))
    return Chart(
        "matrix",
        "Accuracy matrix",
        "Row: how many tasks had been trained; column: the task tested. Mean over seeds; empty where not tested.",
        traces,
        _square("task tested", "tasks trained"),
        {label: label for label in comparison.groups},
    )


def _capacity(comparison: Comparison) -> Chart | None:
    table = series.capacity_growth(comparison)
    if table.empty:
        return None
    traces, rows_ = [], []
    for label, rows in table.groupby("group", sort=False):
        traces += _line(comparison, str(label), rows, "tasks")
        rows_.append([str(label), f"{rows['mean'].iloc[0]:.1%}", f"{rows['mean'].iloc[-1]:.1%}"])
    return Chart(
        "capacity",
        "Capacity used",
        "Share of the maskable weights that some task holds, mean over seeds with the 95 % t-interval.",
        traces,
        _axes("tasks trained", "maskable weights in use", yaxis_tickformat=".0%", yaxis_rangemode="tozero"),
        {},
        ["group", "after the first task", "at the end"],
        rows_,
    )


def _composition(comparison: Comparison) -> Chart | None:
    table = series.mask_composition(comparison)
    if table.empty:
        return None
    colours = shades(int(table["task"].max()) + 1)
    traces, rows_ = [], []
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
        rows_.append([label, f"{total.mean():.1%}", f"{later.mean():.1%}" if len(later) else "-"])
    return Chart(
        "composition",
        "Where each task's mask comes from",
        "Height: the share of the maskable weights in a task's mask. Colours: the task that froze them, dark for early "
        "tasks; the topmost part of a bar is what the task froze itself.",
        traces,
        _axes("task", "share of the maskable weights", barmode="stack", yaxis_tickformat=".0%", hovermode="closest"),
        {label: label for label in labels},
        ["group", "mean mask", "of it reused, tasks 1 on"],
        rows_,
    )


def _pareto(comparison: Comparison) -> Chart | None:
    traces = []
    largest = 0.0
    for index, label, capacity, accuracy in series.pareto_points(comparison):
        largest = max(largest, capacity.mean)
        bars = [(estimate, estimate.t_high - estimate.mean) for estimate in (capacity, accuracy)]
        (_, x_half), (_, y_half) = bars
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label,
                "x": [capacity.mean],
                "y": [accuracy.mean],
                "error_x": {"type": "data", "array": [x_half], "visible": x_half == x_half},
                "error_y": {"type": "data", "array": [y_half], "visible": y_half == y_half},
                "marker": {"color": colour(index), "size": 11, "symbol": SYMBOLS[index % len(SYMBOLS)]},
                "hovertemplate": "%{y:.4f} at %{x:.1%}",
                "meta": {"group": label, "choice": None},
            }
        )
    if not traces:
        return None
    layout = _axes("capacity used", "average test accuracy", hovermode="closest")
    layout["xaxis"]["tickformat"] = ".0%"
    if largest > 2:
        layout["xaxis"]["type"] = "log"
    return Chart(
        "pareto",
        "Accuracy against capacity",
        "Up and to the left is better. Mean over seeds with 95 % t-intervals. Without masks every weight serves every "
        "task: 100 %; independent networks take 100 % each.",
        traces,
        layout,
    )


def _overlap(comparison: Comparison) -> Chart | None:
    traces = []
    maps = series.mask_overlaps(comparison)
    for label, matrix in maps.items():
        tasks = [str(task) for task in range(len(matrix))]
        traces.append(_heat(label, matrix, tasks, tasks, "tasks %{y} and %{x}: %{z:.3f}<extra></extra>"))
    if not traces:
        return None
    return Chart(
        "overlap",
        "Overlap of masks",
        "For each pair of tasks, the weights that both masks hold, as a share of those that either holds (Jaccard).",
        traces,
        _square("task", "task"),
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
                "line": {"color": colour(index), "dash": PLOTLY_DASHES[dash(index)], "shape": "hv"},
                "hovertemplate": "%{y:.2%}",
                "meta": {"group": label, "choice": None},
            }
        )
    return Chart(
        "weights",
        "How large the used weights are",
        "Distribution of the size of the weights that some task uses, in bins of a tenth of a decade, mean over seeds.",
        traces,
        _axes("size of a weight, |theta|", "share of the used weights", xaxis_type="log", xaxis_exponentformat="power"),
    )
