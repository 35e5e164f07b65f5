"""Colours, dashes and markers of groups, chosen to be distinct in print and for colour-blind readers."""

import matplotlib as mpl
from matplotlib.colors import to_hex

# Okabe & Ito's palette without black and yellow, which are invisible on a dark or a light page.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c")
MARKERS = "os^Dv*P"  # matplotlib
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "star", "cross")  # the same in Plotly
DASHES = ("-", "--", ":", "-.")
PLOTLY_DASHES = ("solid", "dash", "dot", "dashdot")


def colour(index: int) -> str:
    """Return the colour of the group at this position."""
    return COLOURS[index % len(COLOURS)]


def dash(index: int) -> int:
    """Return which dash the group at this position has: solid until colours repeat."""
    return (index // len(COLOURS)) % len(DASHES)


def shades(count: int) -> list[str]:
    """Return a colour for each of ``count`` tasks, from dark to light."""
    return [to_hex(mpl.colormaps["viridis"](0.95 * index / max(1, count - 1))) for index in range(count)]
