"""An exported network as a safetensors file. Weights that are mostly 0 are stored by their values and positions."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cl_powerprop.errors import DataError
from cl_powerprop.exporting.checks import check_entries, check_values, described
from cl_powerprop.exporting.network import ExportedNetwork
from cl_powerprop.exporting.sparse_kernels import with_sparse_kernels
from cl_powerprop.saving import write_tensors
from cl_powerprop.sparsity.packing import pack, unpack
from cl_powerprop.tensor_file import open_tensors

FORMAT = "cl-powerprop export 1"

_INDEX = torch.int32  # of positions among indices; a weight with more than 2**31 elements is stored by a bit mask


def write_exported(
    network: ExportedNetwork, path: Path, sample: Tensor, facts: Mapping[str, Any] | None = None, sparse: bool = True
) -> None:
    """Write a network, at once. The same network gives the same bytes.

    Each weight is stored in the smallest of three forms: dense; its values other than 0 and a bit mask of where they
    are; or these values and their positions in the flattened weight (int32).

    Args:
        network: to write.
        path: the file.
        sample: a batch of inputs, ``[n, *sample_shape]``; the file says the shape.
        facts: what else the file is to say, as JSON values.
        sparse: whether sparse forms may be used.
    """
    stored: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in network.state_dict().items():
        parts = _smallest(tensor) if sparse and tensor.is_floating_point() else {"": tensor}
        stored |= {name + suffix: part for suffix, part in parts.items()}
        if "" not in parts:
            shapes[name] = list(tensor.shape)
    told = {"sample_shape": list(sample.shape[1:]), **(facts or {})}
    description = {"steps": network.describe(), "sparse": shapes, "facts": told}
    write_tensors(path, stored, {"format": FORMAT, "description": json.dumps(description)})


def _smallest(tensor: Tensor) -> dict[str, Tensor]:
    """Return the parts of the smallest form, by what is added to the tensor's name; "" is the tensor itself."""
    kept = tensor != 0
    values = tensor[kept]
    forms = [{"": tensor}, {".values": values, ".mask": pack(kept)}]
    if tensor.numel() <= torch.iinfo(_INDEX).max:
        forms.append({".values": values, ".indices": kept.flatten().nonzero().flatten().to(_INDEX)})
    return min(forms, key=lambda parts: sum(part.nbytes for part in parts.values()))


def load_exported(path: str | os.PathLike[str], *, sparse_kernels: bool = False) -> ExportedNetwork:
    """Load a network that `cl-powerprop export` wrote as .safetensors: a plain torch module, in evaluation mode.

    Nothing in the file is unpickled, imported or called: it names layers of a fixed list. The .onnx files are for
    onnxruntime and the like.

    Args:
        path: the file.
        sparse_kernels: for inference only: Linear layers in which at most a tenth of the weights are not 0 skip the
            zeros, by torch's CSR kernels.

    Returns:
        ``network(x)`` maps ``[n, *sample_shape]`` to the logits ``[n, classes]`` of the exported task.

    Raises:
        DataError: if the file is missing or damaged, or is no exported network.
    """
    file = Path(path)
    if not os.path.lexists(file):
        raise DataError(f"{file} was not found; cl-powerprop export RUN --to {file} writes it")
    with open_tensors(file) as content:
        description = content.description(FORMAT)
        if description is None:
            raise DataError(
                f"{file} is no exported network of this version; cl_powerprop.load reads the model of a run"
            )
        network, sparse, facts = described(description)
        check_entries(network, sparse, content.header)
        stored = content.read()
        for name, shape in sparse.items():
            stored[name] = _dense(name, torch.Size(shape), stored)
        network.load_state_dict(stored, assign=True)
        check_values(network, facts["sample_shape"])
    if sparse_kernels:
        network = with_sparse_kernels(network) or network
    network.facts = facts
    return network


def _dense(name: str, shape: torch.Size, stored: dict[str, Tensor]) -> Tensor:
    """Return a weight from its parts, which are taken out of ``stored``.

    Raises:
        ValueError: for positions that do not fit the weight, or the number of its values.
    """
    values = stored.pop(f"{name}.values")
    if f"{name}.mask" in stored:
        kept = unpack(stored.pop(f"{name}.mask"), shape)
        if int(kept.sum()) != len(values):
            raise ValueError(f"{name} has {len(values)} values for another number of positions")
        return values.new_zeros(shape).masked_scatter_(kept, values)
    indices = stored.pop(f"{name}.indices").long()
    ends = torch.tensor([-1]), torch.tensor([shape.numel()])
    if not (torch.cat([ends[0], indices, ends[1]]).diff() > 0).all():
        raise ValueError(f"{name} has positions that do not rise from 0 to {shape.numel() - 1}")
    return values.new_zeros(shape.numel()).index_put_((indices,), values).view(shape)
