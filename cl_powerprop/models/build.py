"""Models by name. A new one is one file, one branch here and one file in `conf/model/`."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.models.heads import TaskHeads
from cl_powerprop.models.mlp import MLP
from cl_powerprop.sparsity import powerpropagate

MODELS = ("mlp", "lenet_300_100")


def build_model(
    name: str,
    *,
    sample_shape: Sequence[int],
    classes: Sequence[int],
    heads: str,
    bias: str,
    hidden: Sequence[int],
    alpha: float = 1.0,
    init_scale: float = 1.0,
    init_seed: int = 0,
) -> nn.Module:
    """Return a network, with Powerpropagation where alpha asks for it.

    Args:
        name: one of :data:`MODELS`.
        sample_shape: shape of one sample, (channels, height, width).
        classes: classes of each task.
        heads: "shared" or "per_task".
        bias: "none", or whatever becomes of biases ("per_task", "frozen") where masks are used.
        hidden: widths of the hidden layers.
        alpha, init_scale: see :func:`powerpropagate`.
        init_seed: what the initial weights are drawn from.

    Raises:
        ConfigurationError: for an unknown name or an impossible value.
    """
    if name not in MODELS:
        raise ConfigurationError(f"unknown model {name!r}; choose from: {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        model = MLP(math.prod(sample_shape), hidden, classes, per_task_heads=heads == "per_task", bias=bias != "none")
    return powerpropagate(model, alpha, init_scale, exclude=(TaskHeads,))
