"""Run folders written without training, to test how runs are compared."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def write_run(
    folder: Path,
    strategy: str = "naive",
    seed: int = 0,
    matrix: np.ndarray | None = None,
    *,
    masked: bool = False,
    alpha: float = 1.0,
    status: str = "complete",
    record: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    config: dict[str, Any] | None = None,
    within: bool = False,
) -> Path:
    """Write the files of one run over the tasks of ``matrix``; each task adds ten of the weights to the masks."""
    if matrix is None:
        matrix = forgetful(seed=seed)
    tasks = len(matrix)
    folder.mkdir(parents=True)
    diagonal = matrix.diagonal()
    content = {
        "schema_version": 1,
        "status": status,
        "run_id": f"run{strategy}{seed}",
        "benchmark": "permuted",
        "scenario": "task",
        "data": "mnist5k",
        "strategy": strategy,
        "model": "mlp",
        "alpha": alpha,
        "optimizer": "sgd",
        "seed": seed,
        "n_tasks": tasks,
        "trained_tasks": tasks,
        "device": "cpu",
        "host": "somewhere",
        "git_commit": None,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
        "seconds": {"train": 5.0, "total": 10.0 + seed},
        "peak_memory_mb": 500.0,
        "metrics": {
            "average_accuracy": float(matrix[-1].mean()),
            "average_forgetting": float((diagonal - matrix[-1])[:-1].mean()) if tasks > 1 else 0.0,
            "learning_accuracy": float(diagonal.mean()),
            "forward_transfer": None,
            "capacity_used": 0.1 * tasks if masked else 1.0,
            **(metrics or {}),
        },
        "zero_forgetting_verified": masked,
        "diverged_tasks": [],
        "messages": [],
        "error": None,
        **(record or {}),
    }
    (folder / "run.json").write_text(json.dumps(content))
    lines = [",".join(f"permutation_{task}" for task in range(tasks))]
    lines += [",".join("" if math.isnan(value) else repr(float(value)) for value in row) for row in matrix]
    (folder / "accuracy_matrix.csv").write_text("\n".join(lines) + "\n")
    said = {key: content.get(key) for key in ("benchmark", "model", "alpha", "optimizer", "strategy", "seed")}
    settings = [
        f"alpha: {json.dumps(said['alpha'])}",
        *(f"{key}: {value}" for key, value in (config or {}).items() if "." not in key),
    ]
    (folder / "config.yaml").write_text(
        "defaults:\n  - base\n"
        f"benchmark:\n  name: {json.dumps(said['benchmark'])}\n  n_tasks: {tasks}\n"
        f"model:\n  name: {json.dumps(said['model'])}\n  {settings[0]}\n"
        f"optimizer:\n  name: {json.dumps(said['optimizer'])}\n  lr: {(config or {}).get('optimizer.lr', 0.1)}\n"
        f"strategy:\n  name: {json.dumps(said['strategy'])}\n  gamma: {(config or {}).get('strategy.gamma', 'null')}\n"
        f"seed: {json.dumps(said['seed'])}\nrun_dir: elsewhere\n"
    )
    _write_curves(folder, matrix, within)
    if masked:
        _write_masks(folder, tasks)
    weights = pd.DataFrame({"layer": ["fc"] * 2, "state": ["used", "free"], "low": [0.1, 0.01], "high": [0.2, 0.02]})
    weights.assign(weights=[10 * tasks, _weights(tasks) - 10 * tasks]).to_csv(folder / "weights.csv", index=False)
    return folder


def forgetful(tasks: int = 3, seed: int = 0, drop: float = 0.1) -> np.ndarray:
    """Return an accuracy matrix in which a task loses ``drop`` with each later task."""
    rows, columns = np.indices((tasks, tasks))
    matrix = 0.9 + 0.01 * seed - drop * (rows - columns)
    return np.where(rows >= columns, matrix, np.nan)


def _write_curves(folder: Path, matrix: np.ndarray, within: bool) -> None:
    rows = []
    for trained in range(1, len(matrix) + 1):
        tested = [task for task in range(len(matrix)) if not np.isnan(matrix[trained - 1, task])]
        if within:  # in the middle of the task, accuracies are a tenth of those at its end
            for task in range(trained):
                value = 0.1 * matrix[trained - 1, task]
                rows.append((trained - 1, 1, 100 * trained - 50, task, "test", "accuracy", value))
        rows.append((trained - 1, 2, 100 * trained, trained - 1, "train", "loss", 0.5))
        for task in tested:
            rows.append((trained, 2, 100 * trained, task, "test", "accuracy", matrix[trained - 1, task]))
    columns = ["trained_tasks", "epoch", "step", "eval_task", "split", "metric", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.insert(0, "run_id", "x")
    frame.to_csv(folder / "curves.csv", index=False)


def _weights(tasks: int) -> int:
    """Return how many maskable weights there are: a hundred, or as many as the tasks need."""
    return 10 * max(10, tasks)


def _write_masks(folder: Path, tasks: int) -> None:
    """Write masks in which each task uses all earlier tasks' weights and ten of its own."""
    size = _weights(tasks)
    capacity = [
        (task, "fc", "masked", size, 10 * (task + 1), 10, 10 * task, size - 10 * (task + 1)) for task in range(tasks)
    ]
    columns = ["task", "layer", "kind", "weights", "kept", "newly_frozen", "reused", "free"]
    pd.DataFrame(capacity, columns=columns).to_csv(folder / "capacity.csv", index=False)
    reuse = [(task, "fc", source, 10) for task in range(tasks) for source in range(task)]
    pd.DataFrame(reuse, columns=["task", "layer", "from_task", "weights"]).to_csv(folder / "reuse.csv", index=False)
    overlap = [(task, other, 10 * (other + 1)) for task in range(tasks) for other in range(task + 1)]
    pd.DataFrame(overlap, columns=["task", "other", "weights"]).to_csv(folder / "mask_overlap.csv", index=False)


