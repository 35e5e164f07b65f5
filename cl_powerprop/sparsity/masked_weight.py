"""Powerpropagation and the masks of all tasks for one weight tensor, as a torch parametrization.

``torch.nn.utils.parametrize`` keeps the original Parameter object, which now holds ``phi``: an optimizer that was built
before stays valid, and reading ``layer.weight`` gives ``theta * mask`` everywhere.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cl_powerprop.limits import check_alpha
from cl_powerprop.sparsity.bits import to_bits
from cl_powerprop.sparsity.packing import pack, packed_size, unpack
from cl_powerprop.sparsity.powerprop import SparseWeightFunction, to_phi, to_theta
from cl_powerprop.sparsity.stacked_bits import Hold, stack_bits
from cl_powerprop.sparsity.task_aware import TaskAware

Initializer = Callable[[torch.Size, torch.Generator], Tensor]


def torch_default_init(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw a weight as torch's Linear and Conv layers do: uniform in +-1/sqrt(fan_in)."""
    return nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5), generator=generator)


class LearnedMask(Protocol):
    """Computes the weight of a task that learns its mask."""

    def weight(self, phi: Tensor, alpha: float, gate: Tensor | None, theta_gradient: bool) -> Tensor:
        """Return the effective weight, shaped like ``phi`` (see :class:`SparseWeightFunction` for the arguments)."""


