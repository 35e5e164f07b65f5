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

from cl_powerprop.networks.build import build_model


def blank_model(architecture: dict[str, Any], most: int) -> nn.Module:
    """Return a network on torch's meta device: its tensors have shapes, and take no memory.

    Args:
        architecture: arguments of :func:`build_model`.
        most: tensors that may be made meanwhile, which ends networks of absurd depth early.

    Raises:
        ValueError: for a network of more tensors.
    """
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
