"""Four seeds at once: as processes, one after the other, and batched into one set of tensor operations."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

SEEDS, REPEATS = 4, 3


def measure(data: str) -> pd.DataFrame:
    """Return the seconds of four seeds, including start-up, and the ratio to four commands one after the other."""
    common = [f"data={data}", "strategy=epn", "strategy.retrain_epochs=1", "train.epochs=5", "train.batch_size=128"]
    common += ["benchmark.n_tasks=5", "progress=false"]
    all_seeds = "seed=" + ",".join(map(str, range(SEEDS)))
    ways = {
        "four commands, one after the other": [[f"seed={seed}"] for seed in range(SEEDS)],
        "one multirun, one process": [["-m", "hydra/launcher=basic", all_seeds]],
        "one multirun, processes (default)": [["-m", all_seeds]],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(REPEATS):
        for way, commands in ways.items():
            start = time.perf_counter()
            for words in commands:
                _command("run", *words, *common)
            seconds[way].append(time.perf_counter() - start)
    reference = seconds["four commands, one after the other"]
    return pd.DataFrame(
        {
            "way": way,
            "seconds": statistics.median(times),
            "ratio": statistics.median(mine / theirs for mine, theirs in zip(times, reference, strict=True)),
        }
        for way, times in seconds.items()
    )


def _command(*words: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cl_powerprop", *words, f"run_dir={Path(folder) / 'run'}"]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def measure_batched(steps: int = 300) -> pd.DataFrame:
    """Return microseconds per step and seed of plain training: one seed alone, and four batched by `bmm`.

    The rows of processes are computed for comparison: on c cores, c seeds run in parallel in the time of one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = os.cpu_count() or 1
    rows = []
    for batch in (16, 128):
        times: dict[str, list[float]] = {}
        for _ in range(5):
            alone = _steps(1, batch, steps, 1, device)
            times.setdefault("one seed alone, 1 thread", []).append(alone)
            times.setdefault(f"{SEEDS} seeds batched, 1 thread", []).append(_steps(SEEDS, batch, steps, 1, device))
            if device.type == "cpu":
                batched = _steps(SEEDS, batch, steps, cores, device)
                times.setdefault(f"{SEEDS} seeds batched, {cores} threads", []).append(batched)
                times.setdefault(f"{cores} processes (computed)", []).append(alone / cores)
        rows += [
            {"way": way, "batch": batch, "microseconds_a_step_and_seed": 1e6 * statistics.median(values)}
            for way, values in times.items()
        ]
    torch.set_num_threads(1)
    return pd.DataFrame(rows)


def _steps(seeds: int, batch: int, steps: int, threads: int, device: torch.device) -> float:
    """Return the seconds per step and seed of ``seeds`` plain networks 784-100-100-10 that are trained together."""
    torch.set_num_threads(threads)
    images, labels = torch.rand(10_000, 784, device=device), torch.randint(10, (10_000,), device=device)
    shapes = ((784, 100), (100, 100), (100, 10))
    weights = [(torch.randn(seeds, *shape, device=device) / shape[0] ** 0.5).requires_grad_() for shape in shapes]
    optimizer = torch.optim.SGD(weights, lr=0.1, fused=True)
    start = time.perf_counter()
    for _ in range(steps):
        rows = torch.randint(len(labels), (seeds * batch,), device=device)  # each seed has its own order
        values, targets = images.index_select(0, rows).view(seeds, batch, -1), labels.index_select(0, rows)
        optimizer.zero_grad()
        for weight in weights[:-1]:
            values = torch.bmm(values, weight).relu()
        outputs = torch.bmm(values, weights[-1])
        (nn.functional.cross_entropy(outputs.flatten(0, 1), targets) * seeds).backward()
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps / seeds
