"""The weights of a model that can be masked, and making them so.

These are the matrices and kernels by which a layer multiplies: of Linear, Bilinear and Conv layers, of recurrent layers
and cells, and of attention's projections. Lookup tables (Embedding) and parameters of a module of one's own are not.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.rnn import RNNCellBase
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import check_alpha, check_init_scale, check_reparam
from cl_powerprop.sparsity.masked_weight import Initializer, MaskedWeight, MaskedWeightOnly, torch_default_init
from cl_powerprop.sparsity.parametrized import add_parametrization, find_parametrization, original, parametrizations
from cl_powerprop.sparsity.product import ProductWeight

Types = tuple[type[nn.Module], ...]

_REPARAMETERISATIONS = {"powerprop": MaskedWeight, "product": ProductWeight}


@dataclass(frozen=True)
class Maskable:
    """A weight that can be masked.

    Attributes:
        module: the layer.
        tensor: name of the layer's attribute.
        initializer: draws new values as torch does for this layer.
    """

    module: nn.Module
    tensor: str
    initializer: Initializer

    @property
    def value(self) -> Tensor:
        """The weight as the layer uses it."""
        value: Tensor = getattr(self.module, self.tensor)
        return value

    @property
    def stored(self) -> Tensor:
        """The parameter that is trained: ``phi``, if the weight is reparameterised."""
        return original(self.module, self.tensor) if self.masked is not None else self.value

    @property
    def trained(self) -> tuple[Tensor, ...]:
        """All that the optimizer moves for this weight: :attr:`stored`, and the second factor of a product."""
        masked = self.masked
        return (self.stored, *(masked.factors if masked is not None else ()))

    @property
    def is_trained(self) -> bool:
        """Whether the optimizer is to move it: a layer can be frozen after it was reparameterised."""
        return any(each.requires_grad for each in self.trained)

    @property
    def masked(self) -> MaskedWeight | None:
        """Its masks and reparameterisation; None if it has none."""
        return find_parametrization(self.module, self.tensor, MaskedWeight)

    def by_unit(self, values: Tensor) -> Tensor:
        """Return values of the weight's shape as a matrix, with one row for each output unit or channel."""
        if not getattr(self.module, "transposed", False):
            return values.flatten(1)
        groups: int = self.module.groups  # type: ignore[assignment]
        inputs, outputs = values.shape[:2]
        return values.reshape(groups, inputs // groups, outputs, -1).transpose(1, 2).reshape(groups * outputs, -1)

    def mask(
        self,
        alpha: float = 1.0,
        init_scale: float = 1.0,
        initializer: Initializer | None = None,
        reparam: str = "powerprop",
    ) -> MaskedWeight:
        """Return :attr:`masked`; if it has none, reparameterise the weight (see :func:`powerpropagate`)."""
        masked = self.masked
        if masked is None:
            value = self.value
            kind = _REPARAMETERISATIONS[reparam]
            masked = kind(value.shape, alpha, init_scale, initializer or self.initializer, value.device).to(value.dtype)
            add_parametrization(self.module, self.tensor, masked)
            self.module.parametrizations[self.tensor].__class__ = MaskedWeightOnly  # type: ignore[index]
        return masked


def maskable_weights(model: nn.Module, exclude: Types = ()) -> dict[str, Maskable]:
    """Return the weights that can be masked, in the order of the model, except those that are not trained.

    A frozen weight that is reparameterised counts all the same, since its masks are needed.

    Args:
        model: any torch model.
        exclude: module types that are left out, with everything below them.

    Returns:
        Weights by name: that of the layer if it can have one, such as ``fc1``; else with that of the tensor, such as
        ``lstm.weight_hh_l0``.

    Raises:
        ConfigurationError: if two layers share one weight, for a mask could not tell them apart; if a weight is not
            there before the first batch; or if something else computes it, such as pruning or weight normalisation.
    """
    found: dict[str, Maskable] = {}
    for layer, module in named_modules_outside(model, exclude):
        for tensor, initializer in _weights_of(module).items():
            name = layer if tensor == "weight" else f"{layer}.{tensor}".lstrip(".")
            weight = Maskable(module, tensor, initializer)
            _check_alone(name, weight)
            if weight.masked is not None or weight.value.requires_grad:
                found[name] = weight
    holders: dict[int, str] = {}
    for name, weight in found.items():
        first = holders.setdefault(id(weight.stored), name)
        if first != name:
            raise ConfigurationError(f"layers {first} and {name} share one weight; untie them before masking")
    return found


def _weights_of(module: nn.Module) -> dict[str, Initializer]:
    """Return how torch draws each weight of a layer that can be masked, by the names of the tensors."""
    match module:
        case nn.Linear() | _ConvNd():  # Conv1d, 2d, 3d and their transposes
            return {"weight": torch_default_init}
        case nn.Bilinear():
            return {"weight": functools.partial(_uniform, 1.0 / math.sqrt(module.in1_features))}
        case nn.RNNBase() | RNNCellBase():
            draw = functools.partial(_uniform, 1.0 / math.sqrt(module.hidden_size))
            return {name: draw for name in _tensors(module) if name.startswith("weight_")}
        case nn.MultiheadAttention():  # the projection of its output is a Linear
            return {name: _xavier for name in _tensors(module) if name.endswith("proj_weight")}
    return {}


def _tensors(module: nn.Module) -> Iterator[str]:
    """Yield the names of a module's own parameters, parametrised or not."""
    if parametrize.is_parametrized(module):
        yield from module.parametrizations  # type: ignore[misc]
    for name, value in module.named_parameters(recurse=False):
        # Pruning and the older weight_norm store a weight under other names.
        base = name.removesuffix("_orig").removesuffix("_g")
        if value is not None and not name.endswith("_v"):
            yield base


def _uniform(bound: float, shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _xavier(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return nn.init.xavier_uniform_(torch.empty(shape), generator=generator)


def _check_alone(name: str, weight: Maskable) -> None:
    """Raise if a weight is lazy, or computed by something that a mask cannot be combined with."""
    where = f"layer {name}" if weight.tensor == "weight" else f"weight {name}"
    stored = weight.module._parameters.get(weight.tensor)
    if stored is not None and is_lazy(stored):
        raise ConfigurationError(f"{where} has no shape yet; send one batch through the model before masking")
    steps = parametrizations(weight.module, weight.tensor)
    others = [type(step).__name__ for step in steps if not isinstance(step, MaskedWeight)]
    if others:
        raise ConfigurationError(
            f"{where} is parametrised by {', '.join(others)}, which cannot be combined with masks; remove it with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    computed = any(f"{weight.tensor}{suffix}" in weight.module._parameters for suffix in ("_orig", "_g"))
    if computed or (stored is None and not steps):
        raise ConfigurationError(
            f"{where} is computed from other tensors before every forward pass, as torch.nn.utils.prune, weight_norm "
            "and spectral_norm do, which cannot be combined with masks; make it a plain parameter again with "
            "prune.remove, remove_weight_norm or remove_spectral_norm"
        )


def named_modules_outside(model: nn.Module, exclude: Types, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield (name, module) as ``named_modules`` does, but skip modules of excluded types and everything below them."""
    seen: set[int] = set()

    def walk(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
        if id(module) in seen or isinstance(module, (*exclude, parametrize.ParametrizationList)):
            return
        seen.add(id(module))
        yield name, module
        for child_name, child in module.named_children():
            yield from walk(child, f"{name}.{child_name}" if name else child_name)

    return walk(model, prefix)


@torch.no_grad()
def powerpropagate(
    model: nn.Module,
    alpha: float,
    init_scale: float = 1.0,
    initializer: Callable[[torch.Size, torch.Generator], Tensor] | None = None,
    exclude: Types = (),
    reparam: str = "powerprop",
) -> nn.Module:
    """Reparameterise every weight of ``model`` that can be masked in place, and return the model.

    Schwarz et al. 2021, arXiv:2110.00296, section 2.

    Args:
        model: any torch model; apart from ``init_scale``, it keeps computing the same function.
        alpha: the exponent, a float >= 1. With 1 and no mask, the model behaves bit for bit like the ordinary one.
        init_scale: multiplies the weights now, and every weight that is re-initialised for a later task.
        initializer: draws ``theta`` when weights are re-initialised; None draws as torch does for each kind of layer.
        exclude: module types that are left unchanged, with everything below them (such as per-task heads).
        reparam: "powerprop", or "product" for a product of two trained factors, whose alpha is 2 (see
            :class:`ProductWeight`). The second factors are new parameters: make the optimizer after this call.

    Raises:
        ConfigurationError: for an impossible alpha or scale, an unknown reparameterisation, a model without such
            weights or one that is reparameterised already, and as :func:`maskable_weights` says.
    """
    check_alpha(alpha)
    check_init_scale(init_scale)
    check_reparam(reparam, alpha)
    weights = maskable_weights(model, exclude)
    if not weights:
        raise ConfigurationError("the model has no Linear or Conv layer, nor another weight, to reparameterise")
    for name, weight in weights.items():
        if weight.masked is not None:
            raise ConfigurationError(
                f"layer {name} is reparameterised already; call powerpropagate once, before the optimizer and a "
                "controller of sparse training are made"
            )
    for weight in weights.values():
        if init_scale != 1.0:
            weight.value.mul_(init_scale)
        weight.mask(alpha, init_scale, initializer, reparam)
    return model