class MaskedWeight(nn.Module, TaskAware):
    """Maps ``phi`` to ``theta * mask``; stores one packed mask per task, and which task owns each weight.

    Args:
        shape: shape of the weight.
        alpha, init_scale, initializer: see :func:`powerpropagate`.
        device: where the masks are stored.

    Attributes:
        masks: uint8 ``[tasks, ceil(n / 8)]``, the masks of finished tasks (saved with the model).
        labels: int64 ``[tasks]``, the label of each finished task (saved with the model).
        owner: int16, shaped like the weight: the task that froze it, -1 while it is free (derived from the masks, not
            saved).
        theta_gradient: give dL/dtheta to the optimizer instead of dL/dphi.
        is_watched: backward passes also add up dL/dtheta of all weights, hidden ones included (see :meth:`watch`).
        loads: how often a state was loaded.
        is_loaded: the masks were loaded, and it is not settled yet which other parameters are frozen with them.

    Raises:
        ConfigurationError: if ``alpha`` is not a finite number of at least 1.
    """

    by_task = ("masks", "labels")
    masks: Tensor
    labels: Tensor
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
        self.is_loaded = False
        self._training_view: Tensor | None = None
        self._training_learned: LearnedMask | None = None
        self._learned: LearnedMask | None = None  # that the forward pass uses, in place of _visible
        self._gradient: Tensor | None = None
        self.is_watched = False
        self.loads = 0
        self._always: torch.dtype | None = None  # the dtype for whose floats there are always bits
        self._may_skip = False  # bits that hide nothing need not be used
        self._skips = False
        bytes_a_task = packed_size(shape.numel())
        self.register_buffer("masks", torch.empty(0, bytes_a_task, dtype=torch.uint8, device=device))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64, device=device))
        self.register_buffer("owner", torch.full(shape, -1, dtype=torch.int16, device=device), persistent=False)
        self.register_buffer("_visible", None, persistent=False)
        self.register_buffer("_gate", None, persistent=False)

    def forward(self, phi: Tensor) -> Tensor:
        """Return the effective weight: ``theta`` under the mask in use, shaped like ``phi``."""
        return self._in_use(phi, self.alpha)

    def _in_use(self, phi: Tensor, alpha: float) -> Tensor:
        visible, gate = (None, None) if self._skips else (self._visible, self._gate)
        if alpha == 1.0 and visible is None and gate is None and not self.is_watched and self._learned is None:
            return phi
        size = phi.element_size()
        if visible is not None and visible.element_size() != size:  # still boolean, or the model's dtype has changed
            self._visible = visible = to_bits(visible, phi.dtype)
        if gate is not None and gate.element_size() != size:
            self._gate = gate = to_bits(gate, phi.dtype)
        if self._learned is not None:
            return self._learned.weight(phi, alpha, gate, self.theta_gradient)
        theta: Tensor = SparseWeightFunction.apply(phi, alpha, visible, gate, self.theta_gradient)
        if self.is_watched and theta.requires_grad:
            theta.register_hook(self.add_gradient)
        return theta

    def stack_key(self) -> Hashable | None:
        """Return what weights have in common that are computed at once; None if this cannot be one of them."""
        return None if self.is_watched or self._learned is not None else (self.alpha, self.theta_gradient)

    def stack(self, phi: Tensor, weights: Sequence["MaskedWeight"], hold: Hold) -> Callable[[Tensor], Tensor]:
        """Return what maps the ``phi`` of several networks to their effective weights, both ``[networks, *weight]``.

        Args:
            phi: such a tensor.
            weights: of each network, with equal keys.
            hold: keeps tensors that the function reads.
        """
        alpha, theta_gradient = self.alpha, self.theta_gradient
        in_use = [(None, None) if weight._skips else (weight._visible, weight._gate) for weight in weights]
        visible = stack_bits([shown for shown, _ in in_use], phi)
        gated = any(gate is not None for _, gate in in_use)
        gate = stack_bits([shown if gate is None else gate for shown, gate in in_use], phi) if gated else None
        if alpha == 1.0 and visible is None and gate is None:
            return lambda phi: phi
        visible = None if visible is None else hold("visible", visible)
        gate = None if gate is None else hold("gate", gate)
        return lambda phi: SparseWeightFunction.apply(phi, alpha, visible, gate, theta_gradient)

    def add_gradient(self, gradient: Tensor) -> None:
        """Add a gradient with respect to theta to :attr:`full_gradient`."""
        if self._gradient is None:  # a copy: the parameter's own gradient may have the same memory
            self._gradient = gradient.detach().clone(memory_format=torch.contiguous_format)
        else:
            self._gradient += gradient.detach()

    def watch(self, on: bool) -> None:
        """Let backward passes add up the gradient of all weights from now on, or stop, which forgets it."""
        self.is_watched, self._gradient = on, None

    @property
    def full_gradient(self) -> Tensor | None:
        """dL/dtheta of all weights, as if no mask were in use, since :meth:`watch`; None before a backward pass."""
        return self._gradient

    def right_inverse(self, theta: Tensor) -> Tensor:
        """Return the ``phi`` that gives ``theta``, so that assigning ``layer.weight = theta`` works as expected."""
        return to_phi(theta, self.alpha)

    def theta(self, phi: Tensor) -> Tensor:
        """Return the weight with no mask applied, detached from autograd."""
        return to_theta(phi.detach(), self.alpha)

    def place(self, phi: Tensor, where: Tensor, theta: Tensor) -> None:
        """Set the weights at ``where`` (boolean, shaped like ``phi``) to ``theta``, in place; ``phi`` is detached."""
        phi.copy_(torch.where(where, to_phi(theta, self.alpha), phi))

    @property
    def factors(self) -> tuple[nn.Parameter, ...]:
        """What is trained beside ``phi``; empty where ``theta`` is computed from ``phi`` alone."""
        return ()

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
        return None if self._visible is None or self._skips else self._visible.bool()

    @property
    def learned(self) -> LearnedMask | None:
        """What computes the weight that the forward pass uses; None if that is not learned."""
        return self._learned

    @property
    def training_view(self) -> Tensor | None:
        """Boolean, shaped like the weight: the weights that the task in training uses; None for all."""
        return self._training_view

    def mask_of(self, task: int) -> Tensor:
        """Return the mask of a finished task, boolean, shaped like the weight."""
        return unpack(self.masks[task], self.owner.shape)

    def set_training_view(self, mask: Tensor | None, learning: Tensor | None = None) -> None:
        """Train through ``mask`` (None: all weights).

        Args:
            mask: boolean, shaped like the weight: the weights that are used.
            learning: the same: those that get a gradient, unless they are frozen; None for those that are used.
        """
        frozen = self.frozen
        self._training_view = mask
        self._training_learned = self._learned = None
        if frozen.any():
            learning = _without(frozen, mask if learning is None else learning)
        self._use(mask, learning)

    def train_through(self, learned: LearnedMask) -> None:
        """Train through a mask that is learned, until :meth:`set_training_view`; frozen weights get no gradient."""
        self.set_training_view(None)
        self._training_learned = self._learned = learned

    def open_gate(self) -> None:
        """Compute the gradients of frozen weights too; the allocator still restores the weights after each step."""
        self._use(self._visible, None)

    def use_bits_always(self, dtype: torch.dtype) -> None:
        """Hold bits of one dtype even where no mask is in use, always in the same place.

        One compiled or recorded graph serves all tasks then.

        Args:
            dtype: of ``phi``.
        """
        if self._always == dtype and not self._may_skip:
            return
        self._always, self._may_skip = dtype, False
        self._use(self._visible, self._gate)

    def keep_bits(self, dtype: torch.dtype) -> None:
        """Hold bits of one dtype from now on, so that a copy has the same buffers, which averages of models rely on.

        Bits that hide nothing are not used here; a copy uses them, for its buffers may be overwritten by others.

        Args:
            dtype: of ``phi``.
        """
        if self._always is None:
            self._always, self._may_skip = dtype, True
            self._use(self._visible, self._gate)

    def _use(self, visible: Tensor | None, gate: Tensor | None) -> None:
        self._skips = self._may_skip and visible is None and gate is None
        if self._always is not None:
            visible = to_bits(torch.ones_like(self.frozen) if visible is None else visible, self._always)
            if gate is not None:
                gate = to_bits(gate, self._always)
            elif self._gate is not None or not self._may_skip:
                gate = visible.clone()  # one tensor twice is another graph
            visible, gate = _held(self._visible, visible), _held(self._gate, gate)
        self._visible, self._gate = visible, gate

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._skips = False

    def select_task(self, task: int | None) -> None:
        """Use the mask of ``task``; for None or a task without a mask, use the view of the task in training."""
        in_training = task is None or task >= self.tasks
        self._learned = self._training_learned if in_training else None
        selected = self._training_view if task is None or task >= self.tasks else self.mask_of(task)
        self._use(selected, None if self._skips else self._gate)

    def allocate(self, mask: Tensor, label: int) -> None:
        """Append the mask of the next task, which has this label, and freeze the weights in it."""
        self.owner[mask & ~self.frozen] = self.tasks
        self.labels = torch.cat([self.labels, self.labels.new_tensor([label])])
        self.masks = torch.cat([self.masks, pack(mask).unsqueeze(0)])
        self.set_training_view(None)

    @torch.no_grad()
    def reinitialize_free(self, phi: Tensor, generator: torch.Generator) -> None:
        """Re-initialise every free weight in place: with alpha > 1, a pruned weight near 0 gets almost no gradient."""
        theta = self.initializer(phi.shape, generator).to(phi) * self.init_scale
        phi.copy_(torch.where(self.frozen, phi, to_phi(theta, self.alpha)))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "alpha"] = torch.tensor(self.alpha, dtype=torch.float64)  # what phi stands for

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.loads += 1
        alpha = float(state_dict.pop(prefix + "alpha", self.alpha))
        if alpha != self.alpha:
            weight = prefix.replace("parametrizations.", "").removesuffix(".0.")
            args[-1].append(f"{weight} was trained with alpha={alpha:g}, and this model has alpha={self.alpha:g}")
        before, saved = self.masks, state_dict.get(prefix + "masks")
        if saved is not None and saved.dtype == before.dtype and saved.shape[1:] == before.shape[1:]:
            self.masks = torch.empty_like(saved, device=before.device)
            self.labels = torch.arange(self.tasks, device=before.device)
            state_dict.setdefault(prefix + "labels", self.labels.clone())  # states of version 0.1.0 have none
        super()._load_from_state_dict(state_dict, prefix, *args)
        if torch.equal(before, self.masks):
            return  # the state of another step of the same task, which goes on with the weights that it had in use
        self.is_loaded = True
        self.owner.fill_(-1)
        for task in reversed(range(self.tasks)):
            self.owner += self.mask_of(task) * (task - self.owner)  # faster than by an index
        self.set_training_view(None)


