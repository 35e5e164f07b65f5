"""The layers that an exported network can have. A file names them by kind, and nothing else in it is ever called."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cl_powerprop.errors import ConfigurationError


class Add(nn.Module):
    """The sum of two values, as at the end of a residual block."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first + second


class Select(nn.Module):
    """Some values of each sample: from ``[n, values]`` to ``[n, count]``.

    Args:
        count: how many are selected; all of the first ones to begin with.
    """

    index: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("index", torch.arange(count, dtype=torch.int32))

    def forward(self, values: Tensor) -> Tensor:
        return values.index_select(1, self.index)


_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
_POOL = ("kernel_size", "stride", "padding", "ceil_mode")

# By kind: the class, and the attributes that are arguments of its constructor under the same names.
KINDS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "linear": (nn.Linear, ("in_features", "out_features", "bias")),
    "conv2d": (nn.Conv2d, (*_CONV, "bias")),
    "batch_norm2d": (nn.BatchNorm2d, ("num_features", "eps", "affine", "track_running_stats")),
    "group_norm": (nn.GroupNorm, ("num_groups", "num_channels", "eps", "affine")),
    "relu": (nn.ReLU, ()),
    "leaky_relu": (nn.LeakyReLU, ("negative_slope",)),
    "elu": (nn.ELU, ("alpha",)),
    "gelu": (nn.GELU, ("approximate",)),
    "silu": (nn.SiLU, ()),
    "tanh": (nn.Tanh, ()),
    "sigmoid": (nn.Sigmoid, ()),
    "max_pool2d": (nn.MaxPool2d, (*_POOL, "dilation")),
    "avg_pool2d": (nn.AvgPool2d, (*_POOL, "count_include_pad")),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "flatten": (nn.Flatten, ("start_dim", "end_dim")),
    "add": (Add, ()),
    "select": (Select, ("count",)),
}
_KIND_OF = {layer: kind for kind, (layer, _) in KINDS.items()}


def describe(layer: nn.Module) -> dict[str, Any]:
    """Return what :func:`build_layer` makes an equal layer from, apart from its tensors, as JSON values.

    Raises:
        ConfigurationError: for a kind of layer that an exported network cannot have.
    """
    layer_type: Any = parametrize.type_before_parametrizations(layer)
    kind = _KIND_OF.get(layer_type)
    if kind is None:
        known = ", ".join(layer.__name__ for layer in _KIND_OF)
        raise ConfigurationError(f"export does not know layers of type {layer_type.__name__}; it knows {known}")
    values = {name: getattr(layer, name) for name in KINDS[kind][1]}
    if "bias" in values:
        values["bias"] = values["bias"] is not None
    return {"kind": kind} | values


def build_layer(description: Mapping[str, Any]) -> nn.Module:
    """Return a new layer as :func:`describe` describes it.

    Raises:
        KeyError, TypeError, ValueError: for a description that does not come from there.
    """
    layer, names = KINDS[description["kind"]]
    return layer(**{name: description[name] for name in names})


def plain_copy(layer: nn.Module) -> nn.Module:
    """Return the layer without parametrizations: its tensors are those that it computes with at present.

    Raises:
        ConfigurationError: see :func:`describe`.
    """
    copy = build_layer(describe(layer))
    copy.load_state_dict({name: getattr(layer, name).detach().clone() for name in copy.state_dict()})
    return copy.eval()
