"""Tables and figures of the recorded runs: python benchmarks/sparse_training/tables.py [FOLDER]"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import pandas as pd

HERE = Path(__file__).parent
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"]  # distinguishable for colour-blind readers
MARKERS = "os^D"


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean, deviation and number of seeds of each controller, alpha and sparsity."""
    groups = runs.groupby(["controller", "alpha", "sparsity"], sort=False)["accuracy"]
    return groups.agg(["mean", "std", "count"]).reset_index()


def accuracy_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the table of accuracies: a row for each controller and alpha, a column for each sparsity."""
    means = summarise(runs)
    means["shown"] = means["mean"].map("{:.4f}".format) + means["std"].map(" ± {:.4f}".format)
    wide = means.pivot_table(index=["controller", "alpha"], columns="sparsity", values="shown", aggfunc="first")
    wide.columns = [f"{sparsity:.0%} sparse" if sparsity else "dense" for sparsity in wide.columns]
    return wide.fillna("").reset_index()


def gain_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return by how much the alpha above 1 with the best validation accuracy differs from alpha 1, paired by seed.

    The alpha is chosen for each controller and sparsity by the mean validation accuracy; the test accuracy is reported.
    """
    rows = []
    for (controller, sparsity), group in runs.groupby(["controller", "sparsity"]):
        judged = group.groupby("alpha")["validation"].mean()
        if 1.0 not in judged or len(judged) < 2:
            continue
        best = judged.drop(1.0).idxmax()
        accuracy = group.pivot_table(index="seed", columns="alpha", values="accuracy")
        gain = 100 * (accuracy[best] - accuracy[1.0])
        rows.append((controller, sparsity, f"{gain.mean():+.2f} ({best:g})" + (" *" if (gain > 0).all() else "")))
    table = pd.DataFrame(rows, columns=["controller", "sparsity", "gain"])
    wide = table.pivot_table(index="controller", columns="sparsity", values="gain", aggfunc="first")
    wide.columns = [f"{sparsity:.0%} sparse" if sparsity else "dense" for sparsity in wide.columns]
    return wide.fillna("").reset_index()


def flops_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the FLOPs of training relative to dense training, of each controller with alpha 1."""
    wide = runs[runs.alpha == 1.0].pivot_table(index="controller", columns="sparsity", values="training_flops")
    wide.columns = [f"{sparsity:.0%} sparse" if sparsity else "dense" for sparsity in wide.columns]
    return wide.map(lambda value: "" if pd.isna(value) else f"{value:.3f}").reset_index()


def markdown(table: pd.DataFrame) -> str:
    rows = [list(table), ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(_text, row)) + " |" for row in rows)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def plot(runs: pd.DataFrame, path: Path) -> None:
    """Draw accuracy against density, a panel for each controller, into ``path`` .png and .svg."""
    means = summarise(runs)
    dense = means[means.controller == "dense"].set_index("alpha")["mean"]
    controllers = [name for name in dict.fromkeys(runs.controller) if name != "dense"]
    columns = min(4, len(controllers))
    rows = -(-len(controllers) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.1 * columns, 3.0 * rows + 0.5),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat[len(controllers) :]:
        axis.remove()
    for axis, controller in zip(axes.flat, controllers, strict=False):
        for alpha, colour, marker in zip(sorted(runs.alpha.unique()), COLOURS, MARKERS, strict=False):
            line = means[(means.controller == controller) & (means.alpha == alpha)].sort_values("sparsity")
            axis.errorbar(
                100 * (1 - line.sparsity), line["mean"], line["std"], color=colour, marker=marker, markersize=4,
                capsize=2, label=f"alpha {alpha:g}",
            )  # fmt: skip
        axis.axhline(dense[1.0], color="#8c8c8c", linewidth=0.8, linestyle="--", label="dense, alpha 1")
        axis.set_title(controller, fontsize=10)
        axis.set_xscale("log")
        axis.set_xticks(sorted({100 * (1 - each) for each in runs.sparsity if each}))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:.3g} %")
        axis.xaxis.set_minor_formatter(lambda value, _: "")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes.flat[0].invert_xaxis()
    figure.supxlabel("weights in use", fontsize=10)
    figure.supylabel("test accuracy", fontsize=10)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=len(labels), loc="outside upper center")
    for suffix in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{suffix}"), dpi=120)
    plt.close(figure)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    runs = pd.read_csv(folder / "runs.csv")
    tables = []
    for network, group in runs.groupby("network", sort=False):
        tables += [
            f"## {network}",
            markdown(accuracy_table(group)),
            "Gain of the alpha above 1 (in brackets) with the best validation accuracy over alpha 1, in points of test "
            "accuracy; *: in every seed.",
            markdown(gain_table(group)),
            "FLOPs of training, relative to dense training.",
            markdown(flops_table(group)),
        ]
        plot(group, folder / str(network))
    (folder / "results.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