def use_bits_always(model: nn.Module) -> list[MaskedWeight]:
    """Hold bits in all masked weights of a model (see :meth:`MaskedWeight.use_bits_always`), and return these."""
    found = []
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList):
            for step in module:
                if isinstance(step, MaskedWeight):
                    step.use_bits_always(module.original.dtype)
                    found.append(step)
    return found


def _held(held: Tensor | None, values: Tensor | None) -> Tensor | None:
    """Return values in the place of those that are held, if they fit there."""
    if held is None or values is None or held.shape != values.shape or held.dtype != values.dtype:
        return values
    return held.copy_(values)


def _without(frozen: Tensor, learning: Tensor | None) -> Tensor:
    return ~frozen if learning is None else learning & ~frozen


class MaskedWeightOnly(parametrize.ParametrizationList):
    """A parametrization list that calls its only step directly: torch's own dispatch costs more than the step."""

    def forward(self) -> Tensor:
        if len(self._modules) > 1:  # a user has added another parametrization
            return super().forward()
        step: Any = self._modules["0"]
        return step.forward(self._parameters["original"])  # type: ignore[no-any-return]


class PerTaskTensor(nn.Module, TaskAware):
    """A small tensor (bias, norm affine or statistics) of which every finished task keeps its own value."""

    by_task = ("values",)
    values: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.selected: int | None = None
        self.register_buffer("values", value.detach().new_empty((0, *value.shape)))

    def forward(self, value: Tensor) -> Tensor:
        return value if self.selected is None else self.values[self.selected]

    def right_inverse(self, value: Tensor) -> Tensor:
        return value

    def stack_key(self) -> Hashable | None:
        """Return a key if the tensor is the one in training: that of a finished task is not stacked."""
        return () if self.selected is None else None

    def stack(self, value: Tensor, tensors: Sequence["PerTaskTensor"], hold: Hold) -> Callable[[Tensor], Tensor]:
        """Return what maps the stored tensors of several networks to those in use."""
        return lambda value: value

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
