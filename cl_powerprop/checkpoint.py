"""Where a run stands at some moment of its training or its tests: the file that `cl-powerprop resume` goes on from.

Nothing is pickled.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cl_powerprop import checkpoint_files
from cl_powerprop.config import GROUPS, RunConfig, leave_out_places, shareable
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.naming import flat
from cl_powerprop.privacy import redact
from cl_powerprop.run_folder import SCHEMA_VERSION
from cl_powerprop.shown import as_line
from cl_powerprop.stored_config import typed
from cl_powerprop.tensor_header import is_whole
from cl_powerprop.training.task_state import generator_states, global_generators

if TYPE_CHECKING:
    from cl_powerprop.parts import Parts
    from cl_powerprop.results.results import Results

FILE = checkpoint_files.FILE
_SHOWN = 60  # characters of a value that messages show
_NO_MATTER = {"progress": False, "run_dir": ""}  # options without a default, in which runs need not match


@dataclass(frozen=True)
class Checkpoint:
    """What the run needs to know to go on.

    Attributes:
        model: the network's tensors by name.
        strategy: the strategy's state by name.
        sparsity: the state of the sparse training by name; empty for a dense one.
        task: the state of the task in training by name; empty if none is.
        random: the states of torch's generators by name; empty in those of earlier versions.
        evaluation: what was measured, and is not in the results yet.
        results: the state of its results.
        step: optimizer steps that were done.
        config: of the run; those of earlier versions have only what must match.
    """

    model: dict[str, Tensor]
    strategy: dict[str, Any]
    sparsity: dict[str, Any]
    task: dict[str, Any]
    random: dict[str, Tensor]
    evaluation: dict[str, Any]
    results: dict[str, Any]
    step: int
    config: dict[str, Any]


def write_checkpoint(
    folder: Path,
    parts: Parts,
    results: Results,
    config: Mapping[str, Any],
    task: Mapping[str, Any],
    evaluation: Mapping[str, Any],
) -> None:
    """Write where a run stands; the checkpoint before is kept too (see :mod:`cl_powerprop.checkpoint_files`).

    Args:
        folder: of the run.
        parts, results: of the run.
        config: of the run (see :func:`kept_config`).
        task: the state of the task in training; empty if none is.
        evaluation: what was measured, and is not in the results yet, as JSON values.

    Raises:
        ConfigurationError: if the strategy's state cannot be written.
        OSError: if the file cannot be written, as on a full disk.
    """
    strategy, sparsity = parts.strategy.state_dict(), {} if parts.sparsity is None else parts.sparsity.state_dict()
    owners = {"strategy": parts.strategy, "sparsity": parts.sparsity, "task": parts.learner}
    owners |= {"random": parts.learner, "results": results}
    random = generator_states(global_generators(parts.learner.device))
    states = {"strategy": strategy, "sparsity": sparsity, "task": task, "random": random}
    states |= {"results": results.state_dict()}
    tensors: dict[str, Tensor] = parts.learner.model.state_dict()
    state: dict[str, Any] = {
        "format": checkpoint_files.FORMAT,
        "evaluation": evaluation,
        "step": parts.learner.clock.train_iterations,
        "config": config,
    }
    for section, values in states.items():
        own = {name: value.clone() for name, value in values.items() if isinstance(value, Tensor)}
        state[section] = {name: value for name, value in values.items() if name not in own}
        _check_json(owners[section], state[section])
        tensors |= {f"{section}/{name}": value for name, value in own.items()}
    checkpoint_files.write(folder, tensors, {"state": redact(json.dumps(state))})


def _check_json(owner: object, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{type(owner).__name__}.state_dict() must give JSON values, or tensors by name; {name!r} has a "
                f"{type(value).__name__}: {error}"
            ) from error


def read_checkpoint(folder: Path, tell: Callable[[str], None], *, sets_aside: bool = False) -> Checkpoint | None:
    """Return the last checkpoint that is whole, which is the one before if the last one is damaged; None without any.

    Args:
        folder: of the run.
        tell: called with one line for each file that is damaged.
        sets_aside: rename these.

    Raises:
        RunFolderError: if a file cannot be read just now.
    """
    return checkpoint_files.read(folder, tell, _checkpoint, sets_aside=sets_aside)


def _checkpoint(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """Return what the file of a checkpoint says.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError, RecursionError: if it is none.
    """
    state = _objects(json.loads(metadata["state"]), ())
    state = state if "format" in state else _from_format_1(state)
    _objects(state, ("results", "strategy", "config"))
    _objects(state, ("sparsity", "task", "random", "evaluation"), needed=False)
    _check_run(_objects(state["results"], ("run",))["run"])
    strategy, results = (state[each] | _take(tensors, each) for each in ("strategy", "results"))
    sparsity, task, random = (state.get(each, {}) | _take(tensors, each) for each in ("sparsity", "task", "random"))
    return Checkpoint(
        model=tensors,
        strategy=strategy,
        sparsity=sparsity,
        task=task,
        random=random,
        evaluation=state.get("evaluation", {}),
        results=results,
        step=int(state["step"]),
        config=state["config"],
    )


def _objects(values: Any, names: Sequence[str], needed: bool = True) -> dict[str, Any]:
    """Return a JSON object, of which some values are objects too.

    Raises:
        KeyError, ValueError: naming the one that is not.
    """
    if not isinstance(values, dict):
        raise ValueError("its state is no JSON object")
    for name in names:
        if not isinstance(values[name] if needed else values.get(name, {}), dict):
            raise ValueError(f"its {name} is no JSON object")
    return values


def _check_run(run: Mapping[str, Any]) -> None:
    """Refuse what cannot be the `run.json` of a run, as far as it is read before the parts of the run are made.

    Raises:
        KeyError, ValueError: naming what is missing or impossible.
    """
    counts = {"trained_experiences": 0, **run}  # runs of version 0.1.0 do not count them
    for name in ("trained_tasks", "n_tasks", "trained_experiences"):
        if not is_whole(counts[name], least=0):
            raise ValueError(f"its {name} is {as_line(repr(counts[name]), _SHOWN)}")
    for name in ("run_id", "started"):
        if not isinstance(run[name], str) or not run[name].isprintable():
            raise ValueError(f"its {name} is {as_line(repr(run[name]), _SHOWN)}")
    _objects(run, ("versions", "seconds", "references"))


def _take(tensors: dict[str, Tensor], section: str) -> dict[str, Tensor]:
    """Take out of a checkpoint's tensors those of a section, and return them by their own names."""
    own = [name for name in tensors if name.startswith(f"{section}/")]
    return {name.removeprefix(f"{section}/"): tensors.pop(name) for name in own}


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


