"""Gather run folders into one CSV: what each run was, with its whole config, and what it measured.

python scripts/collect_runs.py RUNS... --out results.csv
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from cl_powerprop.analysis.summary import load_summary

LEFT_OUT = ("defaults", "run_dir", "progress", "save_model", "pruning", "data.root", "data.download")


def flat_config(folder: Path) -> dict[str, Any]:
    """Return the run's config with dotted keys; lists as JSON."""
    loaded = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    config = {key: value for key, value in loaded.items() if key not in LEFT_OUT}  # type: ignore[union-attr]
    row = pd.json_normalize(config).iloc[0].to_dict()
    kept = {key: value for key, value in row.items() if key not in LEFT_OUT and not key.endswith(".name")}
    return {key: json.dumps(value) if isinstance(value, list) else value for key, value in kept.items()}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="Gather run folders into one CSV.")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders that hold them")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    options = parser.parse_args()
    folders = sorted(path.parent for root in options.runs for path in root.rglob("run.json"))
    measured = load_summary(folders).drop(columns=["alpha", "seed", "folder"])
    configs = pd.DataFrame([flat_config(folder) for folder in folders])
    table = pd.concat([measured, configs], axis=1)
    table.insert(0, "run", [folder.name for folder in folders])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out, index=False, float_format="%.6g")
    print(f"{len(table)} runs in {options.out}")


if __name__ == "__main__":
    main()
