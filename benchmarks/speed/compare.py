"""The time that loading and comparing runs takes, measured on many copies of one run folder.

python benchmarks/speed/compare.py RUN [--runs 1000]
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from cl_powerprop.analysis import load_runs
from cl_powerprop.analysis.compare import compare

COMPARED = 20
SEEDS = 5


def copies(run: Path, root: Path, count: int) -> Path:
    """Copy a run under the names of several strategies, with five seeds each."""
    for index in range(count):
        folder = root / str(index)
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("model.safetensors"))
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        record |= {"seed": index % SEEDS, "strategy": f"{record['strategy']}{index // SEEDS}"}
        (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return root


def seconds(work: object, *arguments: object, **options: object) -> float:
    start = time.perf_counter()
    work(*arguments, **options)  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="How long loading and comparing runs takes.")
    parser.add_argument("run", type=Path, help="a run folder to copy")
    parser.add_argument("--runs", type=int, default=1000, help="how many runs to load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print("| | runs | seconds |\n| --- | --- | --- |")
        for count in (options.runs // 10, options.runs):
            print(f"| load_runs | {count} | {seconds(load_runs, copies(options.run, root / str(count), count)):.1f} |")
        few = copies(options.run, root / "few", COMPARED)
        print(f"| compare | {COMPARED} | {seconds(compare, [few], root / 'out', quiet=True):.1f} |")


if __name__ == "__main__":
    main()
