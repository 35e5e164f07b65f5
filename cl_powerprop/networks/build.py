"""Build the whole network from the name and options of a model: features, heads and Powerpropagation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cl_powerprop.networks.classifier import Classifier
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.networks.independent import IndependentNetworks
from cl_powerprop.networks.initial import truncated_normal_
from cl_powerprop.registry import find
from cl_powerprop.sparsity import powerpropagate


def build_model(
    name: str,
    *,
    sample_shape: Sequence[int],
    classes: Sequence[int],
    heads: str,
    bias: str,
    alpha: float = 1.0,
    reparam: str = "powerprop",
    init_scale: float = 1.0,
    init: str = "default",
    init_seed: int = 0,
    independent: bool = False,
    **options: Any,
) -> nn.Module:
    """Return a network with Powerpropagation (which alpha 1 leaves without effect).

    Args:
        name: as in ``model=NAME``.
        sample_shape: shape of one sample, (channels, height, width).
        classes: number of classes of each task.
        heads: "shared" or "per_task".
        bias: "none" for a network without biases; "per_task" and "frozen" say how masks treat biases and norms.
        alpha, reparam, init_scale: see :func:`powerpropagate`.
        init: how initial weights are drawn: "default" or "truncated_normal".
        init_seed: seed of the initial weights.
        independent: make a whole network for each task.
        options: further options of the model: hidden, width, norm.

    Raises:
        ConfigurationError: for an unknown name, an impossible value, or samples too small for the model.
    """
    make = find("model", name).make
    biased = bias != "none"

    def network(classes: Sequence[int]) -> nn.Module:
        features = make(sample_shape, bias=biased, **options)
        return Classifier(features, sample_shape, classes, per_task_heads=heads == "per_task", bias=biased)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        model = IndependentNetworks(network([count]) for count in classes) if independent else network(classes)
    if init == "truncated_normal":
        truncated_normal_(model, init_seed)
    return powerpropagate(model, alpha, init_scale, exclude=(TaskHeads,), reparam=reparam)
