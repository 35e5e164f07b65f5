"""The figures of a comparison, drawn with matplotlib: as PNG, SVG and PDF files, or as arrays of pixels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from cl_powerprop.analysis import series, sparsity_figures
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.matplotlib_elements import (
    FORMATS,
    MOST_PANELS,
    RC,
    count_axis,
    count_ticks,
    draw_estimates,
    draw_legend,
    draw_lines,
    drawn_together,
    few_points,
    heat_maps,
    label_panels,
    lay_out,
    log_axis,
    many_panels,
    name_ticks,
    one_panel,
    power_of_ten,
    save_figure,
    spread,
    within_shares,
)
from cl_powerprop.analysis.style import shades
from cl_powerprop.analysis.wording import all_task_labels, first_of, over_seeds, repeated, with_intervals


def draw_figures(comparison: Comparison, folder: Path, formats: Sequence[str] = FORMATS[:2]) -> list[str]:
    """Write each figure that the runs have data for to ``folder`` in these formats, and return the files' names."""
    drawn = []
    for name, figure in _figures(comparison, DRAWINGS):
        drawn += save_figure(figure, folder / name, formats)
    return drawn


def figure_images(comparison: Comparison, names: Iterable[str]) -> dict[str, NDArray[np.uint8]]:
    """Return each of these figures that the runs have data for, as an image ``[height, width, 3]``."""
    images = {}
    for name, figure in _figures(comparison, names):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        images[name] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return images


def _figures(comparison: Comparison, names: Iterable[str]) -> Iterator[tuple[str, Figure]]:
    with mpl.rc_context(RC):
        for name in names:
            figure = DRAWINGS[name](comparison)
            if figure is not None:
                lay_out(figure)
                yield name, figure


def _forgetting_curves(comparison: Comparison) -> Figure:
    table = series.forgetting_curves(comparison)
    labels = all_task_labels(comparison)
    shown = spread(len(labels))
    styles, note = drawn_together(comparison.groups)
    intervals = "; bands: 95 % t-interval" if repeated(comparison) else ""
    title = f"Test accuracy on a task over the sequence{note} (grey: its own training{intervals})"
    figure, panels = many_panels([labels[task] for task in shown], title, sharex=True, sharey=True)
    marked = few_points(table, "progress")
    for axes, task in zip(panels, shown, strict=True):
        draw_lines(axes, styles, table[table["task"] == str(task)], "progress", marked)
        axes.axvspan(task, task + 1, color="0.9", zorder=0)
    panels[0].set_xlim(0, len(labels) * 1.01)
    panels[0].xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    within_shares(panels[0])
    label_panels(panels, "tasks trained", "test accuracy")
    draw_legend(figure, panels)
    return figure


def _average_accuracy(comparison: Comparison) -> Figure | None:
    table = series.forgetting_curves(comparison)
    table = table[table["task"] == series.AVERAGE]
    if table.empty:
        return None
    styles, note = drawn_together(comparison.groups)
    title = f"Average over the tasks learned so far{note}{with_intervals(comparison, 'bands')}"
    figure, axes = one_panel(title)
    draw_lines(axes, styles, table, "progress", few_points(table, "progress"))
    axes.set(xlabel="tasks trained", ylabel="average test accuracy")
    count_axis(axes, 1, int(comparison.runs.runs["n_tasks"].max()))
    within_shares(axes)
    draw_legend(figure, [axes])
    return figure


def _accuracy_matrix(comparison: Comparison) -> Figure:
    maps = {label: matrix.to_numpy() for label, matrix in series.accuracy_matrices(comparison).items()}
    labels, title = all_task_labels(comparison), f"Test accuracy{over_seeds(comparison)}"
    return heat_maps(maps, labels, title, "task tested", "tasks trained", first_row=1)


def _mask_overlap(comparison: Comparison) -> Figure | None:
    maps = series.mask_overlaps(comparison)
    if not maps:
        return None
    title = "Weights in both masks, as a share of those in either (Jaccard index)"
    return heat_maps(maps, all_task_labels(comparison), title + over_seeds(comparison), "task", "task", first_row=0)


def _capacity_growth(comparison: Comparison) -> Figure | None:
    table = series.capacity_growth(comparison)
    if table.empty:
        return None
    styles, note = drawn_together(comparison.groups)
    figure, axes = one_panel(f"Capacity used{note}{with_intervals(comparison, 'bands')}")
    draw_lines(axes, styles, table, "tasks", few_points(table, "tasks"))
    axes.set(xlabel="tasks trained", ylabel="maskable weights in use", ylim=(0, None))
    count_axis(axes, 1, int(table["tasks"].max()))
    within_shares(axes)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    draw_legend(figure, [axes])
    return figure


