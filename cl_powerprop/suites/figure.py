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
    lay_out,
    log_axis,
    one_panel,
    save_figure,
    within_shares,
)
from cl_powerprop.suites.table import Row

NAME = "accuracy_against_total_size"


def draw_figure(found: Sequence[Row], title: str, folder: Path) -> list[str]:
    """Write the figure, and return the files' names; nothing if no run has both measurements.

    Args:
        found: the rows of the table.
        title: of the benchmark.
        folder: to write to.
    """
    points = [
        (row.outcome.entry.label, row.measured["total_size"], row.measured["average_accuracy"])
        for row in found
        if row.measured["total_size"].n and row.measured["average_accuracy"].n
    ]
    for suffix in FORMATS:
        (folder / f"{NAME}.{suffix}").unlink(missing_ok=True)
    if not points:
        return []
    with mpl.rc_context(RC):
        styles, note = drawn_together([label for label, _, _ in points], "methods")
        figure, axes = one_panel(f"{title}: accuracy against total size{note} (bars: 95 % t-interval)")
        draw_estimates(axes, styles, points)
        axes.set(xlabel="bits stored, relative to one dense network", ylabel="average test accuracy")
        log_axis(axes, "x", lambda size: f"{size:g}")
        within_shares(axes)
        draw_legend(figure, [axes])
        lay_out(figure)
        return save_figure(figure, folder / NAME, FORMATS[:2])
