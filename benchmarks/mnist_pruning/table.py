"""The table of this folder's README, from its pruning.csv or from new runs.

python benchmarks/mnist_pruning/table.py                            # the recorded runs
python benchmarks/mnist_pruning/table.py runs/pruning --out FOLDER  # others: also writes their files
"""

import argparse
from pathlib import Path

import pandas as pd

from cl_powerprop import load_runs

HERE = Path(__file__).parent
SHOWN = (1.0, 0.4833, 0.1129, 0.0546, 0.0264, 0.01)


def read_runs(paths: list[Path]) -> pd.DataFrame:
    """Return alpha, seed, density and accuracy of all networks in some run folders."""
    loaded = load_runs(paths)
    table = loaded.pruning.merge(loaded.runs[["alpha", "seed"]], left_on="run", right_index=True)
    ordered = table.sort_values(["alpha", "seed", "density"], ascending=[True, True, False])
    return ordered[["alpha", "seed", "density", "accuracy"]].reset_index(drop=True)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation and number of seeds for each alpha and density."""
    return table.groupby(["alpha", "density"])["accuracy"].agg(["mean", "std", "count"]).reset_index()


def markdown(summary: pd.DataFrame) -> str:
    """Return the mean accuracies of each alpha at a few densities."""
    wide = summary.pivot_table(index="alpha", columns="density", values="mean")[list(SHOWN)]
    head = " | ".join(f"{100 * density:.1f}".removesuffix(".0") + " %" for density in SHOWN)
    lines = [f"| alpha | {head} |", "| " + " | ".join("---" for _ in range(len(SHOWN) + 1)) + " |"]
    lines += [f"| {alpha:g} | {' | '.join(f'{value:.3f}' for value in row)} |" for alpha, row in wide.iterrows()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders, or folders that hold them")
    parser.add_argument("--out", type=Path, help="folder for pruning.csv and pruning_summary.csv of these runs")
    arguments = parser.parse_args()
    table = read_runs(arguments.runs) if arguments.runs else pd.read_csv(HERE / "pruning.csv")
    summary = summarize(table)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.out / "pruning.csv", index=False)
        summary.to_csv(arguments.out / "pruning_summary.csv", index=False)
    print(markdown(summary))


if __name__ == "__main__":
    main()
