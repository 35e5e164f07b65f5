"""Powerpropagation and the masks of all tasks for one weight tensor, as a torch parametrization.

``torch.nn.utils.parametrize`` keeps the original Parameter object, which now holds ``phi``: an optimizer that was built
before stays valid, and reading ``layer.weight`` gives ``theta * mask`` everywhere.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity.bits import to_bits
from cl_powerprop.sparsity.packing import pack, packed_size, unpack
from cl_powerprop.sparsity.powerprop import SparseWeightFunction, check_alpha, to_phi, to_theta
from cl_powerprop.sparsity.task_aware import TaskAware

T = TypeVar("T", bound=nn.Module)
Initializer = Callable[[torch.Size, torch.Generator], Tensor]

MASKABLE_LAYERS = (nn.Linear, _ConvNd)  # Conv1d, 2d, 3d and their transposes


def torch_default_init(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw a weight as torch's Linear and Conv layers do: uniform in +-1/sqrt(fan_in)."""
    return nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5), generator=generator)


class MaskedWeight(nn.Module, TaskAware):
    """Maps ``phi`` to ``theta * mask``; stores one packed mask per task, and which task owns each weight.

    Args:
        shape: shape of the weight.
        alpha, init_scale, initializer: see :func:`powerpropagate`.
        device: where the masks are stored.

    Attributes:
        masks: uint8 ``[tasks, ceil(n / 8)]``, the masks of finished tasks (saved with the model).
        owner: int16, shaped like the weight: the task that froze it, -1 while it is free (derived from the masks, not
            saved).
        theta_gradient: give dL/dtheta to the optimizer instead of dL/dphi.

    Raises:
        ConfigurationError: if ``alpha`` is not a finite number of at least 1.
    """

    masks: Tensor
    owner: Tensor
    _visible: Tensor | None  # bits of the weights that the forward pass uses; None for all
    _gate: Tensor | None  # bits of the weights that get a gradient; None for all visible ones

    def __init__(
        self,
        shape: torch.Size,
        alpha: float = 1.0,
        init_scale: float = 1.0,
        initializer: Initializer = torch_default_init,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.alpha = check_alpha(alpha)
        self.init_scale = init_scale
        self.initializer = initializer
        self.theta_gradient = False
        self._training_view: Tensor | None = None
        bytes_a_task = packed_size(shape.numel())
        self.register_buffer("masks", torch.empty(0, bytes_a_task, dtype=torch.uint8, device=device))
        self.register_buffer("owner", torch.full(shape, -1, dtype=torch.int16, device=device), persistent=False)
        self.register_buffer("_visible", None, persistent=False)
        self.register_buffer("_gate", None, persistent=False)

    def forward(self, phi: Tensor) -> Tensor:
        """Return the effective weight: ``theta`` under the mask in use, shaped like ``phi``."""
        visible, gate = self._visible, self._gate
        if self.alpha == 1.0 and visible is None and gate is None:
            return phi
        size = phi.element_size()
        if visible is not None and visible.element_size() != size:  # still boolean, or the model's dtype has changed
            self._visible = visible = to_bits(visible, phi.dtype)
        if gate is not None and gate.element_size() != size:
            self._gate = gate = to_bits(gate, phi.dtype)
        theta: Tensor = SparseWeightFunction.apply(phi, self.alpha, visible, gate, self.theta_gradient)
        return theta

    def right_inverse(self, theta: Tensor) -> Tensor:
        """Return the ``phi`` that gives ``theta``, so that assigning ``layer.weight = theta`` works as expected."""
        return to_phi(theta, self.alpha)

    def theta(self, phi: Tensor) -> Tensor:
        """Return the weight with no mask applied, detached from autograd."""
        return to_theta(phi.detach(), self.alpha)

    @property
    def tasks(self) -> int:
        """Number of tasks that have a mask."""
        return self.masks.shape[0]

    @property
    def frozen(self) -> Tensor:
        """Boolean, shaped like the weight: the union of all masks."""
        return self.owner >= 0

    @property
    def visible(self) -> Tensor | None:
        """Boolean, shaped like the weight: the weights that the forward pass uses; None for all."""
        return None if self._visible is None else self._visible.bool()

    @property
    def training_view(self) -> Tensor | None:
        """Boolean, shaped like the weight: the weights that the task in training uses; None for all."""
        return self._training_view

    def mask_of(self, task: int) -> Tensor:
        """Return the mask of a finished task, boolean, shaped like the weight."""
        return unpack(self.masks[task], self.owner.shape)

    def set_training_view(self, mask: Tensor | None) -> None:
        """Train through ``mask`` (None: all weights); frozen and hidden weights get no gradient."""
        frozen = self.frozen
        learning = ~frozen if mask is None else mask & ~frozen
        self._training_view = mask
        self._visible = mask
        self._gate = None if mask is None and not frozen.any() else learning

    def open_gate(self) -> None:
        """Compute the gradients of frozen weights too; the allocator still restores the weights after each step."""
        self._gate = None

    def select_task(self, task: int | None) -> None:
        """Use the mask of ``task``; for None or a task without a mask, use the view of the task in training."""
        if task is None or task >= self.tasks:
            self._visible = self._training_view
        else:
            self._visible = self.mask_of(task)

    def allocate(self, mask: Tensor) -> None:
        """Append the mask of the next task and freeze the weights in it."""
        self.owner[mask & ~self.frozen] = self.tasks
        self.masks = torch.cat([self.masks, pack(mask).unsqueeze(0)])
        self.set_training_view(None)

    @torch.no_grad()
    def reinitialize_free(self, phi: Tensor, generator: torch.Generator) -> None:
        """Re-initialise every free weight in place: with alpha > 1, a pruned weight near 0 gets almost no gradient."""
        theta = self.initializer(phi.shape, generator).to(phi) * self.init_scale
        phi.copy_(torch.where(self.frozen, phi, to_phi(theta, self.alpha)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(prefix + "masks")
        if saved is not None:
            self.masks = torch.empty_like(saved, device=self.masks.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.owner.fill_(-1)
        for task in reversed(range(self.tasks)):
            self.owner[self.mask_of(task)] = task
        self.set_training_view(None)


class _MaskedWeightOnly(parametrize.ParametrizationList):
    """A parametrization list that calls its only step directly: torch's own dispatch costs more than the step."""

    def forward(self) -> Tensor:
        if len(self._modules) > 1:  # a user has added another parametrization
            return super().forward()
        step: Any = self._modules["0"]
        return step.forward(self._parameters["original"])  # type: ignore[no-any-return]


class PerTaskTensor(nn.Module, TaskAware):
    """A small tensor (bias, norm affine or statistics) of which every finished task keeps its own value."""

    values: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.selected: int | None = None
        self.register_buffer("values", value.detach().new_empty((0, *value.shape)))

    def forward(self, value: Tensor) -> Tensor:
        return value if self.selected is None else self.values[self.selected]

    def right_inverse(self, value: Tensor) -> Tensor:
        return value

    def select_task(self, task: int | None) -> None:
        self.selected = task if task is not None and task < self.values.shape[0] else None

    def store(self, value: Tensor) -> None:
        """Append ``value`` as that of the next task."""
        self.values = torch.cat([self.values, value.detach().unsqueeze(0)])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(prefix + "values")
        if saved is not None:
            self.values = torch.empty_like(saved, device=self.values.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def find_parametrization(module: nn.Module, tensor: str, kind: type[T]) -> T | None:
    """Return the parametrization of ``kind`` on ``module.<tensor>``, or None."""
    if not parametrize.is_parametrized(module, tensor):
        return None
    chain = module.parametrizations[tensor]  # type: ignore[index]
    return next((step for step in chain if isinstance(step, kind)), None)


def original(module: nn.Module, tensor: str) -> Tensor:
    """Return the stored tensor behind a parametrized one, such as ``phi`` behind ``weight``."""
    stored: Tensor = module.parametrizations[tensor].original  # type: ignore[index, union-attr]
    return stored


def named_modules_outside(
    model: nn.Module, exclude: tuple[type[nn.Module], ...], prefix: str = ""
) -> Iterator[tuple[str, nn.Module]]:
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


def maskable_layers(model: nn.Module, exclude: tuple[type[nn.Module], ...] = ()) -> dict[str, nn.Module]:
    """Return the layers whose weight can be masked, by name, in the order of the model.

    Raises:
        ConfigurationError: if two layers share one weight; a mask could not tell them apart.
    """
    layers: dict[str, nn.Module] = {
        name: module
        for name, module in named_modules_outside(model, exclude)
        if isinstance(module, MASKABLE_LAYERS) and isinstance(module.weight, Tensor)
    }
    holders: dict[int, str] = {}
    for name, layer in layers.items():
        stored: Any = original(layer, "weight") if parametrize.is_parametrized(layer, "weight") else layer.weight
        first = holders.setdefault(id(stored), name)
        if first != name:
            raise ConfigurationError(f"layers {first} and {name} share one weight; untie them before masking")
    return layers


def sparse_weight(layer: nn.Module, alpha: float = 1.0, **options: Any) -> MaskedWeight:
    """Return the layer's :class:`MaskedWeight`; if it has none, add one with ``alpha`` and the given ``options``."""
    weight = find_parametrization(layer, "weight", MaskedWeight)
    if weight is None:
        value: Tensor = layer.weight  # type: ignore[assignment]
        weight = MaskedWeight(value.shape, alpha, device=value.device, **options)
        parametrize.register_parametrization(layer, "weight", weight)
        layer.parametrizations["weight"].__class__ = _MaskedWeightOnly  # type: ignore[index]
    return weight


@torch.no_grad()
def powerpropagate(
    model: nn.Module,
    alpha: float,
    init_scale: float = 1.0,
    initializer: Initializer = torch_default_init,
    exclude: tuple[type[nn.Module], ...] = (),
) -> nn.Module:
    """Reparameterise every Linear and Conv weight of ``model`` in place, and return the model.

    Schwarz et al. 2021, arXiv:2110.00296, section 2.

    Args:
        model: any torch model; apart from ``init_scale``, it keeps computing the same function.
        alpha: the exponent, a float >= 1. With 1 and no mask, the model behaves bit for bit like the ordinary one.
        init_scale: multiplies the weights now, and every weight that is re-initialised for a later task.
        initializer: draws ``theta`` when weights are re-initialised; by default as torch does for these layers.
        exclude: module types that are left unchanged, with everything below them (such as per-task heads).

    Raises:
        ConfigurationError: for an impossible alpha or scale, a model without such layers, two layers that share a
            weight, or a model that is reparameterised already.
    """
    check_alpha(alpha)
    if not math.isfinite(init_scale) or init_scale <= 0:
        raise ConfigurationError(f"init_scale must be a finite number > 0, not {init_scale}")
    layers = maskable_layers(model, exclude)
    if not layers:
        raise ConfigurationError("the model has no Linear or Conv layer to reparameterise")
    for name, layer in layers.items():
        if find_parametrization(layer, "weight", MaskedWeight) is not None:
            raise ConfigurationError(f"layer {name} is reparameterised already")
        if init_scale != 1.0:
            layer.weight.mul_(init_scale)  # type: ignore[operator]
        sparse_weight(layer, alpha, init_scale=init_scale, initializer=initializer)
    return model
