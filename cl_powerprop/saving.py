"""A trained model on disk: weights, packed masks and heads in one safetensors file. Nothing is pickled."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cl_powerprop.errors import DataError
from cl_powerprop.networks.build import build_model
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.sparsity import MaskAllocator, select_task

FORMAT = "cl-powerprop 1"


class LoadedModel(nn.Module):
    """A saved network: ``model(x, task=k)`` returns the outputs of task k, counted from 0.

    Raises:
        LookupError: if the network has not learned that task.
    """

    def __init__(self, network: nn.Module, n_tasks: int) -> None:
        super().__init__()
        self.network = network
        self.n_tasks = n_tasks
        self._selected: int | None = None

    def forward(self, x: Tensor, task: int) -> Tensor:
        if not 0 <= task < self.n_tasks:
            raise LookupError(f"there is no task {task}; the model has learned tasks 0 to {self.n_tasks - 1}")
        if task != self._selected:
            select_task(self.network, task)
            self._selected = task
        return self.network(x)  # type: ignore[no-any-return]


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    architecture: dict[str, Any],
    masked: dict[str, Any] | None,
    n_tasks: int,
) -> None:
    """Write ``model`` to ``path``. An interrupted write leaves an existing file as it was.

    Args:
        model: the network, on any device.
        path: the file to write.
        architecture: arguments with which :func:`build_model` rebuilds the network.
        masked: arguments of the network's :class:`MaskAllocator`, or None without masks.
        n_tasks: number of tasks that it has learned.
    """
    description = {"architecture": architecture, "masked": masked, "n_tasks": n_tasks}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    file = Path(path)
    part = file.with_name(file.name + ".part")
    save_file(tensors, part, metadata={"format": FORMAT, "description": json.dumps(description)})
    os.replace(part, file)


def load(path: str | os.PathLike[str]) -> LoadedModel:
    """Load the ``model.safetensors`` of a run; ``model(x, task=k)`` then returns the outputs of task k.

    Args:
        path: the file, or the run folder that holds it.

    Raises:
        DataError: if the file is missing or damaged, or was not written by this version of cl-powerprop.
    """
    file = Path(path)
    file = file / "model.safetensors" if file.is_dir() else file
    if not file.exists():
        raise DataError(f"{file} was not found; a run writes it when its first task is finished")
    try:
        with safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise DataError(f"{file} is damaged: {error}") from error
    if metadata.get("format") != FORMAT:
        raise DataError(f"{file} was not written by this version of cl-powerprop")
    description = json.loads(metadata["description"])
    network = build_model(**description["architecture"])
    if description["masked"] is not None:
        MaskAllocator(network, **description["masked"], exclude=(TaskHeads,))
    network.load_state_dict(tensors)
    return LoadedModel(network, description["n_tasks"]).eval()
