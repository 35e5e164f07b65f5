"""Where a run stands between two tasks, in one file: what `cl-powerprop resume` goes on from. Nothing is pickled."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cl_powerprop.errors import RunFolderError
from cl_powerprop.privacy import redact

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
