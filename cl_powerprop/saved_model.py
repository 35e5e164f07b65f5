"""What the file of a trained model says of itself, compared with what it holds."""

import math
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from functools import partial
from types import NoneType, UnionType
from typing import Any

import torch
from torch import nn

from cl_powerprop.documents import parse_json
from cl_powerprop.limits import MOST_TASKS
from cl_powerprop.memory import too_large
from cl_powerprop.networks.blank import blank_model
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.registry import find
from cl_powerprop.sparsity import MaskAllocator
from cl_powerprop.sparsity.masked_weight import MaskedWeight
from cl_powerprop.sparsity.packing import count_ones
from cl_powerprop.sparsity.task_aware import TaskAware
from cl_powerprop.tensor_file import DTYPES
from cl_powerprop.tensor_header import Check, Header, check_fields, is_whole, shortened

CODED = "coded_masks"
"""Name of the tensor that a file has in place of a weight's masks: these, compressed."""

_REGISTERED = 10  # parameters and buffers that a network makes for one tensor of its file, at most
_ADDED = (".labels", ".alpha")  # tensors that files of version 0.1.0 have not
_RENAMED = (".around.", ".shortcut.")  # part of a tensor's name: in files of version 0.1.0, and now


@dataclass(frozen=True)
class Description:
    """What a file says of its network.

    Attributes:
        architecture: arguments of :func:`build_model`.
        masked: arguments of the network's :class:`MaskAllocator`; None without masks.
        n_tasks: number of tasks that it has learned.
    """

    architecture: dict[str, Any]
    masked: dict[str, Any] | None
    n_tasks: int

    @property
    def masked_tasks(self) -> int:
        """Number of tasks that have masks."""
        return 0 if self.masked is None else self.n_tasks


def described(text: str) -> Description:
    """Return what a file says of its network, each value of its type and within its range.

    Raises:
        ValueError: naming what is missing, unknown or impossible.
    """
    content = check_fields(
        "its description",
        parse_json(text.encode()),
        {
            "architecture": lambda value: isinstance(value, dict),
            "masked": lambda value: value is None or value in ({"unmasked": "per_task"}, {"unmasked": "frozen"}),
            "n_tasks": partial(is_whole, least=0),
        },
    )
    description = Description(**content)
    _check_architecture(description.architecture)
    if description.n_tasks > len(description.architecture["classes"]):
        raise ValueError(f"it has the classes of fewer than n_tasks={description.n_tasks} tasks")
    return description


def _check_architecture(architecture: dict[str, Any]) -> None:
    if not isinstance(architecture.get("name"), str):
        raise ValueError("its architecture has no name")
    config = find("model", architecture["name"]).config
    hints = typing.get_type_hints(config)
    given = {option.name: hints[option.name] for option in fields(config) if option.name in architecture}
    if missing := [option.name for option in fields(config) if _is_missing(option, architecture)]:
        raise ValueError(f"its architecture lacks {missing[0]}")
    possible: dict[str, Check] = {name: partial(_fits, hint) for name, hint in given.items()}
    possible |= {"sample_shape": _is_shape, "classes": lambda value: _is_shape(value) and len(value) <= MOST_TASKS}
    possible |= {name: check for name, check in _OPTIONAL.items() if name in architecture}
    check_fields("its architecture", architecture, possible)
    config(**{name: architecture[name] for name in given}).check()


def _is_missing(option: Any, architecture: dict[str, Any]) -> bool:
    has_default = option.default is not MISSING or option.default_factory is not MISSING
    return option.name not in architecture and not has_default


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_whole(side, 1) for side in value)


_OPTIONAL: dict[str, Check] = {
    "init_seed": partial(is_whole, least=0, most=2**64 - 1),
    "independent": lambda value: isinstance(value, bool),
}


def _fits(kind: Any, value: Any) -> bool:
    """Return whether a JSON value is of a type that an option can have."""
    if typing.get_origin(kind) in (typing.Union, UnionType):
        return any(_fits(member, value) for member in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return (
            isinstance(value, list)
            and len(value) <= MOST_TASKS
            and all(_fits(typing.get_args(kind)[0], item) for item in value)
        )
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is int:
        return is_whole(value, -(2**31))
    return kind is Any or type(value) is (NoneType if kind is None else kind)


def masked_weights(network: nn.Module) -> Iterator[tuple[str, MaskedWeight]]:
    """Yield what holds the masks of each weight, by its name; one that the network uses twice has two names."""
    for name, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, MaskedWeight):
            yield name, module


