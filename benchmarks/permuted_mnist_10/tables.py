"""The tables and the figure of this folder's README, from results.csv.

python benchmarks/permuted_mnist_10/tables.py
"""

from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent

# WSN's public code on this network and data: learned score masks, one seed, 5 epochs, batch 10, Adam.
WSN = pd.DataFrame({"capacity_used": [0.34, 0.71], "average_accuracy": [0.961, 0.962]})

# Settings that must match: runs that differ in one of them are never averaged together.
SETTINGS = [
    *("strategy", "strategy.train_through", "strategy.gamma", "model.alpha"),
    *("optimizer", "optimizer.lr", "optimizer.momentum", "train.epochs", "train.batch_size"),
]

CURVES = {  # (train_through, epochs): label, colour (Okabe & Ito), marker
    ("free", 5): ("EPN, earlier weights hidden in training, 5 epochs", "#0072b2", "o"),
    ("all", 5): ("EPN as in the paper, 5 epochs", "#e69f00", "s"),
    ("free", 10): ("EPN, earlier weights hidden in training, 10 epochs", "#009e73", "^"),
    ("all", 10): ("EPN as in the paper, 10 epochs", "#d55e00", "v"),
}


def over_seeds(runs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return mean and standard deviation over the seeds of each group."""
    groups = runs.groupby(by, dropna=False)
    table = groups.agg(
        seeds=("seed", "nunique"),
        accuracy=("average_accuracy", "mean"),
        accuracy_std=("average_accuracy", "std"),
        forgetting=("average_forgetting", "mean"),
        capacity=("capacity_used", "mean"),
        capacity_std=("capacity_used", "std"),
        verified=("zero_forgetting_verified", "all"),
    )
    return table.reset_index()


def markdown(table: pd.DataFrame) -> str:
    """Return the table as Markdown, with rounded numbers."""
    shown = table.copy()
    for name in ("accuracy", "accuracy_std", "forgetting"):
        shown[name] = shown[name].map("{:.4f}".format)
    for name in ("capacity", "capacity_std"):
        shown[name] = shown[name].map("{:.1%}".format)
    lines = ["| " + " | ".join(shown.columns) + " |", "| " + " | ".join("---" for _ in shown.columns) + " |"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in shown.itertuples(index=False)]
    return "\n".join(lines)


def plot(runs: pd.DataFrame) -> None:
    """Write accuracy_against_capacity.png and .svg: one point per gamma, bars of one standard deviation over seeds."""
    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for (through, epochs), (label, colour, marker) in CURVES.items():
        chosen = runs[(runs["strategy.train_through"] == through) & (runs["train.epochs"] == epochs)]
        if chosen.empty:
            continue
        table = over_seeds(chosen, ["strategy.gamma"]).sort_values("capacity")
        x, y = table["capacity"], table["accuracy"]
        axes.errorbar(
            x,
            y,
            yerr=table["accuracy_std"],
            xerr=table["capacity_std"],
            color=colour,
            marker=marker,
            capsize=2,
            label=label,
        )
        for gamma, left, height in zip(table["strategy.gamma"], x, y, strict=True):
            axes.annotate(f"{gamma:g}", (left, height), textcoords="offset points", xytext=(6, -10), fontsize=8)
    axes.plot(
        WSN["capacity_used"],
        WSN["average_accuracy"],
        "k*--",
        markersize=10,
        label="WSN's public code, 5 epochs, 1 seed",
    )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the maskable weights used after 10 tasks")
    axes.set_ylabel("average test accuracy after 10 tasks")
    axes.set_title("10 permuted MNIST tasks, 784-100-100, alpha 2; numbers: gamma")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    for suffix in (".png", ".svg"):
        figure.savefig(HERE / f"accuracy_against_capacity{suffix}", dpi=150)


def main() -> None:
    """Print the tables and write the figure."""
    runs = pd.read_csv(HERE / "results.csv")
    print("## All settings\n")
    print(markdown(over_seeds(runs, SETTINGS)))
    free = (runs["strategy.train_through"] == "free") & (runs["train.epochs"] == 5) & (runs["optimizer.momentum"] == 0)
    print("\n## Alpha, at gamma 0.97\n")
    print(markdown(over_seeds(runs[free & (runs["strategy.gamma"] == 0.97)], ["model.alpha", "optimizer.lr"])))
    curve = runs[(runs["strategy"] == "epn") & (runs["model.alpha"] == 2) & (runs["optimizer.momentum"] == 0)]
    plot(curve)


if __name__ == "__main__":
    main()
