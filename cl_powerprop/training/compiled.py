"""A model's forward pass through torch.compile, one compilation of which serves all tasks."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity.masked_weight import use_bits_always
from cl_powerprop.sparsity.norm_statistics import needs_two_samples


class CompiledModel:
    """Compiles a model, and keeps constant what torch would compile it again for.

    Masks are always in use, and the same parameters always get a gradient. Heads and networks of single tasks are not
    compiled, nor is a batch that is smaller than the first one, as the last of an epoch is, or whose backward pass is
    to give the gradient of hidden weights.

    Args:
        model: the model.
        least: samples in a batch that is compiled; 0 for as many as the first one has.

    Attributes:
        least: the same.
    """

    def __init__(self, model: nn.Module, least: int = 0) -> None:
        self.model = model
        self.least = least
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._masked = use_bits_always(model)
        self._compiled = torch.compile(model)

    def __call__(self, *inputs: Tensor) -> Any:
        """Return the model's outputs.

        Raises:
            ConfigurationError: if torch cannot compile on this machine, or batch norm gets a batch of one sample.
        """
        size = len(inputs[0])
        if size < self.least or any(weight.is_watched for weight in self._masked):
            return self.model(*inputs)
        self.least = self.least or size
        for values in inputs:
            torch._dynamo.maybe_mark_dynamic(values, 0)
        try:
            with needs_two_samples():
                return self._compiled(*inputs)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().splitlines()[0]
            raise ConfigurationError(f"train.compile=true: torch cannot compile here ({reason})") from error

    @contextlib.contextmanager
    def training(self) -> Iterator[list[nn.Parameter]]:
        """Compute gradients of all parameters that had some when the model was compiled.

        Yields:
            Those that are frozen since: their gradients are to be dropped after each backward pass.
        """
        frozen = [parameter for parameter in self._trained if not parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(True)
        try:
            yield frozen
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
