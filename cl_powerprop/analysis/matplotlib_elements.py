"""What the figures are made of in matplotlib: panels, lines with bands, heat maps, axes, legends.

Figures are made without pyplot, which would keep them in memory and choose a backend for the whole process.
"""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import get_registered_canvas_class
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from cl_powerprop.analysis.series import error_bars
from cl_powerprop.analysis.statistics import Estimate
from cl_powerprop.analysis.style import DISTINCT, Style, group_styles
from cl_powerprop.analysis.wording import axis_names, first_of, wrap
from cl_powerprop.files import write_file

FORMATS = ("png", "svg", "pdf")
DPI = 120
RC: Any = {
    "svg.hashsalt": "cl-powerprop",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType, which journals ask for
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "text.parse_math": False,  # a label may contain a dollar sign
    "grid.alpha": 0.3,
}
_METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # else files differ
MOST_PANELS = 12  # tasks, or groups, that one figure shows side by side
_MOST_NUMBERS = 12  # tasks up to which the numbers of a heat map are written into it
_MOST_MARKERS = 25  # points up to which each point of a line is marked
_COLUMNS = 4
_NAME = 12  # characters of a task's name below an axis
_TITLE = 10  # font sizes in points
_PANEL_TITLE = 8
_LEGEND = 9
_LEGEND_HANDLE = 0.7  # inches that the sample beside an entry of the legend takes, with its spacing
_LEGEND_ROW = 0.19  # inches
_MARGIN = 0.3  # inches left free beside titles
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def lay_out(figure: Figure) -> None:
    """Give the parts of a finished figure their places, for all formats in which it is then drawn."""
    figure.set_dpi(DPI)
    engine = figure.get_layout_engine()
    if engine is not None:
        ticks = _ticks(figure)
        engine.execute(figure)
        if _ticks(figure) != ticks:  # the room for ticks depends on the ticks, which depend on the room
            engine.execute(figure)
    figure.set_layout_engine("none")


def _ticks(figure: Figure) -> list[tuple[float, ...]]:
    return [tuple(axis.get_majorticklocs()) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]


def save_figure(figure: Figure, path: Path, formats: Sequence[str]) -> list[str]:
    """Write the figure as ``<path>.<format>`` for each format, and return the files' names."""
    names = [f"{path.name}.{suffix}" for suffix in formats]
    for name, suffix in zip(names, formats, strict=True):
        image = io.BytesIO()
        figure.set_dpi(DPI)  # vector formats change it
        canvas = get_registered_canvas_class(suffix)(figure)
        # `savefig` would draw it once more before, to lay it out.
        getattr(canvas, f"print_{suffix}")(image, metadata=_METADATA.get(suffix))
        write_file(path.with_name(name), image.getvalue())
    return names


def drawn_together(labels: Iterable[str], what: str = "groups") -> tuple[dict[str, Style], str]:
    """Return the groups that a figure can tell apart, with their styles, and a note for its title if there are more."""
    styles = group_styles(labels)
    shown = dict(list(styles.items())[:DISTINCT])
    return shown, first_of(len(shown), len(styles), what)


def one_panel(title: str) -> tuple[Figure, Axes]:
    """Return a figure with a single panel."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    figure.suptitle(wrap(title, 6.4 - _MARGIN, _TITLE), fontsize=_TITLE)
    return figure, figure.subplots()


def many_panels(
    titles: Sequence[str],
    title: str,
    height: float = 2.2,
    width: float = 2.6,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel of this size, in inches, for each title, in rows and columns."""
    columns = _columns(len(titles))
    rows = -(-len(titles) // columns)
    across = max(4.5, width * columns)
    figure = Figure(figsize=(across, height * rows + 0.9), layout="constrained")
    figure.suptitle(wrap(title, across - _MARGIN, _TITLE), fontsize=_TITLE)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).flat)
    for unused in panels[len(titles) :]:
        unused.set_visible(False)
    for axes, text in zip(panels, titles, strict=False):
        axes.set_title(wrap(text, width - 2 * _MARGIN, _PANEL_TITLE), fontsize=_PANEL_TITLE)
    return figure, panels[: len(titles)]


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


