"""What the figures of the report are made of, as Plotly specifications: lines with bands, points, heat maps, axes."""

from typing import Any

import numpy as np
import pandas as pd

from cl_powerprop.analysis.series import tick_step
from cl_powerprop.analysis.style import Style
from cl_powerprop.analysis.wording import axis_names, plotly_text

_MOST_NUMBERS = 12  # tasks up to which the numbers of a heat map are written into it, and its columns named
_MOST_MARKERS = 40  # points up to which each point of a line is marked

# Invisible ticks keep the numbers of the two axes apart in the corner.
_TICKS = {"ticks": "outside", "ticklen": 6, "tickcolor": "rgba(0,0,0,0)"}
# Shares lie within 0 and 1, and so do the ticks beside them.
SHARES = {"autorangeoptions": {"clipmin": 0, "clipmax": 1}}


def line_with_band(
    style: Style, label: str, rows: pd.DataFrame, x: str, choice: str | None = None
) -> list[dict[str, Any]]:
    """Return the traces of a group's line and of its band, which is shown and hidden with the line.

    Args:
        style: the group's.
        label: the group.
        rows: the points, in order: ``x``, mean, low, high; low and high are NaN where there is no interval.
        x: the column of ``rows`` along the x-axis.
        choice: the choice of the reader that shows the line; None for always.
    """
    meta = {"group": label, "choice": choice}
    intervals = [
        "one run" if np.isnan(low) else f"{low:.4f} to {high:.4f}"
        for low, high in zip(rows["low"], rows["high"], strict=True)
    ]
    line = {
        "type": "scatter",
        "mode": "lines+markers" if len(rows) <= _MOST_MARKERS else "lines",
        "name": plotly_text(label),
        "x": rows[x].tolist(),
        "y": rows["mean"].tolist(),
        "customdata": intervals,
        "line": line_style(style) | {"width": 2},
        "marker": marker_style(style) | {"size": 6},
        "cliponaxis": False,  # a marker at 1.0 is drawn whole
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
        "fillcolor": _faded(style.colour),
        "line": {"width": 0, "color": style.colour},
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": meta,
    }
    return [band, line]


def line_style(style: Style) -> dict[str, Any]:
    """Return colour and dash of a group's line."""
    return {"color": style.colour, "dash": style.plotly_dash}


def marker_style(style: Style) -> dict[str, Any]:
    """Return colour and symbol of a group's points."""
    return {"color": style.colour, "symbol": style.symbol}


def error_bar(above: float, below: float | None = None) -> dict[str, Any]:
    """Return an error bar that reaches this far above the point, and ``below`` or as far below it; none for NaN."""
    bar: dict[str, Any] = {"type": "data", "array": [above], "visible": not np.isnan(above), "thickness": 2}
    return bar if below is None else bar | {"symmetric": False, "arrayminus": [below]}


def _faded(hexadecimal: str) -> str:
    red, green, blue = (int(hexadecimal[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def heat_map(label: str, matrix: np.ndarray, x: list[str], y: list[str], hover: str) -> dict[str, Any]:
    """Return the trace of a matrix of shares, which is shown if the reader chooses the group ``label``.

    ``x`` and ``y`` are different texts for the columns and for the rows.
    """
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": [list(row) for row in matrix],
        "x": [plotly_text(text) for text in x],
        "y": [plotly_text(text) for text in y],
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Cividis",
        "hovertemplate": hover,
        "hoverongaps": False,
        "xgap": 1 if len(matrix) <= 4 * _MOST_NUMBERS else 0,
        "ygap": 1 if len(matrix) <= 4 * _MOST_NUMBERS else 0,
        "colorbar": {"thickness": 12},
        "meta": {"group": None, "choice": label},
    }
    if len(matrix) <= _MOST_NUMBERS:
        trace["texttemplate"] = "%{z:.2f}"
    return trace


def axes(x: str, y: str, **options: Any) -> dict[str, Any]:
    """Return a layout with these axis titles; an option ``xaxis_type`` is the option ``type`` of the x-axis."""
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": x, "standoff": 10}, "automargin": True} | _TICKS,
        "yaxis": {"title": {"text": y, "standoff": 10}, "automargin": True} | _TICKS,
        "hovermode": "x unified",
    }
    for key, value in options.items():
        axis, _, name = key.partition("_")
        if name:
            layout[axis][name] = value
        else:
            layout[key] = value
    return layout


def task_axes(tasks: int, x: str, y: str, **options: Any) -> dict[str, Any]:
    """Return a layout whose x-axis counts tasks, with ticks at whole numbers."""
    few = {"xaxis_tick0": 0, "xaxis_dtick": 1} if tick_step(tasks) == 1 else {}  # else Plotly chooses halves
    return axes(x, y, xaxis_tickformat="d", **few, **options)


def name_ticks(layout: dict[str, Any], labels: list[str]) -> None:
    """Put the names of tasks below an x-axis that counts them, if they are few enough."""
    if len(labels) <= _MOST_NUMBERS:
        texts = [plotly_text(name) for name in axis_names(labels)]
        shown = {"tickmode": "array", "tickvals": list(range(len(labels))), "ticktext": texts}
        layout["xaxis"] |= shown | {"autotickangles": [0, -90]}  # aslant, the last would reach beyond the figure


def matrix_axes(x: str, y: str, columns: list[str], rows: list[str], first_row: int) -> dict[str, Any]:
    """Return the layout of a heat map, whose first row is at the top.

    Args:
        x, y: what columns and rows are.
        columns, rows: the texts by which the trace places them, in order.
        first_row: the number of the first row.
    """
    few = len(columns) <= _MOST_NUMBERS
    names = axis_names(columns) if few else list(map(str, range(len(columns))))
    across = {text: names[index] for index, text in _regular(columns, 0)}
    down = {text: str(number) for number, text in _regular(rows, first_row)}
    layout = axes(x, y, hovermode="closest", yaxis_autorange="reversed")
    for axis, ticks in (("xaxis", across), ("yaxis", down)):
        places, texts = map(plotly_text, ticks), map(plotly_text, ticks.values())
        shown = {"type": "category", "tickvals": list(places), "ticktext": list(texts)}
        layout[axis] |= shown | {"showgrid": False, "zeroline": False}
    return layout


def _regular(texts: list[str], first: int) -> list[tuple[int, str]]:
    """Return (number, text) at regular distances, numbered from ``first``; all if there are few."""
    step = 1 if len(texts) <= _MOST_NUMBERS else tick_step(len(texts))
    return [(number, text) for number, text in enumerate(texts, first) if number % step == 0]
