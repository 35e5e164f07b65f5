"""The figures of the report that show sparse training."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cl_powerprop.analysis import sparsity_series as series
from cl_powerprop.analysis.chart import Chart
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.plotly_elements import SHARES, axes, line_with_band
from cl_powerprop.analysis.runs import each_row
from cl_powerprop.analysis.style import Style, group_styles, shades
from cl_powerprop.analysis.wording import over_seeds, plotly_text, repeated

_DECADE = 10.0  # that shares must span for a logarithmic axis: Plotly labels few ticks of less


def make_charts(comparison: Comparison) -> Iterator[Chart]:
    """Yield the figures that the runs have data for."""
    if series.is_sparse(comparison):
        for axis in series.AXES:
            yield from _accuracy_against(comparison, axis)
    if len(comparison.runs.sparsity):
        yield _layer_density(comparison)
        yield _exploration(comparison)


def _accuracy_against(comparison: Comparison, axis: str) -> Iterator[Chart]:
    shown = series.arranged(series.accuracy_against(comparison, axis))
    if not shown.panels:
        return
    styles = group_styles(shown.lines)
    everything = pd.concat(shown.panels.values())
    traces: list[dict[str, Any]] = []
    for panel, table in shown.panels.items():
        for label, style in styles.items():
            traces += _lines(table[table["group"] == label], label, style, panel or None, everything["x"])
    layout = axes(series.AXES[axis], "average test accuracy", hovermode="closest", showlegend=True)
    layout["xaxis"] |= _axis_of_shares(everything["x"]) | ({"autorange": "reversed"} if axis == series.DENSITY else {})
    layout["yaxis"] |= SHARES
    intervals = " Mean over seeds, with the 95 % t-interval as a band." if repeated(comparison) else ""
    dense = " Dotted: the dense network." if shown.has_dense else ""
    pruned = " Dashed: one network, pruned further without training." if everything["pruned"].any() else ""
    yield Chart(
        f"against_{axis}",
        f"Accuracy against {series.NOUNS[axis]}",
        f"Each point is a target sparsity.{intervals}{dense}{pruned}",
        traces,
        layout,
        {panel: panel for panel in shown.panels if panel},
    )


def _axis_of_shares(values: "pd.Series[float]") -> dict[str, Any]:
    """Return the options of an axis of shares, logarithmic if they span much."""
    scale = {"type": "log", "dtick": "D2"} if values.max() > _DECADE * values.min() else {}
    return {"tickformat": "~%"} | scale


def _lines(
    table: pd.DataFrame, label: str, style: Style, panel: str | None, everywhere: "pd.Series[float]"
) -> Iterator[dict[str, Any]]:
    """Yield the traces of one line: its runs, the network that was pruned further, and the dense one."""
    curves = [(rows, "dash") for _, rows in table[table["pruned"]].groupby("source", sort=False)]
    ends = [everywhere.min(), everywhere.max()]
    dense = pd.concat([table[table["dense"]].assign(x=end, low=np.nan, high=np.nan) for end in ends])
    runs = table[~table["pruned"] & ~table["dense"]]
    named = False
    for rows, dash in [(runs, None), *curves, (dense, "dot")]:
        for trace in line_with_band(style, label, rows, "x", panel) if len(rows) else []:
            trace["meta"] = {"group": None, "choice": panel}
            if dash is not None:
                trace["mode"] = "lines"
                trace["line"] = trace["line"] | {"dash": dash}
            if "name" in trace:  # of a band and its line, the line
                trace["showlegend"] = not named and dash != "dot"
                named = True
            yield trace


def _layer_density(comparison: Comparison) -> Chart:
    table = series.layer_densities(comparison)
    layers = [layer for layer in dict.fromkeys(table["layer"]) if layer != series.ALL]
    colours = dict(zip(layers, shades(len(layers)), strict=True)) | {series.ALL: "#8c8c8c"}
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(rows) == 1 else "lines",
            "name": plotly_text(str(layer)),
            "x": rows["step"].tolist(),
            "y": rows["density"].tolist(),
            "line": {"color": colours[str(layer)], "dash": "dash" if layer == series.ALL else "solid"},
            "hovertemplate": "%{y:.2%}",
            "meta": {"group": None, "choice": str(label)},
        }
        for (label, layer), rows in table.groupby(["group", "layer"], sort=False)
    ]
    layout = axes("optimizer steps", "weights left, of the layer's", showlegend=True)
    layout["yaxis"] |= _axis_of_shares(table["density"])
    last = table.groupby(["group", "layer"], sort=False)["density"].last().reset_index()
    return Chart(
        "layer_density",
        "Density of each layer",
        f"The share of a layer's weights that are active over training{over_seeds(comparison)}; dark layers are near "
        "the input. Dashed: all masked layers together.",
        traces,
        layout,
        {label: label for label in comparison.groups if label in set(table["group"])},
        ["group", "layer", "weights left at the end"],
        [(row.group, [row.group, row.layer, f"{row.density:.2%}"]) for row in each_row(last)],
    )


def _exploration(comparison: Comparison) -> Chart:
    table = series.exploration(comparison)
    styles = group_styles(comparison.groups)
    traces, numbers = [], []
    for (quantity, label), rows in table.groupby(["quantity", "group"], sort=False):
        traces += line_with_band(styles[str(label)], str(label), rows, "step", str(quantity))
        last = rows["mean"].iloc[-1]
        numbers.append((str(quantity), [str(label), f"{last:.1%}" if quantity in series.SHARES else f"{last:g}"]))
    band = "; mean over seeds, with the 95 % t-interval" if repeated(comparison) else ""
    layout = axes("optimizer steps", "")
    layout["yaxis"] |= {"rangemode": "tozero"}
    return Chart(
        "exploration",
        "How masks change",
        "Weights that are dropped can be grown again; the more of all weights were active at some time, the more of "
        f"the network was explored{band}.",
        traces,
        layout,
        dict(series.QUANTITIES),
        ["group", "at the end"],
        numbers,
    )
