"""Several networks of one form, computed at once: each of their tensors is a row of a stacked one.

``torch.func.vmap`` turns a Linear layer of all networks into one batched matrix product, and a convolution into a
grouped one; batch norms normalise each network's own samples.
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrize

from cl_powerprop.sparsity.maskable import named_modules_outside
from cl_powerprop.sparsity.parametrized import original, parametrizations
from cl_powerprop.sparsity.stacked_bits import Hold

_TRIED = 16  # samples
_CLOSE = 0.05  # of the largest output, by which outputs may differ that are computed alone and with others


class NotStackedError(Exception):
    """A network cannot be computed together with others of its form."""


class _Stored(NamedTuple):
    """A tensor that a network stores, and what computes the one in use from it."""

    tensor: Tensor
    steps: list[nn.Module]


def _stored_tensors(model: nn.Module) -> dict[str, _Stored]:
    """Return the parameters and buffers of a network by the names that they have without parametrizations.

    Raises:
        LookupError: if one is computed from several stored tensors.
    """
    found: dict[str, _Stored] = {}
    for prefix, module in named_modules_outside(model, ()):
        dot = f"{prefix}." if prefix else ""
        for name in module.parametrizations if parametrize.is_parametrized(module) else ():  # type: ignore[union-attr]
            if "original" not in dir(module.parametrizations[name]):  # type: ignore[index]
                raise LookupError(name)
            found[dot + name] = _Stored(original(module, name), parametrizations(module, name))
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        found.update({dot + name: _Stored(value, []) for name, value in own})
    return found


def network_key(model: nn.Module) -> Hashable | None:
    """Return what networks have in common that can be computed at once; None if this cannot be one of them."""
    try:
        tensors = _stored_tensors(model)
    except LookupError:
        return None
    keys: list[Hashable] = [tuple(module.training for module in model.modules())]
    for name, (value, steps) in tensors.items():
        computed = [getattr(step, "stack_key", _none)() for step in steps]
        if None in computed:
            return None
        keys.append((name, tuple(value.shape), value.dtype, value.requires_grad, tuple(computed)))
    return tuple(keys)


def stored_parameters(model: nn.Module) -> set[int]:
    """Return the identities of the parameters that a stack of such networks has."""
    return {id(value) for value, _ in _stored_tensors(model).values()}


class StackedNetwork:
    """Several networks of one form, whose keys (see :func:`network_key`) are equal.

    Args:
        models: the networks. Their tensors are copied, and so is all else that is in the first one, such as its mode.

    Attributes:
        models: the same.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = list(models)
        self._form = _without_tensors(models[0])
        self._stored = [_stored_tensors(model) for model in models]
        self._names: dict[int, str] = {}  # of the first network's tensors, each once; tied ones have one
        self._rows: dict[str, Tensor] = {}
        for name, (value, _) in self._stored[0].items():
            first = self._names.setdefault(id(value), name)
            if first == name:
                self._rows[name] = torch.empty((len(models), *value.shape), dtype=value.dtype, device=value.device)
            self._rows[name] = self._rows[first].requires_grad_(value.requires_grad)
        self._in_use: dict[str, Callable[[Tensor], Tensor]] = {}

    def stacked(self, parameter: Tensor) -> Tensor:
        """Return the stacked tensor that a parameter of the first network is a row of."""
        return self._rows[self._names[id(parameter)]]

    @property
    def parameters(self) -> list[Tensor]:
        """The stacked tensors that are trained."""
        return [self._rows[name] for name in self._names.values() if self._rows[name].requires_grad]

    @torch.no_grad()
    def try_out(self, image: Tensor) -> None:
        """Compute a batch of noise by each network, without effect on the networks.

        Args:
            image: ``[1, *sample]``, whose form the samples have.

        Raises:
            NotStackedError: if that is not possible, as where the computation depends on values, or draws random
                numbers; or if what comes out for the last network is not what it computes alone.
        """
        model, shape = self.models[-1], (len(self.models), _TRIED, *image.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(image)
        own = {name: value.clone() for name, value in (*model.named_parameters(), *model.named_buffers())}
        try:
            self.load()
            together = self(noise)[-1]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # torch's own, of many types
            raise NotStackedError(str(error).strip().partition("\n")[0]) from error
        alone = functional_call(model, own, (noise[-1],))
        if not bool((together - alone).abs().max() <= _CLOSE * alone.abs().max()):
            raise NotStackedError("its outputs are others than alone")

    @property
    def _pairs(self) -> list[tuple[Tensor, list[Tensor]]]:
        """Every stacked tensor, with those of the networks that are its rows."""
        names = self._names.values()
        return [(self._rows[name], [stored[name].tensor for stored in self._stored]) for name in names]

    @torch.no_grad()
    def load(self, hold: Hold | None = None) -> None:
        """Take the networks' tensors and masks.

        Args:
            hold: keeps what the computation reads besides; None if that may lie elsewhere each time.
        """
        hold = hold or _given
        rows, own = self._all_rows()
        _copy(rows, own)
        self._in_use = {}
        for name, (_, steps) in self._stored[0].items():
            for index, step in enumerate(steps):
                peers = [stored[name].steps[index] for stored in self._stored]
                held = _within(f"{name}/{index}", hold)
                self._in_use[name] = _after(self._in_use.get(name), step.stack(self._rows[name], peers, held))  # type: ignore[operator]

    @torch.no_grad()
    def store(self) -> None:
        """Give the networks their tensors, and gradients."""
        rows, own = self._all_rows()
        _copy(own, rows)
        for stacked, tensors in self._pairs:
            if stacked.requires_grad:
                gradients = [None] * len(tensors) if stacked.grad is None else stacked.grad.clone().unbind()
                for tensor, gradient in zip(tensors, gradients, strict=True):
                    tensor.grad = gradient

    def _all_rows(self) -> tuple[list[Tensor], list[Tensor]]:
        rows = [row for stacked, _ in self._pairs for row in stacked.detach().unbind()]
        return rows, [tensor.detach() for _, tensors in self._pairs for tensor in tensors]

    def __call__(self, images: Tensor) -> Tensor:
        """Return the outputs of all networks, ``[networks, batch, classes]``, for ``[networks, batch, *sample]``."""
        used = {name: self._in_use.get(name, _same)(rows) for name, rows in self._rows.items()}
        outputs: Tensor = vmap(partial(functional_call, self._form))(used, images)
        return outputs


def _without_tensors(model: nn.Module) -> nn.Module:
    """Return a copy without parametrizations, whose tensors have no values: what it computes with must be given."""
    copied = copy.deepcopy(model)
    for module in list(copied.modules()):
        for name in list(module.parametrizations) if parametrize.is_parametrized(module) else ():  # type: ignore[arg-type]
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        if type(module) is nn.Linear:
            module.__class__ = _StackedLinear
    return copied.to("meta")


class _StackedLinear(nn.Linear):
    """A Linear layer as a product of which vmap makes one kernel, and whose gradient lies as the weight does."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != 2:
            return super().forward(input)
        output = (self.weight @ input.mT).mT
        return output if self.bias is None else output + self.bias


def _copy(places: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy tensors, those of each dtype by one kernel."""
    for dtype in {each.dtype for each in places}:
        pairs = [(place, value) for place, value in zip(places, values, strict=True) if place.dtype == dtype]
        into, source = zip(*pairs, strict=True)
        torch._foreach_copy_(list(into), list(source))


def _none() -> None:
    return None


def _given(_: str, values: Tensor) -> Tensor:
    return values


def _within(name: str, hold: Hold) -> Hold:
    return lambda tensor, values: hold(f"{name}/{tensor}", values)


def _after(first: Callable[[Tensor], Tensor] | None, second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return second if first is None else lambda value: second(first(value))


def _same(value: Tensor) -> Tensor:
    return value