def count_ticks(axis: Axis, tasks: int) -> None:
    """Put the ticks of an axis that counts tasks at whole numbers, as many as fit side by side."""
    few = 10 if tasks <= MOST_PANELS else 6
    axis.set_major_locator(MaxNLocator(nbins=few, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def name_ticks(axes: Axes, labels: list[str], tasks: int) -> None:
    """Put the names of tasks below an x-axis that counts them; the numbers where they are many, or have no names."""
    names = axis_names(labels[:tasks], _NAME)
    if tasks <= MOST_PANELS and names != list(map(str, range(tasks))):
        axes.set_xticks(range(tasks), names, rotation=90, fontsize=_PANEL_TITLE - 1)
    else:
        count_ticks(axes.xaxis, tasks)


def count_axis(axes: Axes, first: int, last: int) -> None:
    """Make the x-axis one that counts tasks from ``first`` to ``last``."""
    room = max(0.5 if first == last else 0.0, 0.02 * (last - first))
    axes.set_xlim(first - room, last + room)
    count_ticks(axes.xaxis, last)


def within_shares(axes: Axes) -> None:
    """Let the y-axis, which shows shares, end at 0 and 1 where only its margin goes beyond."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, min(0.0, axes.dataLim.y0)), min(high, max(1.0, axes.dataLim.y1)))


def log_axis(axes: Axes, which: Literal["x", "y"], text: Callable[[float], str]) -> None:
    """Make an axis logarithmic, with ticks at powers of ten, and between them if it spans few."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axis.get_view_interval())
    between = (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
    axis.set_major_locator(LogLocator(subs=between, numticks=9))
    axis.set_major_formatter(lambda value, _: text(value))
    axis.set_minor_formatter(NullFormatter())


def power_of_ten(value: float) -> str:
    """Return 0.001 as 10⁻³, and 0.002 as 2·10⁻³, without mathematical markup, which group labels exclude."""
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = round(value / 10.0**exponent)
    power = "10" + str(exponent).translate(_SUPERSCRIPTS)
    return power if factor == 1 else f"{factor}·{power}"


def few_points(table: pd.DataFrame, x: str) -> bool:
    """Whether lines through these points have so few that each is marked."""
    return bool(table[x].nunique() <= _MOST_MARKERS)


def draw_lines(axes: Axes, styles: dict[str, Style], table: pd.DataFrame, x: str, marked: bool) -> None:
    """Draw each group's line, and the band between low and high."""
    for label, style in styles.items():
        rows = table[table["group"] == label]
        if rows.empty:
            continue
        axes.plot(
            rows[x],
            rows["mean"],
            color=style.colour,
            linestyle=style.dash,
            marker=style.marker if marked or len(rows) == 1 else None,
            markersize=3.5,
            linewidth=1.4,
            clip_on=False,  # a marker at 1.0 is drawn whole
            label=label,
        )
        if rows["low"].notna().any():
            axes.fill_between(rows[x], rows["low"], rows["high"], color=style.colour, alpha=0.2, linewidth=0)


def draw_estimates(
    axes: Axes, styles: dict[str, Style], points: Iterable[tuple[str, Estimate, Estimate]], metric: str
) -> None:
    """Draw a marker for each group at the means of a size and the average accuracy, with their t-intervals as bars.

    Args:
        axes: to draw on.
        styles: of the groups that are drawn.
        points: label of a group, and its estimates along x and y.
        metric: that is along x.
    """
    for label, x, y in points:
        if label in styles:
            style = styles[label]
            axes.errorbar(
                x.mean,
                y.mean,
                xerr=np.nan_to_num([[reach] for reach in error_bars(x, metric)]),
                yerr=np.nan_to_num([[reach] for reach in error_bars(y)]),
                color=style.colour,
                capsize=2,
                linestyle="none",
            )
            axes.plot(x.mean, y.mean, style.marker, color=style.colour, clip_on=False, label=label)


def draw_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Put the legend of all panels below them, in a figure that grows by its height."""
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if not entries:
        return
    width, height = figure.get_size_inches()
    texts = [wrap(label, width - _LEGEND_HANDLE - _MARGIN, _LEGEND) for label in entries]
    longest = max(len(line) for text in texts for line in text.splitlines())
    entry = longest * 0.56 * _LEGEND / 72 + _LEGEND_HANDLE
    columns = max(1, min(4, len(texts), int((width - _MARGIN) / entry)))
    lines = sum(text.count("\n") + 1 for text in texts)
    figure.set_size_inches(width, height + _LEGEND_ROW * (-(-lines // columns) - 1))
    figure.legend(entries.values(), texts, loc="outside lower center", ncols=columns, frameon=False, fontsize=_LEGEND)


def heat_maps(matrices: dict[str, np.ndarray], labels: list[str], title: str, x: str, y: str, first_row: int) -> Figure:
    """Return a figure with a heat map for each group.

    Args:
        matrices: each group's, with values from 0 to 1; NaN is left empty.
        labels: of the tasks.
        title: of the figure.
        x, y: what columns and rows are.
        first_row: the number of the first row.
    """
    shown = list(matrices)[:MOST_PANELS]
    title += first_of(len(shown), len(matrices), "groups")
    figure, panels = many_panels(shown, title, height=2.6, width=3.0)
    image = None
    for axes, label in zip(panels, shown, strict=True):
        matrix = matrices[label]
        tasks = len(matrix)
        edges = (-0.5, tasks - 0.5, first_row + tasks - 0.5, first_row - 0.5)
        image = axes.imshow(matrix, vmin=0.0, vmax=1.0, cmap="cividis", aspect="auto", extent=edges)
        axes.grid(visible=False)
        name_ticks(axes, labels, tasks)
        count_ticks(axes.yaxis, tasks)
        if tasks <= _MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(matrix):
                if not np.isnan(value):
                    text, ink = f"{value:.2f}".removeprefix("0"), "white" if value < 0.5 else "black"
                    size = 7 if tasks > _MOST_NUMBERS / 2 else 8
                    axes.text(column, row + first_row, text, ha="center", va="center", fontsize=size, color=ink)
    label_panels(panels, x, y)
    if image is not None:
        figure.colorbar(image, ax=panels, shrink=0.8)
    return figure
