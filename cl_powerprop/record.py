"""What a run writes about itself: `run.json`, the accuracy matrix, capacity and where its weights came from."""

import contextlib
import datetime
import json
import logging
import os
import platform
import resource
import secrets
import string
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cl_powerprop.config import RunConfig
from cl_powerprop.evaluation import metrics
from cl_powerprop.evaluation.weights import WeightCount
from cl_powerprop.references import Reference
from cl_powerprop.run_folder import SCHEMA_VERSION, RunFolder
from cl_powerprop.sparsity import LayerCapacity

log = logging.getLogger("cl_powerprop")

_PACKAGES = ("cl-powerprop", "torch", "avalanche-lib", "hydra-core", "numpy")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def new_run_id() -> str:
    """Return twelve random letters; with digits among them, pandas might read an id like 567e86 as a number."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(12))


def git_commit() -> str | None:
    """Return the commit of the source checkout that runs, None for an installed package."""
    source = Path(__file__).parent.parent
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory held so far, in MiB: of the device if it is a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class RunRecord:
    """Keeps what is known of a run, and its files up to date with it.

    Attributes:
        matrix: ``[T, T]``, accuracy on task j after training task i; NaN where not evaluated.
        references: for each of "joint", "independent" and "untrained", accuracy on each task ``[T]``; NaN if not known.
        validation: accuracy on each task's validation data in its last evaluation: at the end, all are measured.
        identified: for each task, the share of test samples whose task was inferred right, in its last evaluation.
        logits: for each task, the hash of its test logits when it was just learned.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, task_names: Sequence[str], device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.task_names = list(task_names)
        tasks = len(task_names)
        self.matrix = np.full((tasks, tasks), np.nan)
        self.references = {name: np.full(tasks, np.nan) for name in ("joint", "independent", "untrained")}
        self.capacity: list[LayerCapacity] = []
        self.validation: dict[int, float] = {}
        self.identified: dict[int, float] = {}
        self.logits: dict[int, str] = {}
        self._unchanged: dict[int, bool] = {}  # tasks whose logits were compared with their first ones
        self._evaluations: list[NDArray[np.float64]] = []  # of all tasks in order, also within tasks; NaN: not tested
        self._learned: list[int] = []  # for each task, which of them was the first after its training
        self._within = False
        self.content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "status": "running",
            "run_id": new_run_id(),
            "benchmark": config.benchmark.name,
            "scenario": config.benchmark.scenario,
            "data": config.data.name,
            "strategy": config.strategy.name,
            "model": config.model.name,
            "alpha": config.model.alpha,
            "optimizer": config.optimizer.name,
            "seed": config.seed,
            "n_tasks": tasks,
            "trained_tasks": 0,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
            "device": str(device),
            "threads": torch.get_num_threads(),
            "host": platform.node(),
            "git_commit": git_commit(),
            "process": os.getpid(),
            "started": _now(),
            "resumed": [],
            "finished": None,
            "seconds": {"train": 0.0, "eval": 0.0, "search": 0.0, "logging": 0.0, "total": 0.0},
            "task_seconds": [],  # what training each task took, search included
            "peak_memory_mb": None,
            "metrics": {},
            "zero_forgetting_verified": None,
            "references": {},
            "searches": [],
            "diverged_tasks": [],
            "messages": [],
            "error": None,
        }

    def state(self) -> dict[str, Any]:
        """Return all that is known, as JSON has it, for :meth:`restore`."""
        return {
            "content": self.content,
            "matrix": self.matrix.tolist(),
            "references": {name: accuracy.tolist() for name, accuracy in self.references.items()},
            "capacity": [asdict(row) for row in self.capacity],
            "validation": list(self.validation.items()),
            "identified": list(self.identified.items()),
            "logits": list(self.logits.items()),
            "unchanged": list(self._unchanged.items()),
            "evaluations": [row.tolist() for row in self._evaluations],
            "learned": self._learned,
            "within": self._within,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Know what :meth:`state` returned in another process; machine and versions are those of this one."""
        here = {key: self.content[key] for key in ("versions", "device", "threads", "host", "process", "git_commit")}
        before = state["content"]["versions"]
        changed = [
            f"{name} {before.get(name)} -> {now}" for name, now in here["versions"].items() if before.get(name) != now
        ]
        self.content = state["content"] | here | {"status": "running", "finished": None, "error": None}
        self.content["resumed"].append(_now())
        with contextlib.suppress(OSError, ValueError):  # newer than the checkpoint: what W&B has had since
            last = json.loads((self.folder.path / "run.json").read_text(encoding="utf-8"))
            self.content |= {"wandb": last["wandb"]} if last.get("wandb") else {}
        if changed:
            self.tell(f"resumed with other versions, which may give other numbers: {', '.join(changed)}")
        self.matrix = np.array(state["matrix"])
        self.references = {name: np.array(accuracy) for name, accuracy in state["references"].items()}
        self.capacity[:] = [
            LayerCapacity(**{**row, "reused_from": tuple(row["reused_from"])}) for row in state["capacity"]
        ]
        self.validation, self.identified = dict(state["validation"]), dict(state["identified"])
        self.logits, self._unchanged = dict(state["logits"]), dict(state["unchanged"])
        self._evaluations = [np.array(row) for row in state["evaluations"]]
        self._learned, self._within = state["learned"], state["within"]

    @property
    def run_id(self) -> str:
        """Identifies the run in every file."""
        return str(self.content["run_id"])

    def tell(self, message: str) -> None:
        """Say something that a user should know, now and in `run.json`."""
        log.warning(message)
        self.content["messages"].append(message)

    def add_evaluation(self, trained: int, accuracies: dict[int, float], logits: dict[int, str]) -> None:
        """Enter the evaluation after task ``trained`` and compare each learned task's logits with its first ones."""
        for task, accuracy in accuracies.items():
            self.matrix[trained, task] = accuracy
            if task in self.logits:
                self._compare(task, logits[task])
            elif task <= trained:
                self.logits[task] = logits[task]
        self._learned += [len(self._evaluations)] * (trained + 1 - len(self._learned))
        self._evaluations.append(self.matrix[trained].copy())

    def add_evaluation_within(self, accuracies: dict[int, float], logits: dict[int, str]) -> None:
        """Enter an evaluation made while a task trains, and compare the logits of tasks learned before it."""
        self._within = True
        row = np.full(len(self.task_names), np.nan)
        row[list(accuracies)] = list(accuracies.values())
        self._evaluations.append(row)
        for task in self.logits.keys() & logits.keys():
            self._compare(task, logits[task])

    def _compare(self, task: int, logits: str) -> None:
        self._unchanged[task] = self._unchanged.get(task, True) and self.logits[task] == logits

    def add_reference(self, reference: Reference) -> None:
        """Enter what a reference run reached."""
        self.references[reference.name] = reference.accuracy
        self.content["references"][reference.name] = {
            "run_id": reference.run_id,
            "average_accuracy": float(reference.accuracy.mean()),
        }

    @property
    def zero_forgetting(self) -> bool | None:
        """Whether the logits of every task stayed the same to the bit; None if an earlier task was tested once only."""
        earlier = range(len(self.task_names) - 1)
        if any(task not in self._unchanged for task in earlier):
            return None
        return all(self._unchanged[task] for task in earlier)

    def add_logging(self, seconds: float) -> None:
        """Count time that was spent on dashboards before the first task and after the last."""
        self.content["seconds"]["logging"] += seconds
        self.content["seconds"]["total"] += seconds

    def write(self) -> None:
        """Bring all files up to what is known."""
        self.content["peak_memory_mb"] = round(peak_memory_mb(self.device), 1)
        self.folder.write_csv("accuracy_matrix.csv", self.task_names, self.matrix.tolist())
        if self.capacity:
            self._write_capacity()
        self.folder.write_json("run.json", self.content)

    def _write_capacity(self) -> None:
        self.folder.write_csv(
            "capacity.csv",
            ["task", "layer", "kind", "weights", "kept", "newly_frozen", "reused", "free"],
            (
                [row.task, row.layer, row.kind, row.weights, row.kept, row.newly_frozen, row.reused, row.free]
                for row in self.capacity
            ),
        )
        self.folder.write_csv(
            "reuse.csv",
            ["task", "layer", "from_task", "weights"],
            (
                [row.task, row.layer, source, weights]
                for row in self.capacity
                for source, weights in enumerate(row.reused_from)
            ),
        )

    def write_weights(self, counts: Iterable[WeightCount]) -> None:
        """Write how large the weights are at the end."""
        self.folder.write_csv("weights.csv", [field.name for field in fields(WeightCount)], map(astuple, counts))

    def write_overlaps(self, overlaps: torch.Tensor) -> None:
        """Write how many weights each pair of masks shares; ``overlaps [T, T]`` is symmetric."""
        pairs = (
            [task, other, int(overlaps[task, other])] for task in range(len(overlaps)) for other in range(task + 1)
        )
        self.folder.write_csv("mask_overlap.csv", ["task", "other", "weights"], pairs)

    def finish(self, capacity_used: float, mask_bits: int) -> None:
        """Enter the final metrics and mark the run complete."""
        evaluations = np.array(self._evaluations) if self._within else None
        dense = sum(row.weights for row in self.capacity if row.kind == "dense")
        self.content["metrics"] = {
            "average_accuracy": metrics.average_accuracy(self.matrix),
            "average_forgetting": metrics.average_forgetting(self.matrix),
            "backward_transfer": metrics.backward_transfer(self.matrix),
            "forward_transfer": metrics.forward_transfer(self.matrix, self.references["untrained"]),
            "learning_accuracy": metrics.learning_accuracy(self.matrix),
            "average_incremental_accuracy": metrics.average_incremental_accuracy(self.matrix),
            "min_accuracy": None if evaluations is None else metrics.min_accuracy(evaluations, self._learned),
            "worst_case_accuracy": (
                None if evaluations is None else metrics.worst_case_accuracy(evaluations, self._learned)
            ),
            "intransigence": metrics.intransigence(self.matrix, self.references["independent"]),
            "joint_gap": metrics.joint_gap(self.matrix, self.references["joint"]),
            "validation_accuracy": float(np.mean(list(self.validation.values()))),
            "task_identification": float(np.mean(list(self.identified.values()))) if self.identified else None,
            "capacity_used": capacity_used,
            "dense_weights": dense,
            "mask_bits": mask_bits,
        }
        self.content["zero_forgetting_verified"] = self.zero_forgetting
        self._end("complete")

    def fail(self, error: BaseException) -> None:
        """Mark the run failed, with what went wrong; what was finished stays."""
        self.content["error"] = str(error) or type(error).__name__
        self._end("failed")

    def _end(self, status: str) -> None:
        self.content["status"] = status
        self.content["finished"] = _now()
        self.write()
