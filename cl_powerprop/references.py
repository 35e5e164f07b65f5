"""Reference runs: the same config with another strategy, trained once and reused by all runs with the same settings.

Intransigence compares a run with tasks that were each learned alone (independent), forward transfer with the network
before any training (untrained), and the gap to joint training with all tasks learned together (joint). All are dense.
"""

import contextlib
import hashlib
import inspect
import io
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cl_powerprop.begun import begun_in
from cl_powerprop.config import GROUPS, RunConfig, default_clip_norm
from cl_powerprop.documents import read_json
from cl_powerprop.errors import ConfigurationError, DivergedError, FileError, InUseError, RunFolderError
from cl_powerprop.files import read_file
from cl_powerprop.registry import find
from cl_powerprop.results.results import Reference
from cl_powerprop.run_lock import RunLock
from cl_powerprop.sections import EvaluationConfig
from cl_powerprop.shown import as_line
from cl_powerprop.sparse_training.base import SparsityConfig
from cl_powerprop.strategies.base import StrategyConfig
from cl_powerprop.torchrun import place

log = logging.getLogger("cl_powerprop")

_SECONDS_A_LOOK = 1.0  # at a reference that another run trains

# Options that only say where a run writes and what it shows: its numbers do not depend on them.
_NOT_NUMBERS = (
    *("run_dir", "progress", "save_model", "references", "references_dir", "logger", "resume", "checkpoint"),
    "seeds_together",
)


def reference_config(config: RunConfig, name: str) -> RunConfig:
    """Return the config of the reference ``name`` ("joint", "independent" or "untrained") of a run."""
    train = config.train
    if train.clip_norm == default_clip_norm(config.strategy.name):  # by default each strategy has its own
        train = replace(train, clip_norm=default_clip_norm(name))
    return replace(
        config,
        train=train,
        strategy=StrategyConfig(name=name),
        sparsity=SparsityConfig(),
        evaluation=EvaluationConfig("diagonal_and_last"),
        references=[],
        save_model=False,
        logger={},
        resume="auto",
    )


def config_hash(config: RunConfig) -> str:
    """Return a hash of everything that a run's numbers depend on: its config, and versions of this package and torch.

    Where the data is stored is left out.
    """
    values: dict[str, Any] = {key: value for key, value in asdict(config).items() if key not in _NOT_NUMBERS}
    values["data"] = {key: value for key, value in values["data"].items() if key not in ("root", "download")}
    values["versions"] = {name: version(name) for name in ("cl-powerprop", "torch")}
    values |= {f"source of {group}": source for group in GROUPS if (source := _source(group, values[group]["name"]))}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _source(group: str, name: str) -> str | None:
    """Return what a part from outside is made of: its code may change where no version does."""
    part = find(group, name)
    if part.is_ours:
        return None
    with contextlib.suppress(OSError, TypeError):  # there is no file, as in a notebook
        return inspect.getsource(sys.modules[part.origin])
    return part.origin


def load_references(
    config: RunConfig, run: Callable[[RunConfig, Path], Any], tell: Callable[[str], None]
) -> list[Reference]:
    """Return the references that ``config`` asks for, training those that are not in its ``references_dir`` yet.

    Args:
        config: of the run that needs them.
        run: trains a config into a new run folder.
        tell: called with a message when a reference diverged; the run goes on without it.

    Raises:
        UserError: if a reference cannot be trained as the config stands.
    """
    found = (_load(reference_config(config, name), run, tell) for name in dict.fromkeys(config.references))
    return [reference for reference in found if reference is not None]


def _load(config: RunConfig, run: Callable[[RunConfig, Path], Any], tell: Callable[[str], None]) -> Reference | None:
    name = config.strategy.name
    path = Path(config.references_dir) / f"{name}-{config_hash(config)}"
    if not _is_complete(path):
        if place().ranks > 1:
            raise ConfigurationError(
                f"several processes train no references; run this once without torchrun to train {name}, or use "
                "references=[]"
            )
        try:
            _train(config, path, run)
        except DivergedError as error:
            with contextlib.suppress(InUseError), RunLock(path).hold():
                shutil.rmtree(path, ignore_errors=True)
            tell(f"the reference {name} is missing: {error}")
            return None
    record, matrix = _read(path)
    if record["diverged_tasks"]:
        tasks = ", ".join(map(str, record["diverged_tasks"]))
        tell(f"the reference {name} is no better than guessing on task(s) {tasks}")
    return Reference(name, record["run_id"], matrix[-1])


def _read(path: Path) -> tuple[dict[str, Any], Any]:
    """Return the `run.json` of a reference that is complete, and its accuracy matrix.

    Raises:
        RunFolderError: if one of them is damaged.
    """
    try:
        record = read_json(path / "run.json")
        if not isinstance(record, dict) or not isinstance(record.get("run_id"), str):
            raise ValueError("run.json has no run_id")
        diverged, n_tasks = record.get("diverged_tasks"), record.get("n_tasks")
        if not isinstance(diverged, list) or not all(isinstance(task, int) for task in diverged):
            raise ValueError("run.json has no list of diverged tasks")
        content = io.BytesIO(read_file(path / "accuracy_matrix.csv"))
        matrix = np.genfromtxt(content, delimiter=",", skip_header=1, ndmin=2)
        if not matrix.size or matrix.shape[1] != n_tasks:
            raise ValueError(f"accuracy_matrix.csv is {matrix.shape[0]} x {matrix.shape[1]} for {n_tasks} tasks")
        if not ((matrix[-1] >= 0.0) & (matrix[-1] <= 1.0)).all():
            raise ValueError("accuracy_matrix.csv has other values than accuracies")
    except (OSError, FileError, ValueError) as error:
        raise RunFolderError(
            as_line(f"the reference {path} is damaged ({error}); remove the folder, and it is trained again")
        ) from error
    return record, matrix


def _train(config: RunConfig, path: Path, run: Callable[[RunConfig, Path], Any]) -> None:
    """Train a reference, or the rest of one that was cut off; if another run is just doing so, wait for it."""
    name, waits = config.strategy.name, False
    log.warning("training the reference %s, which runs with the same settings will use again: %s", name, path)
    while True:
        try:
            run(config, path)
            return
        except InUseError as error:
            if not waits:
                log.warning("waiting for the reference %s: %s", name, error)
            waits = True
            time.sleep(_SECONDS_A_LOOK)


def _is_complete(path: Path) -> bool:
    begun = begun_in(path)
    return begun is not None and begun.is_complete