def _mask_composition(comparison: Comparison) -> Figure | None:
    table = series.mask_composition(comparison)
    labels = [label for label in comparison.groups if label in set(table["group"])]
    if not labels:
        return None
    shown = labels[:MOST_PANELS]
    note = first_of(len(shown), len(labels), "groups")
    title = f"Each task's mask, by the task that froze its weights{over_seeds(comparison)}{note}"
    title += " (outlined: frozen by the task itself)"
    figure, panels = many_panels(shown, title, height=2.6, width=3.2, sharey=True)
    tasks = int(table["task"].max()) + 1
    colours, names = shades(tasks), all_task_labels(comparison)
    for axes, label in zip(panels, shown, strict=True):
        _draw_composition(axes, table[table["group"] == label], tasks, colours)
        name_ticks(axes, names, tasks)
    panels[0].set_ylim(bottom=0)  # of all panels: a limit set before the last one is drawn would cut it off
    within_shares(panels[0])
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    label_panels(panels, "task", "share of the maskable weights")
    if tasks > 1:
        scale = ScalarMappable(Normalize(0, tasks - 1), LinearSegmentedColormap.from_list("tasks", colours))
        bar = figure.colorbar(scale, ax=panels, label="frozen by task", shrink=0.8)
        count_ticks(bar.ax.yaxis, tasks)
    return figure


def _draw_composition(axes: Axes, table: pd.DataFrame, tasks: int, colours: list[str]) -> None:
    """Draw the mask of each task as a bar of the parts that earlier tasks froze, from the first task up."""
    shares = table.pivot_table(index="task", columns="source", values="share", fill_value=0.0)
    shares = shares.reindex(index=range(tasks), columns=range(tasks), fill_value=0.0)
    edges = np.arange(tasks + 1) - 0.5
    bottom = np.zeros(tasks)
    for sources in series.source_ranges(tasks):
        top = bottom + shares[list(sources)].sum(axis=1).to_numpy()
        axes.stairs(top, edges, baseline=bottom, fill=True, color=colours[sources[len(sources) // 2]])
        bottom = top
    own = np.diag(shares.to_numpy())
    left = edges[:-1]
    x = np.stack([left, left, left + 1, left + 1, left, np.full(tasks, np.nan)], axis=1)
    y = np.stack([bottom - own, bottom, bottom, bottom - own, bottom - own, np.full(tasks, np.nan)], axis=1)
    axes.plot(x.ravel(), y.ravel(), color="black", linewidth=min(0.8, 25 / tasks))
    axes.set(xlim=(-0.5, tasks - 0.5))


def _accuracy_against(size: series.Size, comparison: Comparison) -> Figure | None:
    points = list(series.pareto_points(comparison, size))
    if not points:
        return None
    styles, note = drawn_together(comparison.groups)
    figure, axes = one_panel(f"Accuracy against {size.label}{note}{with_intervals(comparison, 'bars')}")
    draw_estimates(axes, styles, points, size.metric)
    axes.set(xlabel=size.axis, ylabel="average test accuracy")
    if max(kept.mean for _, kept, _ in points) > 2:
        log_axis(axes, "x", lambda share: f"{100 * share:g}%")
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    within_shares(axes)
    draw_legend(figure, [axes])
    return figure


def _weights(comparison: Comparison) -> Figure | None:
    table = series.weight_sizes(comparison)
    table = table[table["low"] > 0]
    if table.empty:
        return None
    styles, note = drawn_together(comparison.groups)
    title = f"Magnitudes of the used weights, in bins of a tenth of a decade{over_seeds(comparison)}{note}"
    figure, axes = one_panel(title)
    for label, style in styles.items():
        rows = table[table["group"] == label]
        if len(rows):
            x, y = series.histogram_outline(rows)
            axes.step(x, y, where="post", color=style.colour, linestyle=style.dash, label=label)
    axes.set(xlabel="magnitude of a weight, |theta|", ylabel="share of the used weights", ylim=(0, None))
    log_axis(axes, "x", power_of_ten)
    draw_legend(figure, [axes])
    return figure


DRAWINGS: dict[str, Callable[[Comparison], Figure | None]] = {
    "forgetting_curves": _forgetting_curves,
    "average_accuracy": _average_accuracy,
    "accuracy_matrix": _accuracy_matrix,
    "capacity_growth": _capacity_growth,
    "mask_composition": _mask_composition,
    **{f"accuracy_against_{size.label.replace(' ', '_')}": partial(_accuracy_against, size) for size in series.SIZES},
    "mask_overlap": _mask_overlap,
    "weights": _weights,
    **sparsity_figures.DRAWINGS,
}
