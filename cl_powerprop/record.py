"""What `run.json` says of a run, typed: what it is, where it runs, and how far it is."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import secrets
import string
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("cl-powerprop", "torch", "avalanche-lib", "hydra-core", "numpy")


def now() -> str:
    """Return the time in UTC, to the second."""
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


def peak_memory_mb(device: str) -> float:
    """Return the most memory held so far, in MiB: of the device if it is a GPU, else of the process."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(torch.device(device)) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run is, and what it runs on.

    Attributes:
        benchmark, data, strategy, model, optimizer: the names of its parts.
        data_verified: the content of all of the data was compared with a checksum; None if that is not known.
        scenario: what a test says about the task: "task", "domain" or "class".
        alpha: Powerpropagation's.
        controller: of sparse training; None for none.
        target_sparsity: that it is to reach; None without a controller.
        task_names: of each task.
        device: what it trains on.
        git_commit: of the source checkout that runs; None for an installed package.
        process: its number on the host.
        ranks: how many processes train it together.
        seeds_together: how many seeds one process trained together, this one among them; times and memory are those of
            all of them.
        started: time in UTC.
        job: the run's number among the jobs of its multirun; None for a run alone.
    """

    run_id: str = field(default_factory=new_run_id)
    benchmark: str = "benchmark"
    scenario: str | None = "task"
    data: str | None = None
    data_verified: bool | None = None
    strategy: str = "strategy"
    model: str | None = None
    alpha: float = 1.0
    controller: str | None = None
    target_sparsity: float | None = None
    optimizer: str | None = None
    seed: int = 0
    task_names: Sequence[str] = ()
    versions: dict[str, str] = field(default_factory=_versions)
    device: str = "cpu"
    threads: int = field(default_factory=_threads)
    host: str = field(default_factory=lambda: platform.node())
    git_commit: str | None = field(default_factory=git_commit)
    process: int = field(default_factory=os.getpid)
    ranks: int = 1
    seeds_together: int = 1
    started: str = field(default_factory=now)
    job: int | None = None

    @property
    def n_tasks(self) -> int:
        """How many tasks there are."""
        return len(self.task_names)

    def as_json(self) -> dict[str, Any]:
        """Return what stands in `run.json`."""
        values = asdict(self)
        del values["task_names"]
        return values | {"n_tasks": self.n_tasks}

    def resumed(self, before: Mapping[str, Any]) -> Facts:
        """Return the facts of a run that goes on here and now, from what its `run.json` said.

        The machine and its versions are those of today. A run that was trained together with others stays one.
        """
        kept = ("run_id", "started")
        together = max(self.seeds_together, seeds_together(before))
        same = {key: before[key] for key in kept}
        return replace(self, job=before.get("job", self.job), seeds_together=together, **same)


def seeds_together(record: Mapping[str, Any]) -> int:
    """Return how many seeds were trained together, by the content of a `run.json`: those of earlier versions alone."""
    said = record.get("seeds_together")
    return said if isinstance(said, int) else 1


@dataclass(frozen=True)
class Job:
    """What a run is called among others: a job of a multirun, a trial of a study, or a reference run.

    Attributes:
        number: of the job or trial; None for a reference run.
        name: what tells it from the others, as in "epn, alpha 2, seed 0".
        live: whether it has the terminal for itself, and can show a live display.
        kind: job or trial.
    """

    number: int | None
    name: str
    live: bool = True
    kind: str = "job"

    @property
    def title(self) -> str:
        """What the run is called in lines of progress."""
        return self.name if self.number is None else f"{self.kind} {self.number}: {self.name}"


@dataclass
class Seconds:
    """Where the time of a run went."""

    train: float = 0.0
    eval: float = 0.0
    search: float = 0.0
    logging: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class ReferenceAccuracy:
    """What a reference run reached on average, and which run it was."""

    run_id: str
    average_accuracy: float


STATUSES = ("running", "complete", "interrupted", "failed", "pruned")


@dataclass
class State:
    """How far a run is, as `run.json` has it.

    Attributes:
        status: running, complete, interrupted, failed or pruned.
        resumed: when it was.
        task_seconds: what training each task took, search included.
        references: run id and average accuracy of each reference run.
        searches: how each task's mask was found.
        exempt_layers: weights of each layer that sparse training leaves dense.
        mask_coverage: share of the network's weights that can have masks; None without masks.
        diverged_tasks: those that are no better than guessing.
        messages: what a user should know.
    """

    status: str = "running"
    trained_tasks: int = 0
    trained_experiences: int = 0
    resumed: list[str] = field(default_factory=list)
    finished: str | None = None
    seconds: Seconds = field(default_factory=Seconds)
    task_seconds: list[float] = field(default_factory=list)
    peak_memory_mb: float | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    zero_forgetting_verified: bool | None = None
    references: dict[str, ReferenceAccuracy] = field(default_factory=dict)
    searches: list[Mapping[str, Any]] = field(default_factory=list)
    exempt_layers: dict[str, int] = field(default_factory=dict)
    mask_coverage: float | None = None
    diverged_tasks: list[int] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    error: str | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> State:
        """Return the state that a `run.json` or a checkpoint tells of; other keys are left alone.

        Raises:
            LookupError, TypeError, ValueError: if it is none.
        """
        kept = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        kept.setdefault("trained_experiences", values["trained_tasks"])  # runs of version 0.1.0 have one for each task
        references = {name: ReferenceAccuracy(**value) for name, value in values["references"].items()}
        seconds = Seconds(**{part: float(value) for part, value in kept["seconds"].items()})
        by_task = list(map(float, kept.get("task_seconds", [])))
        return cls(**kept | {"seconds": seconds, "task_seconds": by_task, "references": references})


_COLUMNS = {"schema_version", "n_tasks", "run", "path"}
RESERVED = _COLUMNS | {each.name for kind in (Facts, State) for each in fields(kind)}
"""Names that neither a metric nor a sink can have: `run.json` and tables have both side by side."""
