"""The per-task mask allocator: every task gets a mask over one network, and what it holds is frozen.

Masks and frozen sets as in PackNet (Mallya & Lazebnik, CVPR 2018, arXiv:1711.05769) and, with masks that may leave out
earlier tasks' weights, EfficientPackNet (Schwarz et al. 2021, section 4).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity.bits import overwrite_, to_bits
from cl_powerprop.sparsity.masked_weight import (
    MaskedWeight,
    PerTaskTensor,
    maskable_layers,
    named_modules_outside,
    original,
    sparse_weight,
)
from cl_powerprop.sparsity.packing import unpack
from cl_powerprop.sparsity.task_aware import select_task

Unmasked = Literal["per_task", "frozen"]

_BYTES_AT_A_TIME = 2**15  # of each mask, when masks are compared


@dataclass(frozen=True)
class LayerCapacity:
    """What one task holds of one tensor, in weights. ``reused_from[j]`` are owned by the earlier task j."""

    task: int
    layer: str
    kind: Literal["masked", "dense"]
    weights: int
    kept: int
    newly_frozen: int
    free: int
    reused_from: tuple[int, ...] = ()

    @property
    def reused(self) -> int:
        return self.kept - self.newly_frozen


class MaskAllocator:
    """Gives each task a mask over the weights of ``model``; what a task holds never changes again, bit for bit.

    A task runs through ``begin_task``, training with ``restore_frozen`` after every optimizer step, optionally
    ``propose`` (train on through a mask), and ``end_task``. ``select_task(model, k)`` then answers as task k.

    Args:
        model: any torch model; its Linear and Conv weights become maskable in place.
        unmasked: what becomes of the other parameters: a value of their own for each task ("per_task"), or frozen
            after the first task that trains them ("frozen"). Statistics of norm layers are always per task.
        exclude: module types that are not masked, such as multi-head classifiers. Their parameters are frozen after
            the first task that trains them: a head belongs to its task.
    """

    def __init__(
        self, model: nn.Module, unmasked: Unmasked = "frozen", exclude: tuple[type[nn.Module], ...] = ()
    ) -> None:
        if unmasked not in ("per_task", "frozen"):
            raise ConfigurationError(f"unmasked must be per_task or frozen, not {unmasked!r}")
        self.model = model
        self.layers = maskable_layers(model, exclude)
        if not self.layers:
            raise ConfigurationError("the model has no Linear or Conv layer to mask")
        self.weights: dict[str, MaskedWeight] = {name: sparse_weight(layer) for name, layer in self.layers.items()}
        self.has_excluded = any(isinstance(module, exclude) for module in model.modules())
        self._exclude = exclude
        self._per_task = dict(self._make_per_task(unmasked, exclude))
        self._before: dict[str, Tensor] = {}
        self._frozen_phi: dict[str, tuple[Tensor, Tensor]] = {}
        self.history: list[LayerCapacity] = []

    def _make_per_task(
        self, unmasked: Unmasked, exclude: tuple[type[nn.Module], ...]
    ) -> Iterator[tuple[str, tuple[nn.Module, str, PerTaskTensor]]]:
        for name, module in named_modules_outside(self.model, exclude):
            tensors: list[str] = []
            if unmasked == "per_task":
                tensors += [key for key, value in module.named_parameters(recurse=False) if value.requires_grad]
            if isinstance(module, _NormBase):
                tensors += [key for key, _ in module.named_buffers(recurse=False) if key != "num_batches_tracked"]
            for tensor in tensors:
                if not parametrize.is_parametrized(module, tensor):
                    per_task = PerTaskTensor(getattr(module, tensor))
                    parametrize.register_parametrization(module, tensor, per_task)
                    yield f"{name}.{tensor}".lstrip("."), (module, tensor, per_task)

    @property
    def tasks(self) -> int:
        """How many tasks are finished."""
        return next(iter(self.weights.values())).tasks

    def phi(self, name: str) -> Tensor:
        """Return the trained parameter of a masked layer."""
        return original(self.layers[name], "weight")

    def theta(self, name: str) -> Tensor:
        """Return the weight of a masked layer with nothing hidden."""
        return self.weights[name].theta(self.phi(name))

    def begin_task(self, generator: torch.Generator) -> None:
        """Start the next task: free weights are drawn anew (not for the first task), frozen ones remembered."""
        select_task(self.model, self.tasks)
        if self.tasks and not self.history:
            self._freeze_loaded()
        self._frozen_phi = {}
        for name, weight in self.weights.items():
            phi = self.phi(name)
            if weight.tasks:
                weight.reinitialize_free(phi, generator)
            weight.set_training_view(None)
            frozen = weight.frozen
            if frozen.any():
                held = to_bits(frozen, phi.dtype)
                self._frozen_phi[name] = (held.bitwise_not(), phi.detach().view(held.dtype) & held)
        self._before = {name: value.detach().clone() for name, value in self._unmasked()}

    def restore_frozen(self) -> None:
        """Put frozen weights back to their bits: momentum and decay move a weight whose gradient is zero."""
        for name, (free, frozen_values) in self._frozen_phi.items():
            overwrite_(self.phi(name).detach(), free, frozen_values)

    def propose(self, masks: Mapping[str, Tensor]) -> None:
        """See and train only ``masks`` from now on (boolean, by layer name, shaped like the weights)."""
        for name, weight in self.weights.items():
            weight.set_training_view(masks[name])

    def see_everything(self) -> None:
        """Undo :meth:`propose`."""
        for weight in self.weights.values():
            weight.set_training_view(None)

    def end_task(self) -> list[LayerCapacity]:
        """Give the proposed mask (all weights, if none was proposed) to the task and freeze what it holds.

        Returns:
            One row a masked layer, and one a dense tensor that this task trained (head, bias, norm) or keeps a value of
            its own of (statistics of a norm layer).
        """
        self.restore_frozen()
        task = self.tasks
        rows = [self._allocate(task, name, weight) for name, weight in self.weights.items()]
        for module, tensor, per_task in self._per_task.values():
            per_task.store(original(module, tensor))
        dense = list(self._freeze_trained())
        kept = ((name, original(module, tensor)) for name, (module, tensor, _) in self._per_task.items())
        dense += [(name, value) for name, value in kept if not isinstance(value, nn.Parameter)]
        rows += [
            LayerCapacity(task, name, "dense", value.numel(), value.numel(), value.numel(), 0) for name, value in dense
        ]
        self._frozen_phi = {}
        self.history += rows
        return rows

    def _allocate(self, task: int, name: str, weight: MaskedWeight) -> LayerCapacity:
        mask = weight.training_view
        if mask is None:
            mask = torch.ones_like(weight.frozen)
        owners = weight.owner[mask]
        reused = torch.bincount(owners[owners >= 0].int(), minlength=task).tolist()
        weight.allocate(mask)
        size, kept = mask.numel(), len(owners)
        free = size - int(weight.frozen.sum())
        return LayerCapacity(task, name, "masked", size, kept, kept - sum(reused), free, tuple(reused))

    def _unmasked(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the trainable parameters that no mask covers."""
        masked = {id(self.phi(name)) for name in self.layers}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and id(parameter) not in masked:
                yield name, parameter

    def _freeze_loaded(self) -> None:
        """Freeze what was frozen when loaded masks were saved: `requires_grad` is not in a state dict."""
        keep = {id(original(module, tensor)) for module, tensor, _ in self._per_task.values()}
        keep |= {id(self.phi(name)) for name in self.layers}
        for _, module in named_modules_outside(self.model, self._exclude):
            for parameter in module.parameters(recurse=False):
                if id(parameter) not in keep:
                    parameter.requires_grad_(False)

    def _freeze_trained(self) -> Iterator[tuple[str, Tensor]]:
        """Freeze and yield the unmasked parameters that this task has moved; per-task ones stay trainable."""
        per_task = {id(original(module, tensor)) for module, tensor, _ in self._per_task.values()}
        for name, parameter in list(self._unmasked()):
            before = self._before.get(name)
            if before is not None and parameter.grad is None and torch.equal(before, parameter):
                continue
            if id(parameter) not in per_task:
                parameter.requires_grad_(False)
                parameter.grad = None  # an optimizer skips a parameter without gradient, decay included
            yield name.replace(".parametrizations", "").removesuffix(".original"), parameter

    @property
    def capacity_used(self) -> float:
        """The share of all maskable weights that some task holds."""
        held = sum(int(weight.frozen.sum()) for weight in self.weights.values())
        return held / sum(weight.owner.numel() for weight in self.weights.values())

    def overlaps(self) -> Tensor:
        """Return int64 ``[tasks, tasks]`` on the CPU: how many weights the masks of both tasks hold."""
        total = torch.zeros(self.tasks, self.tasks, dtype=torch.int64)
        for weight in self.weights.values():
            for part in weight.masks.split(_BYTES_AT_A_TIME, dim=1):
                bits = unpack(part.flatten(), torch.Size((self.tasks, 8 * part.shape[1]))).float()
                total += (bits @ bits.T).long().cpu()  # exact: far below 2**24
        return total

    @property
    def mask_bits(self) -> int:
        """Bits that the stored masks take."""
        return 8 * sum(weight.masks.numel() for weight in self.weights.values())
