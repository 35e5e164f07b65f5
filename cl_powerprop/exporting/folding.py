"""Fold batch norms into the layers before them."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from cl_powerprop.exporting.network import ExportedNetwork

_FUSE: dict[type[nn.Module], Any] = {nn.Conv2d: fuse_conv_bn_weights, nn.Linear: fuse_linear_bn_weights}


@torch.no_grad()
def fold_batch_norms(network: ExportedNetwork) -> ExportedNetwork:
    """Return the network with every batch norm in the convolution before it, if nothing else takes that one's result.

    The layers are those of ``network``, with other weights.
    """
    steps = network.steps
    takers = [sum(value in step.inputs for step in steps) for value in range(len(steps) + 1)]
    folded = []
    for index, step in enumerate(steps):
        norm, value = step.layer, step.inputs[0]
        before: Any = steps[value - 1].layer if value else None
        fuse = _FUSE.get(type(before))
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or fuse is None or takers[value] > 1:
            continue
        before.weight, before.bias = fuse(
            before.weight, before.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        folded.append(index)
    return network.without(folded)
