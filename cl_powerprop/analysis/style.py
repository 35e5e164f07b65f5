"""Colours, dashes and markers of groups, chosen to be distinct in print and for colour-blind readers."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.colors import to_hex

# Okabe & Ito's palette without black and yellow, which are invisible on a dark or a light page; then three more.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c"),
    *("#8a63d2", "#a0793d", "#8f9a00"),
)
DASHES = ("-", "--", ":", "-.")
# One for each colour.
_MARKERS = "os^Dv*PX<>"
_SYMBOLS = (
    *("circle", "square", "triangle-up", "diamond", "triangle-down", "star", "cross"),
    *("x", "triangle-left", "triangle-right"),
)
_SIGNS = "●■▲◆▼★✚✖◀▶"
_PLOTLY_DASHES = ("solid", "dash", "dot", "dashdot")
_SVG_DASHES = ("none", "6 3", "2 2.5", "6 2 2 2")

# The strategies that most comparisons have keep their colours in all of them.
_USUAL = ("epn", "packnet", "joint", "ewc", "independent", "untrained", "naive")
_BASELINES = (_USUAL.index("packnet"), _USUAL.index("naive"))  # which other groups ask for last

DISTINCT = len(COLOURS) * len(DASHES)  # groups up to which no two look alike


@dataclass(frozen=True)
class Style:
    """How a group looks in every figure.

    Attributes:
        slot: the number of its colour and marker, below ``len(COLOURS)``.
        level: the number of its dash: 0, a solid line, until all colours are taken.
    """

    slot: int
    level: int = 0

    @property
    def colour(self) -> str:
        """As ``#rrggbb``."""
        return COLOURS[self.slot]

    @property
    def dash(self) -> str:
        """In matplotlib."""
        return DASHES[self.level]

    @property
    def plotly_dash(self) -> str:
        """The same in Plotly."""
        return _PLOTLY_DASHES[self.level]

    @property
    def svg_dash(self) -> str:
        """The same as SVG's ``stroke-dasharray``."""
        return _SVG_DASHES[self.level]

    @property
    def marker(self) -> str:
        """In matplotlib; groups that share a colour differ in it."""
        return _MARKERS[(self.slot + self.level) % len(_MARKERS)]

    @property
    def symbol(self) -> str:
        """The same in Plotly."""
        return _SYMBOLS[(self.slot + self.level) % len(_SYMBOLS)]

    @property
    def sign(self) -> str:
        """The same as a character."""
        return _SIGNS[(self.slot + self.level) % len(_SIGNS)]


def group_styles(labels: Iterable[str]) -> dict[str, Style]:
    """Return the style of each group, in the order given: distinct ones, which depend on the labels and not on it.

    A label asks for colours in an order of its own, derived from its text, and gets the first that is free. So it
    has the same colour in every comparison, unless two labels of one comparison ask for the same one.
    """
    given = list(dict.fromkeys(labels))
    ordered = sorted(given, key=lambda label: (label not in _USUAL, _draw(label), label))
    taken: set[Style] = set()
    styles = {}
    for position, label in enumerate(ordered):
        level = position // len(COLOURS) % len(DASHES)
        if len(taken) == DISTINCT:
            taken.clear()
        styles[label] = next(style for slot in _wishes(label) if (style := Style(slot, level)) not in taken)
        taken.add(styles[label])
    return {label: styles[label] for label in given}


def _wishes(label: str) -> list[int]:
    """Return all colours in the order in which a group asks for them."""
    drawn = sorted(range(len(COLOURS)), key=lambda slot: (slot in _BASELINES, _draw(f"{slot} {label}")))
    return [_USUAL.index(label), *drawn] if label in _USUAL else drawn


def _draw(text: str) -> int:
    return zlib.crc32(text.encode())


def shades(count: int) -> list[str]:
    """Return a colour for each of ``count`` tasks, from dark to light; all can be seen on a white and a dark page."""
    return [to_hex(mpl.colormaps["viridis"](0.2 + 0.68 * index / max(1, count - 1))) for index in range(count)]
