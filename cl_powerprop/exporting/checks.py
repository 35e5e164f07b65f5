"""What the file of an exported network says of itself, checked before its tensors are read."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cl_powerprop.documents import parse_json
from cl_powerprop.exporting.layers import KINDS, Add, Select
from cl_powerprop.exporting.network import ExportedNetwork, build_network
from cl_powerprop.memory import gigabytes, too_large
from cl_powerprop.sparsity.packing import packed_size
from cl_powerprop.tensor_file import DTYPES
from cl_powerprop.tensor_header import Check, Header, check_fields, is_whole, shortened

_MOST_STEPS = 10_000
_MOST_VALUES = 2**27  # that a layer may return for one sample
_WIDEST = 4096  # pixels of a kernel, a stride or a padding
_ALWAYS = 2**30  # bytes that weights may take once they are unpacked, however small the file
_RATIO = 1000  # how many times as large as the file they may be beyond that
_INDEX = torch.int32


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_sides(least: int, value: Any) -> bool:
    """Return whether a value is a number of pixels, or one for each direction."""
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(is_whole(side, least, _WIDEST) for side in sides)


_count = partial(is_whole, least=1)
_sides = partial(_is_sides, 1)
_FIELDS: dict[str, Check] = {
    **dict.fromkeys(("in_features", "out_features", "in_channels", "out_channels", "groups", "count"), _count),
    **dict.fromkeys(("num_features", "num_groups", "num_channels"), _count),
    **dict.fromkeys(("kernel_size", "stride", "dilation"), _sides),
    **dict.fromkeys(("bias", "affine", "track_running_stats", "ceil_mode", "count_include_pad"), _is_bool),
    **dict.fromkeys(("negative_slope", "alpha"), _is_finite),
    "padding": lambda value: value in ("same", "valid") or _is_sides(0, value),
    "padding_mode": lambda value: value in ("zeros", "reflect", "replicate", "circular"),
    "eps": lambda value: _is_finite(value) and value > 0,
    "approximate": lambda value: value in ("none", "tanh"),
    "output_size": lambda value: _sides(value) or (isinstance(value, list) and len(value) == 2 and all(
        side is None or _sides(side) for side in value)),
    "start_dim": lambda value: is_whole(value, 1, 1),
    "end_dim": lambda value: is_whole(value, -1, -1),
}  # fmt: skip


def described(text: str) -> tuple[ExportedNetwork, dict[str, list[int]], dict[str, Any]]:
    """Return what a file says it holds: the network on the meta device, the shapes of sparse weights, and facts.

    Raises:
        ValueError: naming what is missing, unknown or impossible.
    """
    content = check_fields(
        "its description",
        parse_json(text.encode()),
        {
            "steps": lambda value: isinstance(value, list) and 0 < len(value) <= _MOST_STEPS,
            "sparse": lambda value: isinstance(value, dict),
            "facts": lambda value: isinstance(value, dict) and _is_sample(value.get("sample_shape")),
        },
    )
    steps: list[dict[str, Any]] = content["steps"]
    for index, step in enumerate(steps):
        _check_step(index, step)
    with torch.device("meta"):  # no memory is taken, whatever sizes the file claims
        network = build_network(steps)
        _try(network, content["facts"]["sample_shape"])
    return network, content["sparse"], content["facts"]


def _is_sample(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 3 and all(is_whole(side, 1) for side in value)


def _check_step(index: int, step: Any) -> None:
    kind = step.get("kind") if isinstance(step, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"step {index} has no known kind")
    layer, names = KINDS[kind]
    taken = 2 if layer is Add else 1

    def are_inputs(value: Any) -> bool:
        return isinstance(value, list) and len(value) == taken and all(is_whole(each, 0, index) for each in value)

    check_fields(
        f"step {index}",
        step,
        {"kind": lambda _: True, "inputs": are_inputs} | {name: _FIELDS[name] for name in names},
    )


def _try(network: ExportedNetwork, sample_shape: list[int]) -> None:
    """Compute shapes alone, which finds layers that do not fit each other."""
    batch = 2
    values: list[Tensor] = [torch.empty(batch, *sample_shape)]
    for index, step in enumerate(network.steps):
        values.append(step.layer(*(values[value] for value in step.inputs)))
        if values[-1].numel() > batch * _MOST_VALUES:
            raise ValueError(f"step {index} returns {values[-1].numel() // batch:,} values for one sample")
    if values[-1].dim() != 2 or len(values[-1]) != batch:
        raise ValueError("it does not return logits")


def check_entries(network: ExportedNetwork, sparse: dict[str, list[int]], header: Header) -> None:
    """Compare a file's tensors with those of the network, before they are read.

    Raises:
        ValueError: naming the first tensor that is missing, unknown, or of another dtype or shape.
    """
    expected = network.state_dict()
    found = dict(header.entries)
    for name, tensor in expected.items():
        shape = tuple(tensor.shape)
        wanted = {name: (tensor.dtype, shape)}
        if name in sparse:
            if sparse[name] != list(shape):
                raise ValueError(f"the sparse weight {name} has another shape")
            wanted = _parts(name, tensor, header)
        for part, (dtype, dimensions) in wanted.items():
            entry = found.pop(part, None)
            if entry is None:
                raise ValueError(f"tensor {part} is missing")
            if (DTYPES.get(entry.dtype), entry.shape) != (dtype, dimensions):
                raise ValueError(f"tensor {part} is {entry.dtype} {list(entry.shape)}, not {dtype} {list(dimensions)}")
    if unknown := (found.keys() | sparse.keys()) - expected.keys():
        raise ValueError(f"it has an unknown tensor {shortened(min(unknown))}")
    size = sum(tensor.nbytes for tensor in expected.values())
    if size > max(_ALWAYS, _RATIO * header.nbytes):
        raise ValueError(f"it claims {gigabytes(size)} of weights in a file of {header.nbytes:,} bytes")
    if problem := too_large(size):
        raise ValueError(f"it needs {problem}")


def _parts(name: str, tensor: Tensor, header: Header) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Return dtype and shape of each part of a sparse weight; how many values there are is for the file to say."""
    values = header.entries.get(f"{name}.values")
    if values is None or not tensor.is_floating_point():
        raise ValueError(f"the sparse weight {name} has no values")
    count: tuple[int, ...] = (math.prod(values.shape),)
    parts = {f"{name}.values": (tensor.dtype, count)}
    if f"{name}.mask" in header.entries:
        parts[f"{name}.mask"] = torch.uint8, (packed_size(tensor.numel()),)
    else:
        parts[f"{name}.indices"] = _INDEX, count
    return parts


def check_values(network: ExportedNetwork, sample_shape: list[int]) -> None:
    """Refuse weights that are no numbers, negative variances, and selected pixels that there are not.

    Raises:
        ValueError: naming what has them.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"tensor {name} has values that are not finite")
        if name.endswith("running_var") and tensor.min() < 0:
            raise ValueError(f"tensor {name} has negative variances")
    pixels = math.prod(sample_shape)
    for layer in network.layers:
        if isinstance(layer, Select) and not ((layer.index >= 0) & (layer.index < pixels)).all():
            raise ValueError(f"it selects other pixels than the {pixels} of a sample")
