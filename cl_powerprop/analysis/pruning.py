"""Table and plot of one-shot pruning: accuracy against the share of the weights that is left."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from cl_powerprop.output import say_table

_SHOWN = (1.0, 0.5, 0.1129, 0.0546, 0.0264, 0.01)


def summarize_pruning(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation and number of seeds for each (alpha, density)."""
    groups = table.groupby(["alpha", "density"])["accuracy"]
    return groups.agg(["mean", "std", "count"]).reset_index()


def print_pruning(summary: pd.DataFrame) -> None:
    """Print the mean accuracy of each alpha at a few densities."""
    wide: Any = summary.pivot_table(index="alpha", columns="density", values="mean")
    nearest = [min(wide.columns, key=lambda density: abs(density - shown)) for shown in _SHOWN]
    seeds = int(summary["count"].max())
    over = f", mean over {seeds} seeds" if seeds > 1 else ""
    table = Table(title=f"test accuracy by the share of the weights left{over}")
    table.add_column("alpha", justify="right")
    columns = list(dict.fromkeys(nearest))
    for density in columns:
        table.add_column(f"{density:.1%}", justify="right")
    for alpha, row in wide.iterrows():
        table.add_row(f"{alpha:g}", *(f"{row[density]:.3f}" for density in columns))
    say_table(table, 100)


def plot_pruning(summary: pd.DataFrame, path: Path) -> None:
    """Write the plot as ``<path>.png``, ``.svg`` and ``.pdf``; bands are one standard deviation over seeds."""
    import matplotlib as mpl

    from cl_powerprop.analysis.matplotlib_elements import (
        FORMATS,
        RC,
        draw_legend,
        lay_out,
        log_axis,
        one_panel,
        save_figure,
        within_shares,
    )
    from cl_powerprop.analysis.style import group_styles

    alphas = {f"alpha {alpha:g}": rows for alpha, rows in summary.groupby("alpha")}
    seeds = int(summary["count"].max())
    bands = f" (mean over {seeds} seeds; bands: one standard deviation)" if seeds > 1 else ""
    with mpl.rc_context(RC):
        figure, axes = one_panel(f"Test accuracy after pruning without retraining{bands}")
        for label, style in group_styles(alphas).items():
            rows = alphas[label]
            axes.plot(rows["density"], rows["mean"], color=style.colour, marker=style.marker, markersize=4, label=label)
            spread = rows["std"].fillna(0.0)
            low, high = (rows["mean"] - spread).clip(lower=0.0), (rows["mean"] + spread).clip(upper=1.0)
            axes.fill_between(rows["density"], low, high, color=style.colour, alpha=0.2, lw=0)
        log_axis(axes, "x", lambda share: f"{100 * share:g}%")
        axes.invert_xaxis()
        axes.set_xlabel("weights left after one-shot magnitude pruning (output layer: twice the share)")
        axes.set_ylabel("test accuracy")
        within_shares(axes)
        draw_legend(figure, [axes])
        lay_out(figure)
        save_figure(figure, path, FORMATS)
