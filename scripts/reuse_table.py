"""How much of each task's mask is reused from earlier tasks: means over the runs of each benchmark, as Markdown.

python scripts/reuse_table.py RUNS...
"""

import argparse
import json
from pathlib import Path

import pandas as pd


def reuse(folder: Path) -> pd.DataFrame:
    """Return, for each task of a run, the shares of its mask and of the used weights, over all masked layers."""
    capacity = pd.read_csv(folder / "capacity.csv").query("kind == 'masked'")
    tasks = capacity.groupby("task")[["weights", "kept", "newly_frozen", "reused"]].sum()
    table = pd.DataFrame(
        {
            "mask": tasks.kept / tasks.weights,
            "reused": tasks.reused / tasks.kept,
            "used": tasks.newly_frozen.cumsum() / tasks.weights,
        }
    )
    return table.assign(benchmark=json.loads((folder / "run.json").read_text(encoding="utf-8"))["benchmark"])


def main() -> None:
    """Print one row per task: its mask, the reused share of it, and how much of the network all tasks so far use."""
    parser = argparse.ArgumentParser(description="How much of each task's mask is reused from earlier tasks.")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders that hold them")
    options = parser.parse_args()
    folders = sorted(path.parent for root in options.runs for path in root.rglob("capacity.csv"))
    means = pd.concat(map(reuse, folders)).groupby(["benchmark", "task"]).mean().unstack("benchmark")
    means = means.swaplevel(axis=1).sort_index(axis=1, level=0, sort_remaining=False)
    means.loc["mean of tasks 1 on"] = means.iloc[1:].mean()
    names = [f"{benchmark}: {column}" for benchmark, column in means.columns]
    print("| task | " + " | ".join(names) + " |\n|" + " --- |" * (len(names) + 1))
    for task, row in means.iterrows():
        print(f"| {task} | " + " | ".join(f"{value:.1%}" for value in row) + " |")


if __name__ == "__main__":
    main()
