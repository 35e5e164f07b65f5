"""Measure the speed of all parts, and write tables (CSV and Markdown) and a figure next to this file.

    python benchmarks/speed/speed.py                    # on the data set mnist5k, takes some minutes
    CL_POWERPROP_DATA=... python benchmarks/speed/speed.py --data mnist                     # as recorded
    CL_POWERPROP_DATA=... python benchmarks/speed/speed.py strategies stock --data mnist    # only some parts

Absolute times depend on the machine and its load; compare ratios, and do not use the machine for anything else
meanwhile. Parts that are not measured keep their recorded tables.
"""

import argparse
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from plots import plot

FOLDER = Path(__file__).parent
PARTS = ("strategies", "stock", "growth", "split", "seeds", "start_up", "steps", "sparse_training")
TITLES = {
    "strategies": "Training against a bare PyTorch loop (epoch, task: times the bare loop's)",
    "stock": "PackNet against stock Avalanche (seconds, medians)",
    "growth": "More tasks (EPN, evaluation.schedule=diagonal_and_last)",
    "split": "Where the time of a run over 10 tasks goes (shares)",
    "seeds": "Four seeds",
    "batched": "Four seeds in one set of tensor operations",
    "start_up": "Start-up",
    "sparse_training": "Sparse training against dense training (a step; an update as a share of training; memory)",
    "steps": "What is left: operations by their own time, as shares of a task under the profiler",
}


def parts(data: str) -> dict[str, Callable[[], dict[str, pd.DataFrame]]]:
    """Return the parts that can be measured, by name: functions that return tables by name."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # silences torch's profiler; torch reads this once
    warnings.filterwarnings("ignore", "No loggers specified")
    import seeds
    import sparse_training
    import start_up
    import steps
    import stock
    import strategies
    import tasks

    def growth() -> dict[str, pd.DataFrame]:
        lengths, each_task = tasks.measure_growth(data)
        return {"growth": lengths, "growth_tasks": each_task}

    measures = {
        "strategies": lambda: {"strategies": strategies.measure(data)},
        "stock": lambda: {"stock": stock.measure()},
        "growth": growth,
        "split": lambda: {"split": tasks.measure_split(data)},
        "seeds": lambda: {"seeds": seeds.measure(data), "batched": seeds.measure_batched()},
        "start_up": lambda: {"start_up": start_up.measure()},
        "steps": lambda: {"steps": steps.measure(data)},
        "sparse_training": lambda: {"sparse_training": sparse_training.measure()},
    }
    return {name: measures[name] for name in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)}; all by default")
    parser.add_argument("--data", default="mnist5k", help="mnist5k (embedded) or mnist")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the tables and the figure")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; choose from: {', '.join(PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name, measure in parts(options.data).items():
        if options.parts and name not in options.parts:
            continue
        if name == "stock" and options.data != "mnist":
            print("stock: left out, for Avalanche's PermutedMNIST needs --data mnist\n")
            continue
        for table, rows in measure().items():
            rows.round(4).to_csv(options.out / f"{table}.csv", index=False)
            if table in TITLES:
                print(f"{TITLES[table]}\n{rows.round(3).to_string(index=False)}\n", flush=True)
    tables = {path.stem: pd.read_csv(path) for path in options.out.glob("*.csv")}
    sections = [f"## {title}\n\n{_markdown(tables[name])}\n" for name, title in TITLES.items() if name in tables]
    (options.out / "results.md").write_text("# Recorded speed\n\n" + "\n".join(sections), encoding="utf-8")
    plot(tables, options.out / "speed")
    print(f"tables and figure: {options.out}")


def _markdown(table: pd.DataFrame) -> str:
    def line(cells) -> str:
        return "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"

    header = [name.replace("_", " ") for name in table.columns]
    return "\n".join([line(header), line("---" for _ in header), *(line(row) for row in table.itertuples(index=False))])


if __name__ == "__main__":
    main()
