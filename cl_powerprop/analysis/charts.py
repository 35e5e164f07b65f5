"""The figures of the report, as Plotly specifications."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from cl_powerprop.analysis import mask_charts, series, sparsity_charts
from cl_powerprop.analysis.chart import Chart
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.plotly_elements import (
    SHARES,
    axes,
    error_bar,
    heat_map,
    line_with_band,
    marker_style,
    matrix_axes,
    task_axes,
)
from cl_powerprop.analysis.runs import each_row
from cl_powerprop.analysis.style import group_styles
from cl_powerprop.analysis.verdicts import fall_of_a_curve
from cl_powerprop.analysis.wording import all_task_labels, over_seeds, plotly_text, repeated

_LABEL = 24  # characters of a line of a group's label beside an axis


def make_charts(comparison: Comparison, summary: pd.DataFrame) -> Iterable[Chart | None]:
    """Yield the figures of the report; None for one that the runs have no data for."""
    yield _forgetting(comparison)
    yield _final(comparison, summary)
    yield _matrices(comparison)
    yield mask_charts.capacity(comparison)
    yield mask_charts.composition(comparison)
    for size in series.SIZES:
        yield _pareto(comparison, size)
    yield mask_charts.overlap(comparison)
    yield mask_charts.weights(comparison)
    yield from sparsity_charts.make_charts(comparison)


def _forgetting(comparison: Comparison) -> Chart | None:
    table = series.forgetting_curves(comparison)
    tasks = [task for task in dict.fromkeys(table["task"]) if task != series.AVERAGE]
    choices = (
        {series.AVERAGE: "average over the tasks learned so far"} if (table["task"] == series.AVERAGE).any() else {}
    )
    labels = all_task_labels(comparison)
    choices |= {task: labels[int(task)] for task in sorted(tasks, key=int)}
    styles = group_styles(comparison.groups)
    traces, numbers = [], []
    for (label, task), rows in table.groupby(["group", "task"], sort=False):
        traces += line_with_band(styles[str(label)], str(label), rows, "progress", str(task))
        means = rows["mean"]
        cells = (means.iloc[0], means.min(), means.iloc[-1])
        numbers.append((str(task), [str(label), *(f"{value:.4f}" for value in cells)]))
    band = ", mean over seeds, with the 95 % t-interval as a band" if repeated(comparison) else ""
    layout = task_axes(len(labels), "tasks trained", "test accuracy", xaxis_rangemode="tozero")
    layout["yaxis"] |= SHARES
    return Chart(
        "forgetting",
        "Forgetting curves",
        f"Test accuracy over the sequence{band}. A task's curve begins with its own training; where it falls "
        f"afterwards, {fall_of_a_curve(comparison)}.",
        traces,
        layout,
        choices,
        ["group", "first", "lowest", "last"],
        numbers,
    )


def _final(comparison: Comparison, summary: pd.DataFrame) -> Chart | None:
    styles = group_styles(comparison.groups)
    traces = []
    places = {label: f"group {number}" for number, label in enumerate(styles)}
    for label, style in styles.items():
        for row in each_row(summary[summary["group"] == label]):
            values = comparison.values(label, row.metric).dropna()
            meta: Any = {"group": label, "choice": row.metric}
            below = above = row.t_high - row.mean
            if comparison.metrics[row.metric].is_share:
                below, above = series.error_bars(row, row.metric)
            mean = {
                "type": "scatter",
                "mode": "markers",
                "name": plotly_text(label),
                "x": [row.mean],
                "y": [places[label]],
                "error_x": error_bar(above, below),
                "marker": marker_style(style) | {"size": 11},
                "cliponaxis": False,
                "hovertemplate": f"%{{x:.4f}} over {row.n} seed{'s' if row.n > 1 else ''}",
                "meta": meta,
            }
            traces.append(mean)
            if row.n > 1:
                single = {
                    "x": values.tolist(),
                    "y": [places[label]] * len(values),
                    "text": [f"seed {seed}" for seed in values.index],
                    "marker": {"color": style.colour, "size": 6, "opacity": 0.6, "symbol": "circle-open"},
                    "hovertemplate": "%{text}: %{x:.4f}",
                    "showlegend": False,
                }
                traces.append({key: value for key, value in mean.items() if key != "error_x"} | single)
    shown = set(summary["metric"])
    layout = axes("", "", hovermode="closest", yaxis_autorange="reversed", yaxis_type="category")
    texts = [plotly_text(label, _LABEL) for label in places]
    layout["yaxis"] |= {"tickvals": list(places.values()), "ticktext": texts}
    if len(places) == 1:
        layout["xaxis"]["rangemode"] = "tozero"  # around a single point, Plotly shows more than metrics can be
    return Chart(
        "metrics",
        "Metrics at the end",
        "Mean over seeds with the 95 % t-interval; open circles are single runs."
        if repeated(comparison)
        else "Each point is a single run.",
        traces,
        layout,
        {name: metric.label for name, metric in comparison.metrics.items() if name in shown},
        height=min(4000, 100 + sum(24 + 16 * text.count("<br>") for text in texts)),
    )


def _matrices(comparison: Comparison) -> Chart | None:
    traces = []
    tasks = all_task_labels(comparison)
    after = [f"after {trained}" for trained in range(1, len(tasks) + 1)]
    for label, matrix in series.accuracy_matrices(comparison).items():
        hover = "%{x} %{y}: %{z:.4f}<extra></extra>"
        traces.append(heat_map(label, matrix.to_numpy(), tasks[: len(matrix)], after[: len(matrix)], hover))
    return Chart(
        "matrix",
        "Accuracy matrix",
        f"Rows: the number of tasks trained; columns: the task tested{over_seeds(comparison)}. Empty where not tested.",
        traces,
        matrix_axes("task tested", "tasks trained", tasks, after, first_row=1),
        {label: label for label in comparison.groups},
    )


def _pareto(comparison: Comparison, size: series.Size) -> Chart | None:
    styles = group_styles(comparison.groups)
    traces = []
    largest = 0.0
    for label, kept, accuracy in series.pareto_points(comparison, size):
        largest = max(largest, kept.mean)
        across, up = series.error_bars(kept, size.metric), series.error_bars(accuracy)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plotly_text(label),
                "x": [kept.mean],
                "y": [accuracy.mean],
                "error_x": error_bar(across[1], across[0]),
                "error_y": error_bar(up[1], up[0]),
                "marker": marker_style(styles[label]) | {"size": 11},
                "cliponaxis": False,
                "hovertemplate": "%{y:.4f} at %{x:.1%}",
                "meta": {"group": label, "choice": None},
            }
        )
    if not traces:
        return None
    layout = axes(size.axis, "average test accuracy", hovermode="closest")
    layout["yaxis"] |= SHARES
    layout["xaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    if largest > 2:
        layout["xaxis"] |= {"type": "log", "dtick": "D2" if largest < 20 else 1}
    intervals = " Mean over seeds, with 95 % t-intervals." if repeated(comparison) else ""
    return Chart(
        f"pareto_{size.metric}",
        f"Accuracy against {size.label}",
        f"Better is up and to the left.{intervals} {size.note}",
        traces,
        layout,
    )