LAYERS = {"features.1": 235_200, "features.3": 30_000, "output": 1_000}


def write_sparse_run(
    folder: Path, controller: str | None, target: float, seed: int = 0, accuracy: float = 0.9, alpha: float = 1.0
) -> Path:
    """Write the files of one run on a single task, which a controller made sparse over six epochs."""
    density = 1.0 - target
    facts = {"controller": controller, "target_sparsity": None if controller is None else target}
    metrics = {"sparsity": target, "training_flops": (1 + density) / 2, "inference_flops": 1.2 * density}
    write_run(folder, "naive", seed, np.array([[accuracy]]), alpha=alpha, record=facts, metrics=metrics, config={})
    with (folder / "config.yaml").open("a") as file:
        file.write(f"sparsity:\n  name: {controller or 'none'}\n  target: {target}\n")
    if controller is not None:
        write_sparsity(folder, target)
    return folder


def write_sparsity(folder: Path, target: float, tasks: int = 1) -> None:
    """Write a `sparsity.csv` in which each layer is pruned in six equal steps, and a tenth of it is exchanged."""
    rows = []
    for epoch in range(1, max(7, tasks + 1)):
        task = min(epoch, tasks) - 1
        for index, (layer, weights) in enumerate(LAYERS.items()):
            active = round(weights * (1.0 - target) ** (min(1.0, epoch / 6) / (index + 1)))
            grown = weights // 10 * epoch
            counts = (weights, active, weights, weights - active + grown, grown, grown // 3, 10 * epoch * (index < 2))
            rows.append(("x", task, epoch, 100 * epoch, layer, *counts))
    columns = ["run_id", "task", "epoch", "step", "layer", "weights", "active", "ever_active", "dropped", "grown"]
    pd.DataFrame(rows, columns=[*columns, "regrown", "dead_units"]).to_csv(folder / "sparsity.csv", index=False)


def write_sweep(root: Path, seeds: int = 3, tasks: int = 3) -> Path:
    """Write runs of three strategies over some seeds."""
    for seed in range(seeds):
        write_run(root / f"naive-{seed}", "naive", seed, forgetful(tasks, seed), within=True)
        write_run(root / f"packnet-{seed}", "packnet", seed, forgetful(tasks, seed, 0.0), masked=True)
        write_run(root / f"epn-{seed}", "epn", seed, forgetful(tasks, 2 * seed, 0.0), masked=True, alpha=2.0)
    return root
