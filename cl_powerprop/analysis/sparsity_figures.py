"""The figures of sparse training, drawn with matplotlib."""

import functools
from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cl_powerprop.analysis import sparsity_series as series
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.matplotlib_elements import (
    MOST_PANELS,
    count_ticks,
    draw_legend,
    draw_lines,
    drawn_together,
    few_points,
    label_panels,
    log_axis,
    many_panels,
    one_panel,
    within_shares,
)
from cl_powerprop.analysis.runs import each_row
from cl_powerprop.analysis.style import Style, shades
from cl_powerprop.analysis.wording import first_of, over_seeds, with_intervals

_MOST_NAMED = 10  # layers up to which a legend names them


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _accuracy_against(axis: str, comparison: Comparison) -> Figure | None:
    if not series.is_sparse(comparison):
        return None
    shown = series.arranged(series.accuracy_against(comparison, axis))
    if not shown.panels:
        return None
    styles, note = drawn_together(shown.lines, "lines")
    title = f"Accuracy against {series.NOUNS[axis]}{note}{with_intervals(comparison, 'bands')}"
    if shown.has_dense:
        title += "; dotted: dense"
    if any(table["pruned"].any() for table in shown.panels.values()):
        title += "; dashed: pruned further without training"
    if len(shown.panels) == 1:
        figure, axes = one_panel(title)
        panels = [axes]
    else:
        names = list(shown.panels)[:MOST_PANELS]
        title += first_of(len(names), len(shown.panels), "controllers")
        figure, panels = many_panels(names, title, sharex=True, sharey=True)
    for axes, table in zip(panels, shown.panels.values(), strict=False):
        _draw_accuracies(axes, table, styles)
    places = {row.x for table in shown.panels.values() for row in each_row(table[~table["dense"]])}
    if len(places) == 1:
        panels[0].set_xlim(min(places) / 2, 2 * min(places))
    log_axis(panels[0], "x", _percent)
    if axis == series.DENSITY:
        panels[0].invert_xaxis()
    for axes in panels:
        axes.xaxis.set_major_formatter(panels[0].xaxis.get_major_formatter())
        within_shares(axes)
    if len(panels) == 1:
        panels[0].set(xlabel=series.AXES[axis], ylabel="average test accuracy")
    else:
        label_panels(panels, series.NOUNS[axis], "average test accuracy")
    draw_legend(figure, panels)
    return figure


def _draw_accuracies(axes: Axes, table: pd.DataFrame, styles: dict[str, Style]) -> None:
    """Draw the lines; of those with one text, the legend shows the last one."""
    for row in each_row(table[table["dense"]]):
        if row.group in styles:
            axes.axhline(row.mean, color=styles[row.group].colour, linestyle=":", linewidth=1, label=row.group)
    for _, curve in table[table["pruned"]].groupby("source", sort=False):
        draw_lines(axes, styles, curve, "x", marked=False)
    for line in axes.get_lines():
        if line.get_linestyle() != ":":
            line.set(linestyle="--", linewidth=1)
    draw_lines(axes, styles, table[~table["pruned"] & ~table["dense"]], "x", marked=True)


def _layer_density(comparison: Comparison) -> Figure | None:
    table = series.layer_densities(comparison)
    labels = [label for label in comparison.groups if label in set(table["group"])]
    if not labels:
        return None
    shown = labels[:MOST_PANELS]
    layers = [layer for layer in dict.fromkeys(table["layer"]) if layer != series.ALL]
    colours = dict(zip(layers, shades(len(layers)), strict=True)) | {series.ALL: "black"}
    title = f"Weights left in each layer over training{over_seeds(comparison)}"
    title += first_of(len(shown), len(labels), "groups")
    figure, panels = many_panels(shown, title, height=2.6, width=3.2, sharex=True, sharey=True)
    named = layers if len(layers) <= _MOST_NAMED else []
    for axes, label in zip(panels, shown, strict=True):
        lines = table[table["group"] == label]
        for layer, rows in lines.groupby("layer", sort=False):
            text = str(layer) if layer in (*named, series.ALL) else None
            marker = "o" if len(rows) == 1 else None
            style = "--" if layer == series.ALL else "-"
            axes.plot(
                rows["step"],
                rows["density"],
                style,
                marker=marker,
                markersize=3,
                lw=1.2,
                color=colours[str(layer)],
                label=text,
            )
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    log_axis(panels[0], "y", _percent)
    for axes in panels:
        axes.yaxis.set_major_formatter(panels[0].yaxis.get_major_formatter())
    label_panels(panels, "optimizer steps", "weights left, of the layer's")
    if not named:
        scale = ScalarMappable(
            Normalize(0, len(layers) - 1), LinearSegmentedColormap.from_list("layers", shades(len(layers)))
        )
        bar = figure.colorbar(scale, ax=panels, label="layer, from the input on", shrink=0.8)
        count_ticks(bar.ax.yaxis, len(layers))
    draw_legend(figure, panels)
    return figure


def _exploration(comparison: Comparison) -> Figure | None:
    if comparison.runs.sparsity.empty:
        return None
    table = series.exploration(comparison)
    styles, note = drawn_together(label for label in comparison.groups if label in set(table["group"]))
    title = f"How masks change over training{note}{with_intervals(comparison, 'bands')}"
    figure, panels = many_panels(list(series.QUANTITIES.values()), title, height=2.4, width=3.4, sharex=True)
    marked = few_points(table, "step")
    for axes, quantity in zip(panels, series.QUANTITIES, strict=True):
        draw_lines(axes, styles, table[table["quantity"] == quantity], "step", marked)
        axes.set_ylim(0, 1.05 * axes.dataLim.y1 or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if quantity == "dead_units":
            axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        if quantity in series.SHARES:
            within_shares(axes)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label_panels(panels, "optimizer steps", "")
    draw_legend(figure, panels)
    return figure


DRAWINGS: dict[str, Callable[[Comparison], Figure | None]] = {
    **{f"accuracy_against_{axis}": functools.partial(_accuracy_against, axis) for axis in series.AXES},
    "layer_density": _layer_density,
    "exploration": _exploration,
}
