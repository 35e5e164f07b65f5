"""Initial weights other than torch's."""

import math

import torch
from torch import nn

from cl_powerprop.sparsity.maskable import maskable_weights

_DEVIATION = 0.87962566103423978  # of a unit normal that is truncated at two deviations


@torch.no_grad()
def truncated_normal_(network: nn.Module, seed: int) -> None:
    """Draw all weights anew with variance 1 / fan-in, from a normal truncated at two standard deviations; biases are 0.

    As in the notebook that was published with Schwarz et al. 2021 (section 3.1).

    Args:
        network: before Powerpropagation.
        seed: of the draws.
    """
    draws = torch.Generator().manual_seed(seed)
    for layer in maskable_weights(network).values():
        weight = layer.value
        std = math.sqrt(1.0 / weight[0].numel()) / _DEVIATION
        weight.copy_(nn.init.trunc_normal_(torch.empty(weight.shape), 0.0, std, -2 * std, 2 * std, generator=draws))
        bias = getattr(layer.module, "bias", None)
        if isinstance(bias, torch.Tensor):
            bias.zero_()
