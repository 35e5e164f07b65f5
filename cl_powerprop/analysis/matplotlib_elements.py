"""What the figures are made of in matplotlib: panels, lines with bands, heat maps, legends.

Figures are made without pyplot, which would keep them in memory and choose a backend for the whole process.
"""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.style import DASHES, MARKERS, colour, dash

MOST_PANELS = 12  # tasks, or groups, that one figure shows side by side
_MOST_NUMBERS = 12  # tasks up to which the numbers of a heat map are written into it
_MOST_MARKERS = 25  # points up to which each point of a line is marked
_COLUMNS = 4


def one_panel() -> tuple[Figure, Axes]:
    """Return a figure with a single panel."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    return figure, figure.subplots()


def many_panels(
    count: int, height: float = 2.2, width: float = 2.6, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` panels of this size, in inches, in rows and columns."""
    columns = _columns(count)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(4.5, width * columns), height * rows + 0.9), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).flat)
    for unused in panels[count:]:
        unused.set_visible(False)
    return figure, panels[:count]


def _columns(panels: int) -> int:
    return min(_COLUMNS, math.ceil(math.sqrt(panels)))


def label_panels(panels: list[Axes], x: str, y: str) -> None:
    """Label the x-axes of the lowest panels and the y-axes of the leftmost ones."""
    columns = _columns(len(panels))
    for index, axes in enumerate(panels):
        if index + columns >= len(panels):
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)
        if index % columns == 0:
            axes.set_ylabel(y)


def spread(count: int, most: int = MOST_PANELS) -> list[int]:
    """Return up to ``most`` evenly spaced numbers below ``count``, including the first and the last."""
    return sorted({round(number) for number in np.linspace(0, count - 1, min(count, most))})


def draw_lines(axes: Axes, comparison: Comparison, table: pd.DataFrame, x: str) -> None:
    """Draw each group's line, and the band between low and high."""
    for index, label in enumerate(comparison.groups):
        rows = table[table["group"] == label]
        if rows.empty:
            continue
        axes.plot(
            rows[x],
            rows["mean"],
            color=colour(index),
            linestyle=DASHES[dash(index)],
            marker=MARKERS[index % len(MARKERS)] if len(rows) <= _MOST_MARKERS else None,
            markersize=3,
            linewidth=1.4,
            label=label,
        )
        if rows["low"].notna().any():
            axes.fill_between(rows[x], rows["low"], rows["high"], color=colour(index), alpha=0.2, linewidth=0)


def draw_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of a panel below all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, max(1, len(labels))), frameon=False)


def heat_maps(matrices: dict[str, np.ndarray], title: str, x: str, y: str, first_row: int) -> Figure:
    """Return a figure with a heat map for each group.

    Args:
        matrices: each group's, with values from 0 to 1; NaN is left empty.
        title: of the figure.
        x, y: what columns and rows are.
        first_row: the number of the first row.
    """
    figure, panels = many_panels(min(len(matrices), MOST_PANELS), height=2.6, width=3.0)
    image = None
    size = 5 if len(panels) > 1 else 8
    for axes, (label, matrix) in zip(panels, matrices.items(), strict=False):
        image = axes.imshow(matrix, vmin=0.0, vmax=1.0, cmap="cividis", aspect="auto")
        axes.grid(visible=False)
        axes.set_title(label, fontsize=8)
        ticks = spread(len(matrix), 10)
        axes.set_xticks(ticks)
        axes.set_yticks(ticks, [str(tick + first_row) for tick in ticks])
        if len(matrix) <= _MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(matrix):
                if not np.isnan(value):
                    text, ink = f"{value:.2f}".lstrip("0"), "white" if value < 0.6 else "black"
                    axes.text(column, row, text, ha="center", va="center", fontsize=size, color=ink)
    figure.suptitle(title, fontsize=10)
    label_panels(panels, x, y)
    if image is not None:
        figure.colorbar(image, ax=panels, shrink=0.8)
    return figure
