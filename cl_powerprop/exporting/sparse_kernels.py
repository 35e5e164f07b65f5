"""Fully connected layers that skip their zeros, by torch's kernels for matrices in compressed sparse rows (CSR)."""

import warnings
from dataclasses import replace

import torch
from torch import Tensor, nn

from cl_powerprop.exporting.network import ExportedNetwork

DENSEST = (
    0.1  # share of weights other than 0 up to which CSR is faster for a batch of 256; for a batch of 1, about 0.05
)


class SparseLinear(nn.Module):
    """A Linear layer for inference, whose weight is stored in CSR.

    Args:
        layer: the layer it computes the same as.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            self.register_buffer("weight", layer.weight.detach().to_sparse_csr())
        bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
        self.register_buffer("bias", bias.unsqueeze(1))

    def forward(self, features: Tensor) -> Tensor:
        return torch.addmm(self.bias, self.weight, features.T).T


def with_sparse_kernels(network: ExportedNetwork) -> ExportedNetwork | None:
    """Return the network with CSR in every Linear layer that is sparse enough to gain by it; None if none is.

    Layers that are not replaced are those of ``network``.
    """
    sparse = [
        replace(step, layer=SparseLinear(step.layer))
        if isinstance(step.layer, nn.Linear) and _density(step.layer.weight) <= DENSEST
        else step
        for step in network.steps
    ]
    replaced = any(isinstance(step.layer, SparseLinear) for step in sparse)
    return ExportedNetwork(sparse).eval() if replaced else None


def _density(weight: Tensor) -> float:
    return int(weight.count_nonzero()) / weight.numel()
