"""What `cl-powerprop tune` finds on mnist5k, killed after ten trials and started again, and what that is worth.

python benchmarks/tuning/record.py                  # as recorded, into the folder of this file

1. A study of 30 trials, two at a time, of gamma, learning rate and alpha; the command is killed by SIGKILL when ten
   trials have ended, and given again.
2. One of the same settings with two objectives: validation accuracy, and the capacity used.
3. The best settings of each study and the defaults on seeds that no search has seen, on validation data.

The studies and runs are kept in ``--runs``: a call that was cut off goes on.
"""

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
SETTINGS = ("data=mnist5k", "benchmark.n_tasks=5", "save_model=false")
RANGES = ("epn.gamma=interval(0.85,0.995)", "optimizer.lr=tag(log,interval(0.02,1))", "model.alpha=interval(1,4)")
TRIALS, KILLED_AFTER = 30, 10
OBJECTIVES = {"accuracy": "validation_accuracy", "front": "validation_accuracy,-capacity_used"}
SEEDS = (4, 5, 6)
T = 4.303  # 0.975 quantile of Student's t with two degrees of freedom


def command(words: Sequence[str], cwd: Path) -> "subprocess.Popen[str]":
    call = [sys.executable, "-m", "cl_powerprop", *words]
    return subprocess.Popen(call, cwd=cwd, stdout=subprocess.PIPE, text=True)


def lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        yield line


def call(words: Sequence[str], cwd: Path) -> None:
    process = command(words, cwd)
    list(lines(process))
    if process.wait():
        raise SystemExit(f"cl-powerprop {' '.join(words)} ended with {process.returncode}")


def tune(name: str, runs: Path) -> None:
    words = ["tune", *SETTINGS, *RANGES, "--trials", str(TRIALS), "--jobs", "2"]
    words += ["--objective", OBJECTIVES[name], f"run_dir={name}"]
    if name == "accuracy" and not (runs / name).exists():
        process, ended = command(words, runs), 0
        for line in lines(process):
            ended += line.startswith("trial ")
            if ended == KILLED_AFTER:
                process.kill()
                break
        process.wait()
        print(f"killed after {ended} trials", flush=True)
    call(words, runs)


def compared(runs: Path) -> list[dict[str, object]]:
    """Return what the best settings of each study and the defaults reach with each new seed."""
    words = [*SETTINGS, "evaluation.schedule=never", f"seed={','.join(map(str, SEEDS))}"]
    for name in OBJECTIVES:
        best = ["--config-dir", f"{name}/configs", "experiment=best"]
        call(["run", "-m", *best, *words, f"run_dir=best_of_{name}"], runs)
    call(["run", "-m", *words, "run_dir=defaults"], runs)
    found = []
    for settings in (*(f"best_of_{name}" for name in OBJECTIVES), "defaults"):
        for path in sorted((runs / settings).glob("*/run.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            metrics = {name: round(record["metrics"][name], 6) for name in ("validation_accuracy", "capacity_used")}
            found.append({"settings": settings, "seed": record["seed"]} | metrics)
    return found


def intervals(rows: Sequence[dict[str, object]]) -> Iterator[str]:
    """Yield, as rows of a table, means over the seeds and their difference to the defaults with a paired t-interval."""
    yield "| settings | | mean | more than the defaults (95 %) |"
    yield "| --- | --- | --- | --- |"
    for settings in dict.fromkeys(row["settings"] for row in rows):
        for metric in ("validation_accuracy", "capacity_used"):
            value = {(row["settings"], row["seed"]): float(str(row[metric])) for row in rows}
            gains = [value[settings, seed] - value["defaults", seed] for seed in SEEDS]
            mean, half = statistics.mean(gains), T * statistics.stdev(gains) / len(gains) ** 0.5
            more = "" if settings == "defaults" else f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"
            yield f"| {settings} | {metric} | {statistics.mean(value[settings, seed] for seed in SEEDS):.4f} | {more} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/tuning"), help="folder of the studies and runs")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the tables and figures")
    arguments = parser.parse_args()
    runs, out = arguments.runs, arguments.out
    runs.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    for name in OBJECTIVES:
        tune(name, runs)
        shutil.copyfile(runs / name / "trials.csv", out / f"{name}.csv")
    for figure in ("accuracy/history", "accuracy/importance", "front/front"):
        shutil.copyfile(runs / f"{figure}.png", out / f"{Path(figure).name}.png")
    shutil.copyfile(runs / "accuracy/configs/experiment/best.yaml", out / "best.yaml")
    rows = compared(runs)
    with (out / "seeds.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(*intervals(rows), sep="\n")


if __name__ == "__main__":
    main()