def check_entries(description: Description, header: Header, *, coded: bool) -> None:
    """Compare a file's tensors with those that the described network would have, before either is made.

    Args:
        description: of the network.
        header: of the file.
        coded: masks are compressed.

    Raises:
        ValueError: naming the first tensor that is missing, unknown, or of another dtype or shape, or saying that the
            masks need more memory than there is.
    """
    try:
        network = _blank(description.architecture, header)
    except (RuntimeError, TypeError, OverflowError) as error:  # torch's, of sizes beyond 64 bits
        raise ValueError("its network cannot be made of the sizes that it names") from error
    tasks = description.masked_tasks
    if description.masked is not None:
        with torch.device("meta"):
            MaskAllocator(network, **description.masked, exclude=(TaskHeads,))
    by_task = {
        f"{name}.{tensor}" for name, module in network.named_modules() if isinstance(module, TaskAware)
        for tensor in module.by_task
    }  # fmt: skip
    found = {name.replace(*_RENAMED): entry for name, entry in header.entries.items()}
    expected = network.state_dict()
    if coded:
        decoded = 0
        for name, weight in masked_weights(network):
            decoded += tasks * expected.pop(f"{name}.masks").shape[1]
            size = math.prod(found[f"{name}.{CODED}"].shape) if f"{name}.{CODED}" in found else 0
            expected[f"{name}.{CODED}"] = weight.masks.new_empty(size)
        if problem := too_large(header.nbytes + decoded):
            raise ValueError(f"its masks need {problem}")
    for name, tensor in expected.items():
        shape = (tasks, *tensor.shape[1:]) if name in by_task else tuple(tensor.shape)
        if name not in found:
            if name.endswith(_ADDED):
                continue
            raise ValueError(f"tensor {shortened(name)} is missing")
        if (DTYPES.get(found[name].dtype), found[name].shape) != (tensor.dtype, shape):
            there = f"{found[name].dtype} {list(found[name].shape)}"
            raise ValueError(f"tensor {shortened(name)} is {there}, not {tensor.dtype} {list(shape)}")
    if unknown := found.keys() - expected.keys():
        raise ValueError(f"it has an unknown tensor {shortened(min(unknown))}")


def _blank(architecture: dict[str, Any], header: Header) -> nn.Module:
    """Return the described network without memory, unless the file has too few tensors for it, which is found early.

    Raises:
        ValueError: if it has.
    """
    held = sum(entry.end > entry.start for entry in header.entries.values())  # those without values cost a liar nothing
    most = _REGISTERED * (held + _REGISTERED)
    if architecture.get("independent"):  # as many networks as tasks, each with tensors of its own
        one = blank_model(architecture | {"classes": architecture["classes"][:1]}, most)
        needed = len(architecture["classes"]) * sum(not name.endswith(_ADDED) for name in one.state_dict())
        if needed > len(header.entries):
            raise ValueError("it has fewer tensors than the networks of its tasks")
    return blank_model(architecture, most)


@torch.no_grad()
def check_values(network: nn.Module) -> None:
    """Refuse weights that are no numbers, negative variances, and masks of tasks that hide everything.

    Raises:
        ValueError: naming what has them.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"tensor {name} has values that are not finite")
        if "running_var" in name and tensor.numel() and tensor.min() < 0:
            raise ValueError(f"tensor {name} has negative variances")
    weights = [module for module in network.modules() if isinstance(module, MaskedWeight)]
    kept = torch.zeros(weights[0].tasks if weights else 0, dtype=torch.int64)
    for weight in weights:
        for task, packed in enumerate(weight.masks):
            kept[task] += count_ones(packed)
            spare = -weight.owner.numel() % 8
            if spare and int(packed[-1]) >> 8 - spare:
                raise ValueError(f"the mask of task {task} has more bits than weights")
    if not kept.all():
        raise ValueError(f"the mask of task {int(kept.argmin())} is empty")
