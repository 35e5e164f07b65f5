"""Accuracy on each alphabet of EPN and of independent networks, and the capacity used so far: a CSV and a figure.

python benchmarks/omniglot/alphabets.py EPN_RUN INDEPENDENT_RUN
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent


def gather(epn: Path, independent: Path) -> pd.DataFrame:
    """Return one row per alphabet: final test accuracies, and the capacity used and reused once it was learned."""
    final = {
        name: pd.read_csv(run / "accuracy_matrix.csv").iloc[-1]
        for name, run in (("epn", epn), ("independent", independent))
    }
    table = pd.DataFrame(final).rename_axis("alphabet").reset_index()
    capacity = pd.read_csv(epn / "capacity.csv").query("kind == 'masked'")
    tasks = capacity.groupby("task")[["weights", "kept", "newly_frozen", "reused"]].sum()
    heads = pd.read_csv(epn / "capacity.csv").query("kind == 'dense' and layer.str.contains('heads')")
    return table.assign(
        mask=(tasks.kept / tasks.weights).to_numpy(),
        reused_of_mask=(tasks.reused / tasks.kept).to_numpy(),
        capacity_used=(tasks.newly_frozen.cumsum() / tasks.weights).to_numpy(),
        head_weights=heads.groupby("task").weights.sum().to_numpy(),
    )


def plot(table: pd.DataFrame, path: Path) -> None:
    """Draw both accuracies, and below them the capacity used."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(12, 7), sharex=True, height_ratios=[3, 2], layout="constrained"
    )
    above.plot(table.independent, color="#e69f00", marker="s", linestyle="none", label="independent networks")
    above.plot(table.epn, color="#0072b2", marker="o", linestyle="none", label="EPN, alpha 2")
    for name, colour in (("independent", "#e69f00"), ("epn", "#0072b2")):
        above.axhline(table[name].mean(), color=colour, linewidth=1)
    above.set_ylabel("final test accuracy\n(lines: means)")
    above.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    below.plot(100 * table.capacity_used, color="#0072b2", label="used by all tasks so far")
    below.bar(table.index, 100 * table["mask"], color="#56b4e9", label="the task's mask")
    below.bar(table.index, 100 * table["mask"] * table.reused_of_mask, color="#999999", label="of it reused")
    below.set_ylabel("share of the weights, %")
    below.set_ylim(0, 100)
    below.legend(frameon=False, loc="upper left")
    below.set_xticks(table.index, table.alphabet.str.replace("_", " "), rotation=90, fontsize=8)
    for axis in (above, below):
        axis.spines[["top", "right"]].set_visible(False)
    for suffix in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{suffix}"), dpi=120)
    plt.close(figure)


def main() -> None:
    """Write the table and the figure next to this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("epn", type=Path)
    parser.add_argument("independent", type=Path)
    options = parser.parse_args()
    table = gather(options.epn, options.independent)
    table.to_csv(HERE / "alphabets.csv", index=False, float_format="%.4f")
    plot(table, HERE / "alphabets")
    print(table[["epn", "independent"]].agg(["mean", "std", "min"]).round(4))


if __name__ == "__main__":
    main()
