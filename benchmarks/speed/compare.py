"""The time and memory that comparing runs takes, measured on many copies of one run folder.

python benchmarks/speed/compare.py RUN [--groups 4 100 1000] [--seeds 1]
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cl_powerprop.analysis import load_runs
from cl_powerprop.analysis.compare import compare


def copies(run: Path, root: Path, groups: int, seeds: int) -> Path:
    """Copy a run under the names of several strategies, with some seeds each, no two of the same accuracy."""
    for index in range(groups * seeds):
        folder = root / str(index)
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("model.safetensors"))
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        record |= {"seed": index % seeds, "strategy": f"{record['strategy']}{index // seeds}"}
        record["metrics"]["average_accuracy"] -= index * 1e-4
        (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return root


def measure(root: Path, out: Path) -> None:
    """Print what loading and the whole comparison take of this process: CPU seconds, and peak memory in MiB."""
    start = time.process_time()
    load_runs(root)
    loaded = time.process_time()
    compare([root], out, quiet=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([loaded - start, time.process_time() - loaded, peak]))


def main() -> None:
    parser = argparse.ArgumentParser(description="How long comparing runs takes.")
    parser.add_argument("run", type=Path, help="a run folder to copy, or with --measure the folder of its copies")
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 100, 1000], help="how many groups to compare")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs a group has")
    parser.add_argument("--measure", type=Path, metavar="OUT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.run, options.measure)
        return
    print("| groups | runs | load_runs, CPU s | compare, CPU s | peak memory, MiB |\n| --- | --- | --- | --- | --- |")
    for groups in options.groups:
        with tempfile.TemporaryDirectory() as folder:
            root = copies(options.run, Path(folder) / "runs", groups, options.seeds)
            command = [sys.executable, __file__, str(root), "--measure", str(Path(folder) / "out")]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            load, whole, peak = json.loads(done.stdout)
            print(f"| {groups} | {groups * options.seeds} | {load:.1f} | {whole:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
