"""Where a run stands between two tasks, in one file: what `cl-powerprop resume` goes on from. Nothing is pickled."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cl_powerprop.config import RunConfig, shareable
from cl_powerprop.errors import RunFolderError
from cl_powerprop.privacy import redact
from cl_powerprop.run_folder import SCHEMA_VERSION

FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The network's tensors by name, and what else the run needs to know, as JSON has it."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def write_checkpoint(folder: Path, model: nn.Module, state: dict[str, Any]) -> None:
    """Write network and state as one file, which is either the old or the new one at any time."""
    part = folder / f"{FILE}.part"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, part, metadata={"state": redact(json.dumps(state))})
    os.replace(part, folder / FILE)


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
            return Checkpoint({name: content.get_tensor(name) for name in content.keys()}, state)  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error


def what_matters(config: RunConfig) -> dict[str, Any]:
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
    state = checkpoint.state
    try:
        version, written = state["record"]["content"]["schema_version"], state["config"]
    except (KeyError, TypeError) as error:
        raise RunFolderError(f"{folder / FILE} is damaged: it has no {error}") from error
    if version != SCHEMA_VERSION:
        raise RunFolderError(f"{folder} has schema version {version}; this cl-powerprop has {SCHEMA_VERSION}")
    now = json.loads(json.dumps(what_matters(config)))
    changed = [key for key in now if now[key] != written.get(key)]
    if changed:
        raise RunFolderError(f"{folder / 'config.yaml'} has changed since the run began: {', '.join(changed)}")
