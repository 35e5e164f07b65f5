"""How many floating-point operations a forward pass takes, layer by layer, as torch counts them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cl_powerprop.sparsity.maskable import maskable_weights


@dataclass(frozen=True)
class Flops:
    """FLOPs of one sample's forward pass through a dense network.

    Attributes:
        layers: by the name of each weight that can be masked.
        total: of these and of everything else.
    """

    layers: Mapping[str, int]
    total: int

    def relative(self, density: Mapping[str, float]) -> float:
        """Return the FLOPs with these densities as a share of :attr:`total`; what has no density is dense."""
        saved = sum(count * (1.0 - density.get(name, 1.0)) for name, count in self.layers.items())
        return 1.0 - saved / self.total


def count_flops(model: nn.Module, sample_shape: Sequence[int]) -> Flops:
    """Count the FLOPs of a forward pass with :class:`torch.utils.flop_counter.FlopCounterMode`.

    A multiplication and an addition are two. Matrix products and convolutions count; all else does not, nor do
    recurrent layers, which torch computes in one piece. Those of a layer with several weights are divided by size.

    Args:
        model: which is called with one sample, in evaluation mode.
        sample_shape: (channels, height, width).
    """
    like = next(model.parameters())
    training = {module: module.training for module in model.modules()}
    counter = FlopCounterMode(display=False)
    try:
        model.eval()  # batch-norm statistics stay as they are
        with torch.no_grad(), counter:
            model(torch.zeros(1, *sample_shape, device=like.device, dtype=like.dtype))
    finally:
        for module, mode in training.items():
            module.training = mode
    counted = {layer: sum(counts.values()) for layer, counts in counter.get_flop_counts().items()}
    paths = {module: ".".join(filter(None, [type(model).__name__, name])) for name, module in model.named_modules()}
    weights = maskable_weights(model)
    sizes: dict[nn.Module, int] = {}
    for weight in weights.values():
        sizes[weight.module] = sizes.get(weight.module, 0) + weight.stored.numel()
    layers = {
        name: counted.get(paths[weight.module], 0) * weight.stored.numel() // sizes[weight.module]
        for name, weight in weights.items()
    }
    return Flops(layers, counter.get_total_flops())
