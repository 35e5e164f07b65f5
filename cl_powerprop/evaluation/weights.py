"""Histograms of a network's weight magnitudes, which Powerpropagation changes (Schwarz et al. 2021, figure 1)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from cl_powerprop.sparsity.maskable import maskable_weights

# Ten bins per decade from 1e-8 to 100; the first bin, from 0, holds everything smaller.
EDGES = np.concatenate([[0.0], np.logspace(-8, 2, 101)])


@dataclass(frozen=True)
class WeightCount:
    """Number of weights of a layer with ``low <= |theta| < high``, and their state: "used" or "free"."""

    layer: str
    state: str
    low: float
    high: float
    weights: int


def weight_histogram(model: nn.Module, exclude: tuple[type[nn.Module], ...], masked: bool) -> Iterator[WeightCount]:
    """Yield the bins of ``|theta|`` that hold weights, layer by layer.

    Args:
        model: a model whose weights are reparameterised (see :func:`powerpropagate`).
        exclude: module types that are left out, such as heads.
        masked: whether tasks have masks; without, all weights count as used that sparse training leaves in use.
    """
    for name, weight in maskable_weights(model, exclude).items():
        masks = weight.masked
        if masks is None:
            continue
        sizes = masks.theta(weight.stored).abs().flatten().cpu().numpy()
        in_use = masks.frozen if masked else masks.training_view
        used = np.ones(len(sizes), bool) if in_use is None else in_use.flatten().cpu().numpy()
        for state, chosen in (("used", used), ("free", ~used)):
            counts, _ = np.histogram(np.clip(sizes[chosen], None, EDGES[-2]), EDGES)
            for index in counts.nonzero()[0]:
                yield WeightCount(name, state, float(EDGES[index]), float(EDGES[index + 1]), int(counts[index]))
