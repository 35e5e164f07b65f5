"""The figures of the report that show masks and weights."""

import numpy as np
import pandas as pd

from cl_powerprop.analysis import series
from cl_powerprop.analysis.chart import Chart
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.plotly_elements import (
    SHARES,
    axes,
    heat_map,
    line_style,
    line_with_band,
    matrix_axes,
    name_ticks,
    task_axes,
)
from cl_powerprop.analysis.style import group_styles, shades
from cl_powerprop.analysis.wording import all_task_labels, over_seeds, plotly_text, repeated


def capacity(comparison: Comparison) -> Chart | None:
    """The capacity that masks use over the sequence."""
    table = series.capacity_growth(comparison)
    if table.empty:
        return None
    styles = group_styles(comparison.groups)
    traces, numbers = [], []
    for label, rows in table.groupby("group", sort=False):
        traces += line_with_band(styles[str(label)], str(label), rows, "tasks")
        numbers.append((None, [str(label), f"{rows['mean'].iloc[0]:.1%}", f"{rows['mean'].iloc[-1]:.1%}"]))
    band = "; mean over seeds, with the 95 % t-interval" if repeated(comparison) else ""
    layout = task_axes(int(table["tasks"].max()), "tasks trained", "maskable weights in use")
    layout["yaxis"] |= SHARES | {"tickformat": ".0%", "rangemode": "tozero"}
    return Chart(
        "capacity",
        "Capacity used",
        f"Share of the maskable weights that belong to some task's mask{band}.",
        traces,
        layout,
        {},
        ["group", "after the first task", "at the end"],
        numbers,
    )


def composition(comparison: Comparison) -> Chart | None:
    """What each task's mask consists of."""
    table = series.mask_composition(comparison)
    if table.empty:
        return None
    tasks = int(table["task"].max()) + 1
    names = all_task_labels(comparison)
    colours = shades(tasks)
    ranges = series.source_ranges(tasks)
    traces, numbers = [], []
    labels = [label for label in comparison.groups if label in set(table["group"])]
    for label in labels:
        shares = table[table["group"] == label].pivot_table(
            index="task", columns="source", values="share", fill_value=0.0
        )
        shares = shares.reindex(columns=range(tasks), fill_value=0.0)
        for sources in ranges:
            first, last = sources[0], sources[-1]
            name = f"frozen by {plotly_text(names[first])}" if first == last else f"frozen by tasks {first} to {last}"
            traces.append(
                {
                    "type": "bar",
                    "name": name,
                    "x": shares.index.tolist(),
                    "y": shares[list(sources)].sum(axis=1).tolist(),
                    "marker": {"color": colours[sources[len(sources) // 2]], "line": {"width": 0}},
                    "hovertemplate": f"task %{{x}}: %{{y:.2%}} {name}<extra></extra>",
                    "showlegend": False,
                    "meta": {"group": None, "choice": label},
                }
            )
        total = shares.sum(axis=1)
        own = pd.Series({task: shares.loc[task, task] for task in shares.index})
        reused = 1.0 - own / total
        later = reused[reused.index > 0]
        numbers.append((None, [label, f"{total.mean():.1%}", f"{later.mean():.1%}" if len(later) else "-"]))
    layout = task_axes(tasks, "task", "share of the maskable weights", barmode="stack", hovermode="closest")
    layout["yaxis"] |= SHARES | {"tickformat": ".0%"}
    name_ticks(layout, names[:tasks])
    if len(ranges) < tasks:
        layout["bargap"] = 0
    together = f", {len(ranges[0])} tasks to a colour" if len(ranges) < tasks else ""
    return Chart(
        "composition",
        "Composition of the masks",
        f"Height of a bar: the share of the maskable weights in a task's mask{over_seeds(comparison)}. Colours: the "
        f"task that froze them, dark for early tasks{together}; at the top of a bar is what the task froze itself.",
        traces,
        layout,
        {label: label for label in labels},
        ["group", "mean size of a mask", "share of it reused (from task 1 on)"],
        numbers,
    )


def overlap(comparison: Comparison) -> Chart | None:
    """The weights that pairs of masks share."""
    traces = []
    maps = series.mask_overlaps(comparison)
    if not maps:
        return None
    tasks = all_task_labels(comparison)
    for label, matrix in maps.items():
        names = tasks[: len(matrix)]
        traces.append(heat_map(label, matrix, names, names, "%{y} and %{x}: %{z:.3f}<extra></extra>"))
    return Chart(
        "overlap",
        "Overlap of masks",
        "For each pair of tasks, the weights in both masks as a share of the weights in either mask (Jaccard index)"
        f"{over_seeds(comparison)}.",
        traces,
        matrix_axes("task", "task", tasks, tasks, first_row=0),
        {label: label for label in maps},
    )


def weights(comparison: Comparison) -> Chart | None:
    """How large the used weights are."""
    table = series.weight_sizes(comparison)
    table = table[table["low"] > 0]
    if table.empty:
        return None
    traces = []
    for label, style in group_styles(comparison.groups).items():
        rows = table[table["group"] == label]
        if rows.empty:
            continue
        x, y = series.histogram_outline(rows)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plotly_text(label),
                "x": x,
                "y": y,
                "line": line_style(style) | {"shape": "hv"},
                "hovertemplate": "%{y:.2%}",
                "meta": {"group": label, "choice": None},
            }
        )
    layout = axes("magnitude of a weight, |theta|", "share of the used weights", xaxis_type="log")
    smallest, largest = np.log10(table["low"].min()), np.log10(table["high"].max())
    layout["xaxis"] |= {"exponentformat": "power", "range": [smallest - 0.2, largest + 0.2]}
    layout["yaxis"] |= SHARES | {"tickformat": ".0%", "rangemode": "tozero"}
    return Chart(
        "weights",
        "Magnitudes of the used weights",
        "Distribution of the magnitudes of the weights in some task's mask, in bins of a tenth of a decade"
        f"{over_seeds(comparison)}.",
        traces,
        layout,
    )
