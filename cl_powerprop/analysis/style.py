"""Colours, dashes and markers that tell groups apart, in print and for colour-blind readers too."""

import matplotlib as mpl
from matplotlib.colors import to_hex

# Okabe & Ito's palette without black and yellow, which a dark or a light page would swallow.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c")
MARKERS = "os^Dv*P"  # matplotlib
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "star", "cross")  # plotly, the same
DASHES = ("-", "--", ":", "-.")
PLOTLY_DASHES = ("solid", "dash", "dot", "dashdot")


def colour(index: int) -> str:
    """Return the colour of the group at a place."""
    return COLOURS[index % len(COLOURS)]


def dash(index: int) -> int:
    """Return which dash the group at a place has: solid until colours repeat."""
    return (index // len(COLOURS)) % len(DASHES)


def shades(count: int) -> list[str]:
    """Return a colour for each of some tasks in a row, dark to light."""
    return [to_hex(mpl.colormaps["viridis"](0.95 * place / max(1, count - 1))) for place in range(count)]
