"""Networks without memory: what tensors a network would have, known before any of it is allocated."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.memory import too_large
from cl_powerprop.networks.build import build_model
from cl_powerprop.registry import find

_MOST_TENSORS = 10**6  # of a network with a head for each of thousands of tasks
_BYTES_A_WEIGHT = 8  # of the weight and its gradient, in float32


def blank_model(architecture: dict[str, Any], most: int) -> nn.Module:
    """Return a network on torch's meta device: its tensors have shapes, and take no memory.

    Models of others may need values while they are made; those are made as usual.

    Args:
        architecture: arguments of :func:`build_model`.
        most: tensors that may be made meanwhile, which ends networks of absurd depth early.

    Raises:
        ValueError: for a network of more tensors; whatever else the model raises, for options that it cannot have.
    """
    try:
        return _on_meta(architecture, most)
    except Exception:
        if find("model", architecture["name"]).is_ours:
            raise
    with _at_most(most):
        return build_model(**architecture)


def check_memory(architecture: dict[str, Any]) -> None:
    """Refuse a network whose weights and their gradients this machine cannot hold, before it is made.

    Args:
        architecture: arguments of :func:`build_model`.

    Raises:
        ConfigurationError: saying how much memory it needs.
    """
    name = architecture["name"]
    try:
        parameters = sum(value.numel() for value in _on_meta(architecture, _MOST_TENSORS).parameters())
    except ConfigurationError:
        raise
    except Exception as error:
        if not find("model", name).is_ours:  # it may need values while it is made
            return
        reason = str(error).partition("\n")[0]  # more than 2**63 weights, for one
        raise ConfigurationError(f"model={name} cannot be made of these sizes: {reason}") from error
    if problem := too_large(_BYTES_A_WEIGHT * parameters):
        raise ConfigurationError(
            f"model={name} with {parameters:,} weights needs {problem}; give it fewer or narrower layers"
        )


def _on_meta(architecture: dict[str, Any], most: int) -> nn.Module:
    with torch.device("meta"), _at_most(most):
        return build_model(**architecture | {"init": "default"})  # other initial values need values


@contextmanager
def _at_most(most: int) -> Iterator[None]:
    """Let modules register so many tensors."""
    count = 0

    def registered(*_: object) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError("the network has too many layers")

    hooks = [
        register(registered)
        for register in (register_module_parameter_registration_hook, register_module_buffer_registration_hook)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
