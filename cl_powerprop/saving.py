"""A trained model on disk: weights, compressed masks and heads in one safetensors file. Nothing is pickled."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from cl_powerprop.checksum import KEY, ZEROS, with_checksum
from cl_powerprop.errors import DataError
from cl_powerprop.files import write_file
from cl_powerprop.networks.build import build_model
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.saved_model import CODED, check_entries, check_values, described, masked_weights
from cl_powerprop.sparsity import MaskAllocator, select_task
from cl_powerprop.sparsity.mask_coding import decode_masks, encode_masks
from cl_powerprop.tensor_file import open_tensors

FORMAT = "cl-powerprop 2"
BEFORE = "cl-powerprop 1"  # whose masks are not compressed

_LENGTH = 8  # bytes at the beginning of a safetensors file that say how long its header is


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
    """Write ``model`` to ``path``, with a checksum. An interrupted write leaves an existing file as it was.

    Args:
        model: the network, on any device.
        path: the file to write.
        architecture: arguments with which :func:`build_model` rebuilds the network.
        masked: arguments of the network's :class:`MaskAllocator`, or None without masks.
        n_tasks: number of tasks that it has learned.
    """
    description = {"architecture": architecture, "masked": masked, "n_tasks": n_tasks}
    tensors = model.state_dict()
    for name, weight in masked_weights(model):
        tensors[f"{name}.{CODED}"] = encode_masks(tensors.pop(f"{name}.masks"), weight.owner.shape)
    write_tensors(Path(path), tensors, {"format": FORMAT, "description": json.dumps(description)})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file at once, with a checksum; arguments are those of :func:`serialized`.

    Raises:
        OSError: if it cannot be written, as on a full disk.
    """
    write_file(path, with_checksum(serialized(tensors, {KEY: ZEROS} | metadata)))


def serialized(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """Return the content of a safetensors file in pieces. The same content gives the same bytes.

    safetensors' own functions write metadata in random order. Here it comes first of all, in the order given.

    Args:
        tensors: on any device, by name.
        metadata: text by name.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    held: set[int] = set()  # a module that the network uses twice has its tensors under two names
    for name, tensor in stored.items():
        if tensor.numel() and tensor.data_ptr() in held:
            stored[name] = tensor.clone()
        held.add(tensor.data_ptr())
    content = memoryview(safetensors.torch.save(stored))
    start = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header = json.loads(bytes(content[_LENGTH:start]))
    text = json.dumps({"__metadata__": dict(metadata)} | header).encode()
    text += b" " * (-len(text) % _LENGTH)  # tensors begin at a multiple of eight bytes
    return [len(text).to_bytes(_LENGTH, "little"), text, content[start:]]


def load(path: str | os.PathLike[str]) -> LoadedModel:
    """Load the ``model.safetensors`` of a run; ``model(x, task=k)`` then returns the outputs of task k.

    What the file says of itself is checked before memory is taken for it, and every value afterwards.

    Args:
        path: the file, or the run folder that holds it.

    Raises:
        DataError: if the file is missing or damaged, was not written by this version of cl-powerprop, or is larger
            than the memory.
    """
    file = Path(path)
    file = file / "model.safetensors" if file.is_dir() else file
    if not os.path.lexists(file):
        raise DataError(f"{file} was not found; a run writes it when its first task is finished")
    with open_tensors(file) as content:
        text, before = content.description(FORMAT), content.description(BEFORE)
        if text is None and before is None:
            raise DataError(f"{file} was not written by this version of cl-powerprop")
        description = described(text or before or "")
        check_entries(description, content.header, coded=before is None)
        network = build_model(**description.architecture)
        if description.masked is not None:
            MaskAllocator(network, **description.masked, exclude=(TaskHeads,))
        tensors = content.read()
        for name, weight in masked_weights(network) if before is None else ():
            coded = tensors.pop(f"{name}.{CODED}")
            tensors[f"{name}.masks"] = decode_masks(coded, weight.owner.shape, description.masked_tasks)
        network.load_state_dict(tensors)
        check_values(network)
    return LoadedModel(network, description.n_tasks).eval()
