"""How each kind of layer treats units: which outputs are constant, which inputs it needs, and what of it is kept.

A unit is a feature of a fully connected layer, or a channel of a feature map. Flattening keeps the units of a map: each
then has several values. Units are given as tensors with one element each: a constant unit's value, NaN for one
that varies; or whether a unit is needed or kept.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cl_powerprop.exporting.layers import Add, Select


class Rule:
    """For layers that are kept whole, such as group norm, where each unit depends on others that it does not name.

    Attributes:
        whole: all outputs are kept.
        pairs: output k depends on unit k of each input alone, so that they are kept or removed together.
    """

    whole = True
    pairs = False

    def outputs(self, layer: Any, units: int) -> int:
        """Return the number of outputs that belong to ``units`` inputs."""
        return units

    def constants(self, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
        """Return the constant outputs for constant inputs, whose part of the results may be moved into the bias."""
        return torch.full((self.outputs(layer, len(inputs[0])),), torch.nan)

    def needed(self, layer: Any, units: int, outputs: Tensor) -> Tensor:
        """Return which of the ``units`` of each input are needed, if ``outputs`` are."""
        return torch.ones(units, dtype=torch.bool)

    def keep(self, layer: Any, inputs: Tensor, outputs: Tensor) -> None:
        """Remove all other units from the layer's tensors."""


class _Weighted(Rule):
    """A fully connected layer, or a convolution in one group."""

    whole = False

    def outputs(self, layer: Any, units: int) -> int:
        return int(layer.weight.shape[0])

    def constants(self, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
        values = inputs[0]
        weight = _by_unit(layer, len(values))
        bias = layer.weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        # Where zeros are padded, another constant has less of an effect at the border than within.
        padded = (
            isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and layer.padding not in ("valid", (0, 0))
        )
        moved = (values == 0) | (values.isfinite() & (not padded))
        bias = bias + (weight[:, moved].double().sum(2) @ values[moved].double()).to(bias)
        weight[:, moved] = 0.0
        if layer.bias is not None or bias.any():
            layer.bias = nn.Parameter(bias)
        return torch.where(weight.flatten(1).any(1), torch.nan, bias)

    def needed(self, layer: Any, units: int, outputs: Tensor) -> Tensor:
        return _by_unit(layer, units)[outputs].any(2).any(0)

    def keep(self, layer: Any, inputs: Tensor, outputs: Tensor) -> None:
        weight = _by_unit(layer, len(inputs))[outputs][:, inputs]
        layer.weight = nn.Parameter(weight.reshape(len(weight), -1, *layer.weight.shape[2:]))
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach()[outputs])
        sizes = ("in_channels", "out_channels") if isinstance(layer, nn.Conv2d) else ("in_features", "out_features")
        for name, size in zip(sizes, layer.weight.shape[1::-1], strict=True):
            setattr(layer, name, size)


def _by_unit(layer: Any, units: int) -> Tensor:
    """Return the weight as ``[outputs, units, values of a unit]``, in the same memory."""
    return layer.weight.detach().view(len(layer.weight), units, -1)  # type: ignore[no-any-return]


def _pads_zeros(layer: Any) -> bool:
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros":
        return False
    return layer.padding not in ("valid", (0, 0))


class _Select(Rule):
    """The selection of pixels: each that is selected is a unit."""

    whole = False

    def outputs(self, layer: Any, units: int) -> int:
        return len(layer.index)

    def keep(self, layer: Any, inputs: Tensor, outputs: Tensor) -> None:
        layer.index = layer.index[outputs]
        layer.count = len(layer.index)


class _Elementwise(Rule):
    """A function of single values, or of one from each input."""

    whole, pairs = False, True

    def constants(self, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
        return layer(*(values.view(1, -1, 1, 1) for values in inputs)).flatten()  # type: ignore[no-any-return]

    def needed(self, layer: Any, units: int, outputs: Tensor) -> Tensor:
        return outputs


class _BatchNorm(_Elementwise):
    def constants(self, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
        values = inputs[0]
        if layer.affine:  # whatever is multiplied by 0 is constant
            values = torch.where(layer.weight == 0, 0.0, values)
        return super().constants(layer, [values])

    def keep(self, layer: Any, inputs: Tensor, outputs: Tensor) -> None:
        for name in ("running_mean", "running_var"):
            setattr(layer, name, getattr(layer, name)[outputs])
        if layer.affine:
            layer.weight, layer.bias = (nn.Parameter(value.detach()[outputs]) for value in (layer.weight, layer.bias))
        layer.num_features = len(layer.running_mean)


class _WithinUnits(_Elementwise):
    """Pooling and flattening, which give a constant unit the same value."""

    def constants(self, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
        averages_padding = isinstance(layer, nn.AvgPool2d) and layer.padding not in (0, (0, 0))
        return torch.where(inputs[0] == 0, 0.0, torch.nan) if averages_padding else inputs[0]


_ELEMENTWISE = (Add, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)
_WITHIN_UNITS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)
_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _Weighted(),
    nn.Conv2d: _Weighted(),
    nn.BatchNorm2d: _BatchNorm(),
    Select: _Select(),
    **dict.fromkeys(_ELEMENTWISE, _Elementwise()),
    **dict.fromkeys(_WITHIN_UNITS, _WithinUnits()),
}


class _Grouped(Rule):
    def outputs(self, layer: Any, units: int) -> int:
        return int(layer.out_channels)


def rule_of(layer: nn.Module) -> Rule:
    """Return how a layer treats units."""
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return _Grouped()
    if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is None:
        return Rule()
    return _RULES.get(type(layer), Rule())
