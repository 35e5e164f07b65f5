"""Masked networks with dead units, as a trained and pruned one has them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.sparsity import MaskAllocator, select_task

from ..test_models import make

IMAGES = (1, 28, 28)


def images(count: int = 16) -> Tensor:
    return torch.randn(count, *IMAGES)


@torch.no_grad()
def masked_network(name: str, density: float, tasks: int = 2, **options: Any) -> nn.Module:
    """A network in which each task has a mask; some units are dead for a task, and biases and norms are not trivial.

    A share of the rows of each weight is left out whole, so that units die in deep networks too.
    """
    network = make(name, alpha=2.0, sample_shape=IMAGES, **options)
    allocator = MaskAllocator(network, "per_task", exclude=(TaskHeads,))
    for task in range(tasks):
        allocator.begin_task(torch.Generator().manual_seed(task))
        draw_vectors(network)
        masks = {}
        for layer in allocator.layers:
            theta = allocator.theta(layer)
            rows = torch.rand(len(theta), *(1 for _ in theta.shape[1:])) < 0.7
            masks[layer] = (torch.rand_like(theta) < density) & rows
        allocator.propose(masks)
        allocator.end_task()
    return network.eval()


@torch.no_grad()
def draw_vectors(network: nn.Module) -> None:
    """Draw the biases and norms of a network, with some scales of exactly 0."""
    for module in network.modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)):
            continue
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            value = _stored(module, tensor)
            if value is None or (tensor == "weight" and value.dim() > 1):
                continue
            value.copy_(torch.rand_like(value) + 0.5 if tensor == "running_var" else torch.randn_like(value) * 0.5)
            if tensor == "weight":
                value[torch.rand_like(value) < 0.2] = 0.0


def _stored(module: nn.Module, tensor: str) -> Any:
    if parametrize.is_parametrized(module, tensor):
        return module.parametrizations[tensor].original  # type: ignore[index, union-attr]
    return getattr(module, tensor, None)


def outputs(network: nn.Module, batch: Tensor, task: int) -> Tensor:
    select_task(network, task)
    with torch.no_grad():
        result: Tensor = network(batch)
    return result
