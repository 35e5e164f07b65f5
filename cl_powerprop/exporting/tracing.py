"""From any network to the steps that it computes with one task selected, by torch.fx."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.exporting.layers import Add, plain_copy
from cl_powerprop.exporting.network import ExportedNetwork, Step
from cl_powerprop.sparsity.task_aware import select_task

# Functions, and methods of tensors by name, that stand for a layer, with the arguments for which they do.
_FUNCTIONS: dict[Any, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    operator.add: (Add, ()),
    operator.iadd: (Add, ()),
    torch.add: (Add, ()),
    "add": (Add, ()),
    torch.relu: (nn.ReLU, ()),
    F.relu: (nn.ReLU, ()),
    "relu": (nn.ReLU, ()),
    torch.flatten: (nn.Flatten, (1,)),
    "flatten": (nn.Flatten, (1,)),
}
_WITHOUT_EFFECT = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in evaluation mode


@torch.no_grad()
def trace(network: nn.Module, sample: Tensor, task: int | None = None) -> ExportedNetwork:
    """Return a plain copy of what ``network`` computes in evaluation mode: weights without parametrizations or masks.

    Args:
        network: it is left as it was, except that ``task`` is selected.
        sample: a batch of inputs, ``[n, *sample_shape]``; its values do not matter.
        task: the task whose outputs are computed; None for the one that is selected.

    Raises:
        ConfigurationError: if it computes something that an exported network cannot.
    """
    if task is not None:
        select_task(network, task)
    try:
        graph = fx.Tracer().trace(network)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ConfigurationError(f"export cannot follow what the network computes: {error}") from error
    values: dict[fx.Node, int] = {}
    results = [sample]
    steps: list[Step] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = 0
            continue
        inputs = tuple(values[value] for value in node.all_input_nodes)
        if node.op == "output":
            break
        layer = _layer(network, node, results[inputs[0]].dim() if inputs else 0)
        if layer is None:
            values[node] = inputs[0]
            continue
        steps.append(Step(layer, inputs))
        results.append(layer(*(results[value] for value in inputs)))
        values[node] = len(steps)
    return ExportedNetwork(steps).eval()


def _layer(network: nn.Module, node: fx.Node, dimensions: int) -> nn.Module | None:
    """Return the layer that a node stands for; None if it changes nothing.

    Args:
        network: that was traced.
        node: of its graph.
        dimensions: of its (first) input.
    """
    if node.op == "call_module":
        found = network.get_submodule(str(node.target))
        layer = None if isinstance(found, _WITHOUT_EFFECT) else _copied(found, str(node.target))
    elif node.target in _FUNCTIONS and node.op in ("call_function", "call_method"):
        make, expected = _FUNCTIONS[node.target]
        others = tuple(value for value in node.args if not isinstance(value, fx.Node))
        # `x + x` has one input node, and `x + 1` another argument; neither is a step with two inputs.
        count = 2 if make is Add else 1
        if others != expected or len(node.all_input_nodes) != count or set(node.kwargs) - {"inplace"}:
            raise ConfigurationError(f"export does not know {node.format_node()}")
        layer = make()
    else:
        raise ConfigurationError(f"export does not know {node.target}, which the network computes with")
    if isinstance(layer, nn.Flatten) and dimensions == 2:
        return None
    if isinstance(layer, nn.Linear) and dimensions != 2:
        raise ConfigurationError(f"export does not know Linear layers on feature maps, as {node.target} is")
    return layer


def _copied(layer: nn.Module, name: str) -> nn.Module:
    try:
        copy = plain_copy(layer)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} (layer {name})") from error
    if isinstance(copy, nn.Flatten) and (copy.start_dim, copy.end_dim) != (1, -1):
        raise ConfigurationError(f"export knows Flatten only of all but the first dimension (layer {name})")
    return copy
