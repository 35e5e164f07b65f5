"""What a multirun costs outside training: many jobs whose runs are stand-ins, see `stub_run.py`."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from stub_run import TRAINED

RUN = ("data=digits", "strategy=naive", "benchmark.n_tasks=2", "train.epochs=1", "save_model=false", "progress=false")


def measure(jobs: int, at_a_time: int, folder: Path) -> dict[str, float]:
    """Return what a multirun took, in seconds: in all, until the first job ended, a job, and after the last one."""
    here = Path(__file__).parent
    trained = folder / "trained"
    if not trained.exists():
        _call([], ["run", *RUN, f"run_dir={trained}"], {})
    sweep = folder / f"{jobs}_{at_a_time}"
    begun = time.time()
    words = ["run", "-m", *RUN, f"seed=range({jobs})", f"hydra.launcher.n_jobs={at_a_time}", f"run_dir={sweep}"]
    _call(["--import", "stub_run"], words, {"PYTHONPATH": str(here), TRAINED: str(trained)})
    ended = time.time()
    done = sorted(path.stat().st_mtime for path in sweep.glob("*/run.json"))
    if len(done) != jobs:
        raise SystemExit(f"{len(done)} of {jobs} jobs have run")
    return {
        **{"jobs": jobs, "at_a_time": at_a_time, "all": ended - begun, "all_a_job": (ended - begun) / jobs},
        **{"until_first": done[0] - begun, "a_job": (done[-1] - done[0]) / max(1, jobs - 1), "after": ended - done[-1]},
    }


def _call(first: list[str], words: list[str], environment: dict[str, str]) -> None:
    call = [sys.executable, "-m", "cl_powerprop", *first, *words]
    one_thread = {"OMP_NUM_THREADS": "1"}
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL, env=os.environ | one_thread | environment)


def main() -> None:
    """Print a row for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--at-a-time", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(options.jobs, count, Path(folder)) for count in options.at_a_time]
    print(pd.DataFrame(rows).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
