"""The cost of more tasks: time per task, memory and size of the masks; and the time spent on each part of a run."""

import json
import tempfile
from pathlib import Path

import pandas as pd
from common import in_fresh_process, make_config

LENGTHS = (10, 30, 100)
STRATEGIES = {
    "naive": ["strategy=naive", "model.alpha=1", "model.init_scale=1", "model.heads=shared", "optimizer.lr=0.1"],
    "packnet": ["strategy=packnet", "strategy.retrain_epochs=1", "model.alpha=1", "optimizer.lr=0.1"],
    "epn": ["strategy=epn", "strategy.retrain_epochs=1"],
}


def run_once(*overrides: str) -> dict:
    """Return the `run.json` of one run, with the size of its saved model in bytes."""
    from cl_powerprop.experiment import run

    with tempfile.TemporaryDirectory() as folder:
        result = run(make_config("progress=false", "train.batch_size=128", *overrides), Path(folder) / "run")
        record = json.loads((result.path / "run.json").read_text())
        return record | {"model_bytes": (result.path / "model.safetensors").stat().st_size}


def measure_growth(data: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (one row per sequence length, one row per task) for EPN."""
    rows, tasks = [], []
    for length in LENGTHS:
        record = in_fresh_process(
            run_once,
            *(f"data={data}", f"benchmark.n_tasks={length}", "train.epochs=2", "evaluation.schedule=diagonal_and_last"),
            *STRATEGIES["epn"],
        )
        seconds = pd.Series(record["task_seconds"])
        tasks += [{"n_tasks": length, "task": task, "seconds": value} for task, value in enumerate(seconds)]
        weights = 784 * 100 + 100 * 100
        rows.append(
            {
                "n_tasks": length,
                "first_task_seconds": seconds[:5].median(),
                "last_task_seconds": seconds[-5:].median(),
                "last_to_first": seconds[-5:].median() / seconds[:5].median(),
                "peak_memory_mb": record["peak_memory_mb"],
                "mask_bits_a_weight_and_task": record["metrics"]["mask_bits"] / (weights * length),
                "model_bytes": record["model_bytes"],
                "capacity_used": record["metrics"]["capacity_used"],
            }
        )
    return pd.DataFrame(rows), pd.DataFrame(tasks)


def measure_split(data: str) -> pd.DataFrame:
    """Return the shares of time of each part of a run over ten tasks, for each strategy and schedule."""
    rows = []
    for strategy, overrides in STRATEGIES.items():
        for schedule in ("every_task", "diagonal_and_last", "last"):
            words = (f"data={data}", "benchmark.n_tasks=10", "train.epochs=5", f"evaluation.schedule={schedule}")
            seconds = in_fresh_process(run_once, *words, *overrides)["seconds"]
            total = seconds.pop("total")
            shares = {part: value / total for part, value in seconds.items()}
            rows.append({"strategy": strategy, "schedule": schedule, "seconds": total, **shares})
    return pd.DataFrame(rows)
