"""Several seeds: together in one process, as processes that share the device, and one after the other."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from gpu_epochs import BATCH, EPN, NAIVE

from cl_powerprop import run
from cl_powerprop.seeds_together import run_together

if TYPE_CHECKING:
    from gpu import Sizes, Tables

COUNTS = (1, 16, 4, 64, 2, 8, 32)  # what matters most comes first: the others are left out if time is over
STRATEGIES = {"epn": EPN, "naive": NAIVE}
FEW, MANY = 2, 6  # epochs: their difference is the time of an epoch without all that is done once a task
PROCESSES = (1, 2, 4, 8)


def _words(sizes: "Sizes", tasks: int, *more: str) -> list[str]:
    common = [f"data={sizes.data}", f"device={sizes.device}", f"benchmark.n_tasks={tasks}", "progress=false"]
    return [*common, f"train.batch_size={BATCH}", *more]


def _seconds(words: list[str], seeds: int) -> float:
    """Return the seconds of a run with that many seeds, from its config to its files."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        if seeds == 1:
            run(words, Path(folder) / "run", quiet=True)
        else:
            run_together([*words, f"seeds_together={seeds}"], Path(folder) / "run", quiet=True)
        return time.perf_counter() - start


def measure_together(sizes: "Sizes") -> "Tables":
    """Yield seconds of an epoch of all seeds, and of a whole run of two tasks, evaluation counted; medians."""
    counts = (1, 2) if sizes.small else COUNTS
    _seconds(_words(sizes, 1, *EPN, f"train.epochs={FEW}"), 1)  # warms up
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(sizes.either(10, 1)):
        for seeds in counts:
            for name, words in STRATEGIES.items():
                few, many = (
                    _seconds(_words(sizes, 2, *words, f"train.epochs={epochs}"), seeds) for epochs in (FEW, MANY)
                )
                found.setdefault((name, seeds), []).append(((many - few) / (MANY - FEW) / 2, many))
                yield _together(found), len(found) >= 2 * len(STRATEGIES)


def _together(found: dict[tuple[str, int], list[tuple[float, float]]]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for (name, seeds), values in sorted(found.items()):
        epoch, whole = (statistics.median(value[which] for value in values) for which in (0, 1))
        rows.append({"strategy": name, "seeds": seeds, "epoch_s": epoch, "run_s": whole})
    alone = {row["strategy"]: row for row in rows if row["seeds"] == 1}
    for row in rows:
        row |= {
            f"{part}_by_one_seed": row[f"{part}_s"] / alone[row["strategy"]][f"{part}_s"] for part in ("epoch", "run")
        }
        row["repeats"] = len(found[row["strategy"], row["seeds"]])
    return pd.DataFrame(rows)


def measure_experiment(sizes: "Sizes") -> "Tables":
    """Yield seconds of ten permuted tasks with EPN, 5 epochs, five seeds, all tasks so far tested after each task."""
    tasks, seeds = sizes.either(10, 2), sizes.either(5, 2)
    words = _words(sizes, tasks, *EPN, f"train.epochs={sizes.either(5, 2)}", "model.hidden=[100,100]")
    _seconds(_words(sizes, 1, *EPN, f"train.epochs={FEW}"), 1)  # warms up
    found: dict[str, list[float]] = {}
    for _ in range(sizes.either(3, 1)):
        found.setdefault("together", []).append(_seconds(words, seeds))
        yield _experiment(found, seeds, tasks), False
        apart = [_seconds([*words, "seed=0"], 1)]
        found.setdefault("one seed", []).append(apart[0])
        yield _experiment(found, seeds, tasks), True
        apart += [_seconds([*words, f"seed={seed}"], 1) for seed in range(1, seeds)]
        found.setdefault("one after the other", []).append(sum(apart))
        yield _experiment(found, seeds, tasks), True


def _experiment(found: dict[str, list[float]], seeds: int, tasks: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"way": way, "seeds": 1 if way == "one seed" else seeds, "tasks": tasks, "run_s": statistics.median(values)}
        for way, values in found.items()
    )


def measure_processes(sizes: "Sizes") -> "Tables":
    """Yield seconds of several seeds as processes that share the device, by `hydra.launcher.n_jobs`.

    The command's time has everything in it, imports and the start of CUDA too; that of the runs is the longest one's.
    """
    rows = []
    counts = (1, 2) if sizes.small else PROCESSES
    for count in counts:
        words = _words(sizes, 2, *EPN, f"train.epochs={sizes.either(MANY, FEW)}")
        words += ["seed=" + ",".join(map(str, range(count))), f"hydra.launcher.n_jobs={count}"]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "cl_powerprop", "run", "-m", *words, f"run_dir={Path(folder) / 'run'}"]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            whole = time.perf_counter() - start
            records = [json.loads(path.read_text()) for path in Path(folder).glob("run/**/run.json")]
        runs = max(record["seconds"]["total"] for record in records)
        rows.append({"processes": count, "command_s": whole, "runs_s": runs, "runs_s_a_seed": runs / count})
        yield pd.DataFrame(rows), True