def kept_config(config: RunConfig) -> dict[str, Any]:
    """Return what a checkpoint keeps of a config: all but the run's folder, should `config.yaml` be damaged."""
    values = shareable(config)
    del values["run_dir"]
    return values


def must_match(config: RunConfig) -> dict[str, Any]:
    """Return what a run that is resumed must have in common with the one that was cut off."""
    values = shareable(config)
    for key in ("logger", "progress", "run_dir", "references_dir", "resume", "checkpoint"):
        del values[key]
    del values["data"]["root"]
    return values


def differences(before: RunConfig, now: RunConfig) -> list[str]:
    """Return the settings in which a run that is resumed would differ, each with both values, as text."""
    then, today = must_match(before), must_match(now)
    for group in GROUPS:
        if then[group]["name"] != today[group]["name"]:  # the options of another part are others anyway
            then[group], today[group] = then[group]["name"], today[group]["name"]
    was, is_now = dict(flat(then)), dict(flat(today))
    keys = [key for key in dict.fromkeys([*was, *is_now]) if was.get(key) != is_now.get(key)]
    return [f"{key} was {_text(was.get(key))} and is {_text(is_now.get(key))}" for key in keys]


def _text(value: object) -> str:
    """Return a value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def written_config(checkpoint: Checkpoint, folder: Path) -> RunConfig:
    """Return the config in a checkpoint, with options that did not exist yet as they leave all as it was.

    Raises:
        RunFolderError: if it has none, or is not of this package's kind.
    """
    try:
        version = checkpoint.results["run"]["schema_version"]
        values = {**_NO_MATTER, **copy.deepcopy(checkpoint.config)}
        leave_out_places(values, links=False)  # it may be a stranger's
        written = typed(values, folder / FILE)
    except KeyError as error:
        raise RunFolderError(f"{folder / FILE} is damaged: it has no {error}") from error
    except (ConfigurationError, TypeError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{folder / FILE} is damaged: {as_line(str(error))}") from error
    if version != SCHEMA_VERSION:
        raise RunFolderError(f"{folder} has schema version {version}; this cl-powerprop has {SCHEMA_VERSION}")
    return written
