"""Where a run stands between two tasks, in one file: what `cl-powerprop resume` goes on from. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from cl_powerprop.config import GROUPS, OPTIONAL, RunConfig, shareable
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.privacy import redact
from cl_powerprop.registry import canonical
from cl_powerprop.run_folder import SCHEMA_VERSION
from cl_powerprop.saving import write_tensors

if TYPE_CHECKING:
    from cl_powerprop.parts import Parts
    from cl_powerprop.results.results import Results
    from cl_powerprop.strategies.base import Strategy

FILE = "checkpoint.safetensors"
_OF_THE_STRATEGY = "strategy/"  # what the names of the strategy's own tensors begin with
_FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What the run needs to know to go on.

    Attributes:
        model: the network's tensors by name.
        strategy: the strategy's state by name.
        results: the state of its results.
        step: optimizer steps that were done.
        config: what must match.
    """

    model: dict[str, Tensor]
    strategy: dict[str, Any]
    results: dict[str, Any]
    step: int
    config: dict[str, Any]


def write_checkpoint(folder: Path, parts: Parts, results: Results, config: Mapping[str, Any]) -> None:
    """Write where a run stands as one file, which is either the old or the new one at any time.

    Args:
        folder: of the run.
        parts, results: of the run.
        config: what a run that goes on must match (see :func:`must_match`).

    Raises:
        ConfigurationError: if the strategy's state cannot be written.
    """
    strategy = parts.strategy.state_dict()
    own = {name: value.clone() for name, value in strategy.items() if isinstance(value, Tensor)}
    for name in strategy.keys() - own.keys():
        _check_json(parts.strategy, name, strategy[name])
    state = {
        "format": _FORMAT,
        "results": results.state_dict(),
        "strategy": {name: value for name, value in strategy.items() if name not in own},
        "step": parts.learner.clock.train_iterations,
        "config": config,
    }
    tensors = parts.learner.model.state_dict() | {_OF_THE_STRATEGY + name: value for name, value in own.items()}
    write_tensors(folder / FILE, tensors, {"state": redact(json.dumps(state))})


def _check_json(strategy: Strategy, name: str, value: Any) -> None:
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{type(strategy).__name__}.state_dict() must give JSON values, or tensors by name; {name!r} has a "
            f"{type(value).__name__}: {error}"
        ) from error


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read what :func:`write_checkpoint` wrote.

    Raises:
        RunFolderError: if there is none, or it is damaged.
    """
    path = folder / FILE
    if not path.exists():
        raise RunFolderError(f"{folder} has no {FILE}: no task was finished, or the strategy cannot be resumed")
    try:
        with safe_open(path, "pt") as content:
            state = json.loads((content.metadata() or {})["state"])
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        state = state if "format" in state else _from_format_1(state)
        model = {name: value for name, value in tensors.items() if not name.startswith(_OF_THE_STRATEGY)}
        own = {name.removeprefix(_OF_THE_STRATEGY): tensors[name] for name in tensors.keys() - model.keys()}
        return Checkpoint(model, state["strategy"] | own, state["results"], state["step"], state["config"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error


def _from_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a checkpoint that version 0.1.0 wrote as today's."""
    record = state["record"]
    content = record["content"]
    capacity = [row | {"layer": row["layer"].replace(".around.", ".shortcut.")} for row in record["capacity"]]
    last = content["trained_tasks"] - 1
    masked = [row for row in capacity if row["kind"] == "masked" and row["task"] == last]
    weights, free = (sum(row[key] for row in masked) for key in ("weights", "free"))
    evaluations = ("matrix", "references", "validation", "identified", "logits", "unchanged")
    return state | {
        "results": {
            "run": content,
            "rows": state["rows"],
            "capacity": {"rows": capacity, "used": (weights - free) / weights if weights else 1.0},
            "evaluations": {key: record[key] for key in (*evaluations, "evaluations", "learned", "within")},
        },
        "strategy": {
            "labels": list(range(content["trained_tasks"])),
            "search_seconds": content["seconds"]["search"],
            "searches": content["searches"],
        },
    }


def must_match(config: RunConfig) -> dict[str, Any]:
    """Return what a run that is resumed must have in common with the one that was cut off."""
    values = shareable(config)
    for key in ("logger", "progress", "run_dir", "references_dir"):
        del values[key]
    del values["data"]["root"]
    return values


def check_matches(checkpoint: Checkpoint, config: RunConfig, folder: Path) -> None:
    """Make sure that a checkpoint is of this package's kind and of this config.

    Raises:
        RunFolderError: if it is not.
    """
    try:
        version = checkpoint.results["run"]["schema_version"]
        written = {key: _with_todays_name(key, value) for key, value in checkpoint.config.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder / FILE} is damaged: it has no {error}") from error
    if version != SCHEMA_VERSION:
        raise RunFolderError(f"{folder} has schema version {version}; this cl-powerprop has {SCHEMA_VERSION}")
    now = json.loads(json.dumps(must_match(config)))
    absent = {group: {"name": name} for group, name in OPTIONAL.items()}
    changed = [key for key in now if now[key] != written.get(key, absent.get(key))]
    if changed:
        raise RunFolderError(f"{folder / 'config.yaml'} has changed since the run began: {', '.join(changed)}")


def _with_todays_name(group: str, value: Any) -> Any:
    return value | {"name": canonical(group, value["name"])} if group in GROUPS else value
