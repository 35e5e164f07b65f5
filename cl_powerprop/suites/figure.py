"""The figure of a suite: accuracy against the total size of all that is stored."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from cl_powerprop.analysis.matplotlib_elements import (
    FORMATS,
    RC,
    draw_estimates,
    draw_legend,
    drawn_together,
    label_panels,
    lay_out,
    log_axis,
    many_panels,
    save_figure,
    within_shares,
)
from cl_powerprop.analysis.statistics import Estimate
from cl_powerprop.suites.table import Row

NAME = "accuracy_against_total_size"
FRONTIER = "frontier: no other is both smaller and more accurate"
_MARGIN = 0.5  # below the frontier, of its height: how far its panel reaches
_FEW = 2  # methods near the frontier, which need no panel of their own

Point = tuple[str, Estimate, Estimate]


def draw_figure(found: Sequence[Row], title: str, folder: Path) -> list[str]:
    """Write the figure, and return the files' names; nothing if no run has both measurements.

    Args:
        found: the rows of the table.
        title: of the benchmark.
        folder: to write to.
    """
    points = [
        (row.entry.label, row.measured["total_size"], row.measured["average_accuracy"])
        for row in found
        if row.measured["total_size"].n and row.measured["average_accuracy"].n
    ]
    for suffix in FORMATS:
        (folder / f"{NAME}.{suffix}").unlink(missing_ok=True)
    if not points:
        return []
    best = frontier(points)
    near = _near(points, best)
    panels = {"all methods": points} | ({"near the frontier": near} if _FEW < len(near) < len(points) else {})
    sizes, accuracies = zip(*((size.mean, accuracy.mean) for _, size, accuracy in best), strict=True)
    with mpl.rc_context(RC):
        styles, note = drawn_together([label for label, _, _ in points], "methods")
        heading = f"{title}: accuracy against total size{note} (bars: 95 % t-interval)"
        figure, drawn = many_panels(list(panels) if len(panels) > 1 else [""], heading, height=3.6, width=5.2)
        for axes, shown in zip(drawn, panels.values(), strict=True):
            draw_estimates(axes, styles, shown, "total_size")
            axes.plot(sizes, accuracies, ":", color="0.6", drawstyle="steps-post", zorder=1, label=FRONTIER)
            log_axis(axes, "x", lambda size: f"{size:g}")
            within_shares(axes)
        label_panels(drawn, "bits stored, relative to one dense network", "average test accuracy")
        draw_legend(figure, drawn)
        lay_out(figure)
        return save_figure(figure, folder / NAME, FORMATS[:2])


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points than which no other is both smaller and more accurate on average, the smallest one first.

    Args:
        points: label, size and accuracy of each method.
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda each: (each[1].mean, -each[2].mean)):
        if not best or point[2].mean > best[-1][2].mean:
            best.append(point)
    return best


def _near(points: Sequence[Point], best: Sequence[Point]) -> list[Point]:
    """Return the points that are about as accurate as those of the frontier."""
    low, high = best[0][2].mean, best[-1][2].mean
    return [point for point in points if point[2].mean >= low - _MARGIN * (high - low)]
