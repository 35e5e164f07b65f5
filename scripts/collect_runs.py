"""Gather run folders into one CSV, with the facts, the whole config and the metrics of each run.

python scripts/collect_runs.py RUNS... --out results.csv
"""

import argparse
import sys
from pathlib import Path

from cl_powerprop.analysis import load_runs

LEFT_OUT = ["run_id", "error", "host", "started", "finished", "messages", "diverged_tasks", "path", "data.download"]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="Gather run folders into one CSV.")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders that hold them")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    options = parser.parse_args()
    loaded = load_runs(options.runs, progress=True)
    for line in loaded.problems:
        print(line, file=sys.stderr)
    table = loaded.runs.drop(columns=[*LEFT_OUT, "data.root"], errors="ignore").dropna(axis="columns", how="all")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out, float_format="%.6g")
    print(f"{len(table)} runs in {options.out}")


if __name__ == "__main__":
    main()
