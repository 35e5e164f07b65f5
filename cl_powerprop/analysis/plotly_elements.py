"""What the figures of the report are made of, as Plotly specifications: lines with bands, points, heat maps, axes."""

from typing import Any

import numpy as np
import pandas as pd

from cl_powerprop.analysis.style import PLOTLY_DASHES, SYMBOLS, colour, dash

_MOST_NUMBERS = 12  # tasks up to which the numbers of a heat map are written into it
_MOST_MARKERS = 40  # points up to which each point of a line is marked


def line_with_band(
    index: int, label: str, rows: pd.DataFrame, x: str, choice: str | None = None
) -> list[dict[str, Any]]:
    """Return the traces of a group's line and of its band, which is shown and hidden with the line.

    Args:
        index: the group's position among the groups, which determines its style.
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
        "name": label,
        "x": rows[x].tolist(),
        "y": rows["mean"].tolist(),
        "customdata": intervals,
        "line": line_style(index) | {"width": 2},
        "marker": marker_style(index) | {"size": 6},
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
        "fillcolor": _faded(colour(index)),
        "line": {"width": 0, "color": colour(index)},
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": meta,
    }
    return [band, line]


def line_style(index: int) -> dict[str, Any]:
    """Return colour and dash of the line of the group at this position."""
    return {"color": colour(index), "dash": PLOTLY_DASHES[dash(index)]}


def marker_style(index: int) -> dict[str, Any]:
    """Return colour and symbol of the points of the group at this position."""
    return {"color": colour(index), "symbol": SYMBOLS[index % len(SYMBOLS)]}


def error_bar(half: float) -> dict[str, Any]:
    """Return an error bar of this length to both sides; none for NaN."""
    return {"type": "data", "array": [half], "visible": not np.isnan(half), "thickness": 2}


def _faded(hexadecimal: str) -> str:
    red, green, blue = (int(hexadecimal[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def heat_map(label: str, matrix: np.ndarray, x: list[str], y: list[str], hover: str) -> dict[str, Any]:
    """Return the trace of a matrix of shares, which is shown if the reader chooses the group ``label``."""
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": [list(row) for row in matrix],
        "x": x,
        "y": y,
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Cividis",
        "hovertemplate": hover,
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 12},
        "meta": {"group": None, "choice": label},
    }
    if len(matrix) <= _MOST_NUMBERS:
        trace["texttemplate"] = "%{z:.2f}"
    return trace


def axes(x: str, y: str, **options: Any) -> dict[str, Any]:
    """Return a layout with these axis titles; an option ``xaxis_type`` is the option ``type`` of the x-axis."""
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "hovermode": "x unified",
    }
    for key, value in options.items():
        axis, _, name = key.partition("_")
        if name:
            layout[axis][name] = value
        else:
            layout[key] = value
    return layout


def matrix_axes(x: str, y: str) -> dict[str, Any]:
    """Return the layout of a heat map, whose first row is at the top."""
    options = {"yaxis_autorange": "reversed", "xaxis_automargin": True, "yaxis_automargin": True, "height": 460}
    return axes(x, y, hovermode="closest", **options)
