"""The figures of a comparison, drawn with matplotlib: as PNG and SVG files, or as arrays of pixels."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from cl_powerprop.analysis import series
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.matplotlib_elements import (
    MOST_PANELS,
    draw_legend,
    draw_lines,
    heat_maps,
    label_panels,
    many_panels,
    one_panel,
    spread,
)
from cl_powerprop.analysis.style import COLOURS, DASHES, MARKERS, colour, dash, shades

_DPI = 120
_STYLE: Any = {
    "svg.hashsalt": "cl-powerprop",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.grid": True,
    "text.parse_math": False,  # a label may contain a dollar sign
    "grid.alpha": 0.3,
}


def draw_figures(comparison: Comparison, folder: Path) -> list[str]:
    """Write each figure that the runs have data for to ``folder``, as PNG and SVG, and return their names."""
    drawn = []
    for name, figure in _figures(comparison, DRAWINGS):
        figure.savefig(folder / f"{name}.png", dpi=_DPI)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        drawn.append(name)
    return drawn


def figure_images(comparison: Comparison, names: Iterable[str]) -> dict[str, NDArray[np.uint8]]:
    """Return each of these figures that the runs have data for, as an image ``[height, width, 3]``."""
    images = {}
    for name, figure in _figures(comparison, names):
        figure.set_dpi(_DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        images[name] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return images


def _figures(comparison: Comparison, names: Iterable[str]) -> Iterator[tuple[str, Figure]]:
    with mpl.rc_context(_STYLE):
        for name in names:
            figure = DRAWINGS[name](comparison)
            if figure is not None:
                yield name, figure


def _forgetting_curves(comparison: Comparison) -> Figure:
    table = series.forgetting_curves(comparison)
    tasks = int(comparison.runs.runs["n_tasks"].max())
    shown = spread(tasks)
    figure, panels = many_panels(len(shown), sharex=True, sharey=True)
    for axes, task in zip(panels, shown, strict=True):
        draw_lines(axes, comparison, table[table["task"] == str(task)], "progress")
        axes.axvspan(task, task + 1, color="0.9", zorder=0)
        axes.set_title(f"task {task}", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    figure.suptitle(
        "Test accuracy on a task over the sequence (grey: its own training; bands: 95 % t-interval)", fontsize=10
    )
    label_panels(panels, "tasks trained", "test accuracy")
    draw_legend(figure, panels[0])
    return figure


def _average_accuracy(comparison: Comparison) -> Figure | None:
    table = series.forgetting_curves(comparison)
    table = table[table["task"] == series.AVERAGE]
    if table.empty:
        return None
    figure, axes = one_panel()
    draw_lines(axes, comparison, table, "progress")
    axes.set(xlabel="tasks trained", ylabel="average test accuracy", title="Average over the tasks learned so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    draw_legend(figure, axes)
    return figure


def _accuracy_matrix(comparison: Comparison) -> Figure:
    maps = {label: matrix.to_numpy() for label, matrix in series.accuracy_matrices(comparison).items()}
    return heat_maps(maps, "Test accuracy, mean over seeds", "task tested", "tasks trained", first_row=1)


def _mask_overlap(comparison: Comparison) -> Figure | None:
    maps = series.mask_overlaps(comparison)
    if not maps:
        return None
    return heat_maps(
        maps, "Weights in both masks, as a share of those in either (Jaccard index)", "task", "task", first_row=0
    )


def _capacity_growth(comparison: Comparison) -> Figure | None:
    table = series.capacity_growth(comparison)
    if table.empty:
        return None
    figure, axes = one_panel()
    draw_lines(axes, comparison, table, "tasks")
    axes.set(xlabel="tasks trained", ylabel="maskable weights in use", title="Capacity used", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    draw_legend(figure, axes)
    return figure


def _mask_composition(comparison: Comparison) -> Figure | None:
    table = series.mask_composition(comparison)
    labels = [label for label in comparison.groups if label in set(table["group"])][:MOST_PANELS]
    if not labels:
        return None
    figure, panels = many_panels(len(labels), height=2.6, width=3.2, sharey=True)
    tasks = int(table["task"].max()) + 1
    colours = shades(tasks)
    for axes, label in zip(panels, labels, strict=True):
        rows = table[table["group"] == label].pivot_table(
            index="task", columns="source", values="share", fill_value=0.0
        )
        rows = rows.reindex(index=range(tasks), columns=range(tasks), fill_value=0.0)
        bottom = np.zeros(tasks)
        for source in range(tasks):
            height = rows[source].to_numpy()
            axes.bar(range(tasks), height, bottom=bottom, color=colours[source], width=0.9)
            bottom += height
        own = np.diag(rows.to_numpy())
        axes.bar(range(tasks), own, bottom=bottom - own, color="none", edgecolor="black", linewidth=0.6, width=0.9)
        axes.set_title(label, fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.suptitle(
        "Each task's mask, by the task that froze its weights\n(outlined: frozen by the task itself)", fontsize=10
    )
    label_panels(panels, "task", "share of the maskable weights")
    colour_map = LinearSegmentedColormap.from_list("tasks", shades(max(2, tasks)))
    scale = ScalarMappable(Normalize(0, max(1, tasks - 1)), colour_map)
    figure.colorbar(scale, ax=panels, label="frozen by task", shrink=0.8, ticks=spread(tasks, 8))
    return figure


def _accuracy_against_capacity(comparison: Comparison) -> Figure | None:
    points = list(series.pareto_points(comparison))
    if not points:
        return None
    figure, axes = one_panel()
    for index, label, capacity, accuracy in points:
        axes.errorbar(
            capacity.mean,
            accuracy.mean,
            xerr=np.nan_to_num(capacity.mean - capacity.t_low),
            yerr=np.nan_to_num(accuracy.mean - accuracy.t_low),
            color=colour(index),
            marker=MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
            capsize=2,
            linestyle="none",
            label=label,
        )
    axes.set(
        xlabel="weights used, as a share of one network's maskable weights",
        ylabel="average test accuracy at the end",
        title="Accuracy against capacity (bars: 95 % t-interval)",
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    if max(capacity.mean for _, _, capacity, _ in points) > 2:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    draw_legend(figure, axes)
    return figure


def _weights(comparison: Comparison) -> Figure | None:
    table = series.weight_sizes(comparison)
    if table.empty:
        return None
    figure, axes = one_panel()
    for index, label in enumerate(comparison.groups):
        rows = table[(table["group"] == label) & (table["low"] > 0)].sort_values("low")
        if len(rows):
            axes.step(
                rows["low"],
                rows["share"],
                where="post",
                color=colour(index),
                linestyle=DASHES[dash(index)],
                label=label,
            )
    axes.set(
        xscale="log",
        xlabel="magnitude of a weight, |theta|",
        ylabel="share of the used weights (bins: a tenth of a decade)",
        title="Magnitudes of the used weights",
    )
    draw_legend(figure, axes)
    return figure


DRAWINGS: dict[str, Callable[[Comparison], Figure | None]] = {
    "forgetting_curves": _forgetting_curves,
    "average_accuracy": _average_accuracy,
    "accuracy_matrix": _accuracy_matrix,
    "capacity_growth": _capacity_growth,
    "mask_composition": _mask_composition,
    "accuracy_against_capacity": _accuracy_against_capacity,
    "mask_overlap": _mask_overlap,
    "weights": _weights,
}
