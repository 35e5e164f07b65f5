"""The cost of loggers: the same command without loggers and with each of them, interleaved and repeated.

python benchmarks/speed/loggers.py [--repeats 5] [OVERRIDES]
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOGGERS = {
    "none": ["logger=[]"],
    "tensorboard": ["logger=[tensorboard]"],
    "wandb, offline": ["logger=[wandb]", "logger.wandb.mode=offline"],
    "both": ["logger=[wandb,tensorboard]", "logger.wandb.mode=offline"],
}


def measure(overrides: list[str], folder: Path) -> tuple[float, float]:
    """Return the seconds of a whole command, and those of its run according to `run.json`."""
    command = [sys.executable, "-m", "cl_powerprop", "run", *overrides, f"run_dir={folder}", "progress=false"]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return seconds, record["seconds"]["total"]


def main() -> None:
    parser = argparse.ArgumentParser(description="What loggers cost, against the same run without.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("overrides", nargs="*", default=["experiment=quickstart/epn"], help="of cl-powerprop run")
    options = parser.parse_args()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in LOGGERS}
    with tempfile.TemporaryDirectory() as root:
        for repeat, (name, words) in itertools.product(range(options.repeats), LOGGERS.items()):
            logs = [f"logger.wandb.dir={root}/logs"] if "wandb" in words[0] else []
            taken[name].append(
                measure([*options.overrides, *words, *logs], Path(root) / str(repeat) / name.split(",")[0])
            )
            print(f"{repeat} {name}: {taken[name][-1][0]:.1f} s", file=sys.stderr)
    print(f"`cl-powerprop run {' '.join(options.overrides)}`, medians of {options.repeats}\n")
    print("| loggers | command, s | against none | run, s | against none |\n| --- | --- | --- | --- | --- |")
    for name, values in taken.items():
        cells = []
        for part in range(2):
            # Each repeat is compared with the one without loggers next to it, since the machine's speed drifts.
            ratios = [value[part] / none[part] for value, none in zip(values, taken["none"], strict=True)]
            cells += [f"{statistics.median(value[part] for value in values):.1f}", f"{statistics.median(ratios):.3f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
