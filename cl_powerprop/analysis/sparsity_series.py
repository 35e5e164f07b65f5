"""The numbers behind the figures of sparse training, as tidy tables; image files and report draw the same ones."""

from dataclasses import dataclass

import pandas as pd

from cl_powerprop import naming
from cl_powerprop.analysis.comparison import Comparison, rows_of
from cl_powerprop.analysis.series import error_bars, over_runs
from cl_powerprop.analysis.statistics import estimate

ALL = "all layers"
PRUNED = "pruned after training"  # a dense network, in place of a controller
DENSITY = "density"
AXES = {
    DENSITY: "weights left, as a share of the masked weights",
    "inference_flops": "FLOPs of inference, relative to the dense network's",
    "training_flops": "FLOPs of training, relative to dense training",
}
"""What accuracy is drawn against, and how the axis is labelled."""
NOUNS = {DENSITY: "density", "inference_flops": "FLOPs of inference", "training_flops": "FLOPs of training"}
QUANTITIES = {
    "grown": "weights grown so far, for each active one",
    "regrown": "grown weights that had been dropped before",
    "ever_active": "weights that were active at some time",
    "dead_units": "output units without an active weight",
}
"""What is shown of how masks change."""
SHARES = ("regrown", "ever_active")  # of these


def is_sparse(comparison: Comparison) -> bool:
    """Whether some run was trained sparsely, or pruned afterwards."""
    runs = comparison.runs
    return bool(runs.runs["controller"].notna().any()) or len(runs.pruning) > 0


def accuracy_against(comparison: Comparison, axis: str) -> pd.DataFrame:
    """Return accuracy over one of :data:`AXES`: source, controller, line, pruned, x, n, mean, low, high.

    A group, the ``source``, is a point. The points of a line differ in the target sparsity alone; its text says in
    what it differs from the lines of other settings, "" if there are none. ``pruned`` points are of the network of a
    group, pruned to this density without further training. Of a comparison with many groups, all are there.
    """
    whole = comparison.whole or comparison
    runs = whole.runs.runs
    rows = rows_of(runs)
    by = naming.differing(list(rows.values()), [name for name in whole.by if name not in naming.SPARSE_TRAINING])
    lines = naming.labels(rows, by) if by else dict.fromkeys(rows, "")
    controllers = runs["controller"].fillna(naming.DENSE)
    points = []
    for label in whole.groups:
        at, reached = (
            whole.values(label, "sparsity" if axis == DENSITY else axis),
            whole.values(label, "average_accuracy"),
        )
        x, accuracy = estimate(at.to_numpy()), estimate(reached.to_numpy())
        if x.n and accuracy.n:
            below, above = error_bars(accuracy)
            place = 1.0 - x.mean if axis == DENSITY else x.mean
            points.append(
                (label, False, place, accuracy.n, accuracy.mean, accuracy.mean - below, accuracy.mean + above)
            )
    table = pd.DataFrame(points, columns=["group", "pruned", "x", "n", "mean", "low", "high"])
    if axis == DENSITY and len(whole.runs.pruning):
        averaged = whole.runs.pruning.groupby(["run", "density"], sort=False)["accuracy"].mean().reset_index()
        curves = over_runs(whole, averaged.rename(columns={"density": "x", "accuracy": "value"}), ["x"])
        table = pd.concat([table, curves.assign(pruned=True)], ignore_index=True)
    first = {label: names[0] for label, names in whole.groups.items()}
    table["controller"] = ["/".join(dict.fromkeys(controllers[whole.groups[label]])) for label in table["group"]]
    table.loc[table["pruned"] & (table["controller"] == naming.DENSE), "controller"] = PRUNED
    table["line"] = [lines[first[label]] for label in table["group"]]
    return table.rename(columns={"group": "source"}).sort_values(["controller", "line", "pruned", "x"], kind="stable")


@dataclass(frozen=True)
class Arranged:
    """How accuracies are arranged in a figure.

    Attributes:
        panels: by title, the points of :func:`accuracy_against`, with their line as ``group``. ``dense`` points are of
            networks trained without a controller, by which the others are judged.
        lines: all texts of lines.
    """

    panels: dict[str, pd.DataFrame]
    lines: list[str]

    @property
    def has_dense(self) -> bool:
        """Whether there are dense networks among them."""
        return any(table["dense"].any() for table in self.panels.values())


def arranged(table: pd.DataFrame) -> Arranged:
    """Return what :func:`accuracy_against` returned in a panel for each controller, or all in one.

    One panel is enough where the controllers are all that differs; a line is then a controller.
    """
    table = table.assign(dense=table["controller"] == naming.DENSE)
    if table["dense"].all():
        return Arranged({}, [])
    sparse = table[~table["dense"]]
    if sparse["line"].nunique() == 1:
        return Arranged({"": table.assign(group=table["controller"])}, list(dict.fromkeys(table["controller"])))
    table = table.assign(group=table["line"])
    lines = list(dict.fromkeys(sparse["line"]))
    dense = table[table["dense"] & table["line"].isin(lines)]
    panels = {str(name): pd.concat([rows, dense]) for name, rows in table[~table["dense"]].groupby("controller")}
    return Arranged(panels, lines)


def layer_densities(comparison: Comparison) -> pd.DataFrame:
    """Return the density of each layer over training: group, layer, step, density (mean over runs).

    The layers are in the order of the network; the last one is :data:`ALL`.
    """
    counts = comparison.runs.sparsity
    whole = counts.groupby(["run", "step"], sort=False)[["weights", "active"]].sum().reset_index().assign(layer=ALL)
    rows = pd.concat([counts, whole], ignore_index=True)
    rows = rows.assign(density=rows["active"] / rows["weights"], group=rows["run"].map(comparison.group_of))
    return rows.groupby(["group", "layer", "step"], sort=False)["density"].mean().reset_index()


def exploration(comparison: Comparison) -> pd.DataFrame:
    """Return how masks change over training: quantity (of :data:`QUANTITIES`), group, step, n, mean, low, high."""
    totals = comparison.runs.sparsity.groupby(["run", "step"], sort=False).sum(numeric_only=True).reset_index()
    shares = {"grown": "active", "regrown": "grown", "ever_active": "weights"}
    tables = []
    for quantity in QUANTITIES:
        values = totals[quantity]
        if quantity in shares:
            values = values / totals[shares[quantity]].clip(lower=1)
        rows = totals[["run", "step"]].assign(value=values.astype(float))
        most = 1.0 if quantity in SHARES else float("inf")
        tables.append(over_runs(comparison, rows, ["step"], most).assign(quantity=quantity))
    return pd.concat(tables, ignore_index=True)
