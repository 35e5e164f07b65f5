"""Table and plot of one-shot pruning: accuracy against the share of the weights that is left."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from cl_powerprop.output import say_table

_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#000000",
)  # Okabe & Ito: colour-blind safe
_MARKERS = "os^Dvp*"
_SHOWN = (1.0, 0.5, 0.1129, 0.0546, 0.0264, 0.01)


def summarize_pruning(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation and number of seeds for each (alpha, density)."""
    groups = table.groupby(["alpha", "density"])["accuracy"]
    return groups.agg(["mean", "std", "count"]).reset_index()


def print_pruning(summary: pd.DataFrame) -> None:
    """Print the mean accuracy of each alpha at a few densities."""
    wide: Any = summary.pivot_table(index="alpha", columns="density", values="mean")
    nearest = [min(wide.columns, key=lambda density: abs(density - shown)) for shown in _SHOWN]
    table = Table(
        title=f"test accuracy by the share of the weights left, mean over {int(summary['count'].max())} seed(s)"
    )
    table.add_column("alpha", justify="right")
    columns = list(dict.fromkeys(nearest))
    for density in columns:
        table.add_column(f"{density:.1%}", justify="right")
    for alpha, row in wide.iterrows():
        table.add_row(f"{alpha:g}", *(f"{row[density]:.3f}" for density in columns))
    say_table(table, 100)


def plot_pruning(summary: pd.DataFrame, path: Path) -> None:
    """Write the plot as ``<path>.png`` and ``<path>.svg``; bands are one standard deviation over seeds."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, (alpha, rows) in enumerate(summary.groupby("alpha")):
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        axes.plot(rows["density"], rows["mean"], color=colour, marker=marker, markersize=4, label=f"alpha {alpha:g}")
        spread = rows["std"].fillna(0.0)
        axes.fill_between(rows["density"], rows["mean"] - spread, rows["mean"] + spread, color=colour, alpha=0.2, lw=0)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("weights left after one-shot magnitude pruning (output layer: twice the share)")
    axes.set_ylabel("test accuracy")
    axes.set_title("LeNet-300-100 on MNIST, pruned without retraining")
    axes.grid(alpha=0.3)
    axes.legend()
    with matplotlib.rc_context({"svg.hashsalt": "cl-powerprop"}):  # the same summary gives the same bytes
        for suffix in (".png", ".svg"):
            figure.savefig(path.with_suffix(suffix), dpi=150, metadata={"Date": None})
