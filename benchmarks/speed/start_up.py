"""The start-up time of the command, in seconds of CPU time."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile

import pandas as pd

REPEATS = 3
_IMPORTS = "import torch, avalanche.training.templates, avalanche.benchmarks.scenarios.supervised"
# The first loss ends the process: everything before it is start-up.
_UNTIL_THE_FIRST_STEP = """
import os, sys, torch
torch.nn.functional.cross_entropy = lambda *_, **__: os._exit(0)
from cl_powerprop.cli import main
main(["run", "strategy=naive", "model.heads=per_task", "progress=false", f"run_dir={sys.argv[1]}"])
"""


def measure() -> pd.DataFrame:
    """Return one row per command: CPU seconds of its process, the median over repeats."""
    module = [sys.executable, "-m", "cl_powerprop"]
    commands = {
        "cl-powerprop list": [*module, "list"],
        "cl-powerprop --help": [*module, "--help"],
        "cl-powerprop run --help": [*module, "run", "--help"],
        "importing torch and avalanche": [sys.executable, "-c", _IMPORTS],
        "cl-powerprop run, to its first step": [sys.executable, "-c", _UNTIL_THE_FIRST_STEP],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(_cpu_seconds([*command, f"{folder}/run"] if "first" in name else command))
    rows = {name: statistics.median(values) for name, values in seconds.items()}
    rows["... beyond importing torch and avalanche"] = (
        rows["cl-powerprop run, to its first step"] - rows["importing torch and avalanche"]
    )
    return pd.DataFrame({"command": list(rows), "cpu_seconds": list(rows.values())})


def _cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
