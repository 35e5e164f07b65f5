"""The figures of a comparison as PNG and SVG."""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from cl_powerprop.analysis import series
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.style import COLOURS, DASHES, MARKERS, colour, dash, shades

_MOST_PANELS = 12  # tasks, or groups, that one picture shows side by side
_MOST_NUMBERS = 12  # tasks up to which a heat map has its numbers written into it
_COLUMNS = 4
_DPI = 120


_STYLE: Any = {
    "svg.hashsalt": "cl-powerprop",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.grid": True,
    "text.parse_math": False,  # a dollar in a label is a dollar
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
    """Return some figures as pictures ``[height, width, 3]``, those that the runs have data for."""
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
                plt.close(figure)


def _columns(panels: int) -> int:
    return min(_COLUMNS, math.ceil(math.sqrt(panels)))


def _panels(count: int, height: float = 2.2, width: float = 2.6, **options: object) -> tuple[Figure, list[Axes]]:
    columns = _columns(count)
    rows = -(-count // columns)
    size = (max(4.5, width * columns), height * rows + 0.9)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)  # type: ignore[call-overload]
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.set_visible(False)
    return figure, flat[:count]


def _label(panels: list[Axes], x: str, y: str) -> None:
    """Label the lowest and the leftmost of some panels."""
    columns = _columns(len(panels))
    for place, axes in enumerate(panels):
        if place + columns >= len(panels):
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)
        if place % columns == 0:
            axes.set_ylabel(y)


def _spread(count: int, most: int = _MOST_PANELS) -> list[int]:
    """Return up to ``most`` numbers below ``count``, the first and last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})


def _lines(axes: Axes, comparison: Comparison, table: pd.DataFrame, x: str) -> None:
    """Draw a line with its band for each group."""
    for index, label in enumerate(comparison.groups):
        rows = table[table["group"] == label]
        if rows.empty:
            continue
        marker = MARKERS[index % len(MARKERS)] if len(rows) <= 25 else None
        axes.plot(
            rows[x],
            rows["mean"],
            color=colour(index),
            linestyle=DASHES[dash(index)],
            marker=marker,
            markersize=3,
            linewidth=1.4,
            label=label,
        )
        if rows["low"].notna().any():
            axes.fill_between(rows[x], rows["low"], rows["high"], color=colour(index), alpha=0.2, linewidth=0)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, max(1, len(labels))), frameon=False)


def _forgetting_curves(comparison: Comparison) -> Figure:
    table = series.forgetting_curves(comparison)
    tasks = int(comparison.runs.runs["n_tasks"].max())
    shown = _spread(tasks)
    figure, panels = _panels(len(shown), sharex=True, sharey=True)
    for axes, task in zip(panels, shown, strict=True):
        _lines(axes, comparison, table[table["task"] == str(task)], "progress")
        axes.axvspan(task, task + 1, color="0.9", zorder=0)
        axes.set_title(f"task {task}", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    figure.suptitle(
        "Test accuracy on a task over the sequence (grey: while it trains; bands: 95 % t-interval)", fontsize=10
    )
    _label(panels, "tasks trained", "test accuracy")
    _legend(figure, panels[0])
    return figure


def _average_accuracy(comparison: Comparison) -> Figure | None:
    table = series.forgetting_curves(comparison)
    table = table[table["task"] == series.AVERAGE]
    if table.empty:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    _lines(axes, comparison, table, "progress")
    axes.set(xlabel="tasks trained", ylabel="average test accuracy", title="Average over the tasks learned so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, axes)
    return figure


def _heat_maps(maps: dict[str, np.ndarray], title: str, x: str, y: str, first_row: int) -> Figure:
    figure, panels = _panels(min(len(maps), _MOST_PANELS), height=2.6, width=3.0)
    image = None
    size = 5 if len(panels) > 1 else 8
    for axes, (label, matrix) in zip(panels, maps.items(), strict=False):
        image = axes.imshow(matrix, vmin=0.0, vmax=1.0, cmap="cividis", aspect="auto")
        axes.grid(visible=False)
        axes.set_title(label, fontsize=8)
        ticks = _spread(len(matrix), 10)
        axes.set_xticks(ticks)
        axes.set_yticks(ticks, [str(tick + first_row) for tick in ticks])
        if len(matrix) <= _MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(matrix):
                if not np.isnan(value):
                    ink = "white" if value < 0.6 else "black"
                    axes.text(
                        column, row, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=size, color=ink
                    )
    figure.suptitle(title, fontsize=10)
    _label(panels, x, y)
    if image is not None:
        figure.colorbar(image, ax=panels, shrink=0.8)
    return figure


def _accuracy_matrix(comparison: Comparison) -> Figure:
    maps = {label: matrix.to_numpy() for label, matrix in series.accuracy_matrices(comparison).items()}
    return _heat_maps(maps, "Test accuracy, mean over seeds", "task tested", "tasks trained", first_row=1)


def _mask_overlap(comparison: Comparison) -> Figure | None:
    maps = series.mask_overlaps(comparison)
    if not maps:
        return None
    return _heat_maps(maps, "Weights that two masks share, of those that either holds", "task", "task", first_row=0)


def _capacity_growth(comparison: Comparison) -> Figure | None:
    table = series.capacity_growth(comparison)
    if table.empty:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    _lines(axes, comparison, table, "tasks")
    axes.set(xlabel="tasks trained", ylabel="maskable weights in use", title="Capacity used", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(figure, axes)
    return figure


def _mask_composition(comparison: Comparison) -> Figure | None:
    table = series.mask_composition(comparison)
    labels = [label for label in comparison.groups if label in set(table["group"])][:_MOST_PANELS]
    if not labels:
        return None
    figure, panels = _panels(len(labels), height=2.6, width=3.2, sharey=True)
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
    figure.suptitle("Each task's mask, by the task that froze its weights\n(outlined: newly frozen)", fontsize=10)
    _label(panels, "task", "share of the maskable weights")
    scale = mpl.cm.ScalarMappable(
        mpl.colors.Normalize(0, max(1, tasks - 1)),
        mpl.colors.LinearSegmentedColormap.from_list("tasks", shades(max(2, tasks))),
    )
    figure.colorbar(scale, ax=panels, label="frozen by task", shrink=0.8, ticks=_spread(tasks, 8))
    return figure


def _accuracy_against_capacity(comparison: Comparison) -> Figure | None:
    points = list(series.pareto_points(comparison))
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
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
        xlabel="weights used, of one network's maskable ones",
        ylabel="average test accuracy at the end",
        title="Accuracy against capacity (bars: 95 % t-interval)",
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    if max(capacity.mean for _, _, capacity, _ in points) > 2:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(figure, axes)
    return figure


def _weights(comparison: Comparison) -> Figure | None:
    table = series.weight_sizes(comparison)
    if table.empty:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
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
        xlabel="size of a weight, |theta|",
        ylabel="share of the used weights (bins of a tenth decade)",
        title="How large the used weights are",
    )
    _legend(figure, axes)
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
