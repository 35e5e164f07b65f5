"""The per-task mask allocator: every task gets a mask over one shared network, and the weights in it are frozen.

Masks and frozen weights are as in PackNet (Mallya & Lazebnik, CVPR 2018, arXiv:1711.05769) and, if masks may leave out
weights of earlier tasks, as in EfficientPackNet (Schwarz et al. 2021, section 4).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity.bits import held, overwrite_
from cl_powerprop.sparsity.maskable import Maskable, maskable_weights, named_modules_outside
from cl_powerprop.sparsity.masked_weight import MaskedWeight, PerTaskTensor
from cl_powerprop.sparsity.packing import unpack
from cl_powerprop.sparsity.parametrized import add_parametrization, find_parametrization, original
from cl_powerprop.sparsity.stacked_bits import Hold
from cl_powerprop.sparsity.task_aware import select_task

Unmasked = Literal["per_task", "frozen"]

_BYTES_AT_A_TIME = 2**15  # of each mask that are unpacked together when masks are compared


@dataclass(frozen=True)
class LayerCapacity:
    """How much of one tensor a task uses, in weights.

    Attributes:
        task: index of the task.
        layer: name of the masked layer, or of the dense tensor.
        kind: "masked", or "dense" for a tensor that no mask covers.
        weights: size of the tensor.
        kept: weights in the task's mask.
        newly_frozen: weights in the mask that were free before this task.
        free: weights that no task uses yet.
        reused_from: ``reused_from[j]`` is the number of weights in the mask that the earlier task j froze.
    """

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
        """Weights in the mask that earlier tasks froze."""
        return self.kept - self.newly_frozen


class MaskAllocator:
    """Gives each task a mask over the weights of ``model``; a weight in a mask never changes again, bit for bit.

    For each task, call ``begin_task``, train with ``restore_frozen`` after every optimizer step, optionally ``propose``
    masks and continue training through them, and call ``end_task``. After ``select_task(model, k)`` the model computes
    the outputs of task k.

    Args:
        model: any torch model; its weights become maskable in place (see :mod:`cl_powerprop.sparsity.maskable`).
        unmasked: how the other parameters are treated: each task has its own values ("per_task"), or they are frozen
            after the first task that trains them ("frozen"). Statistics of norm layers are always per task.
        exclude: module types that are not masked, such as multi-head classifiers. Their parameters are frozen after
            the first task that trains them: a head belongs to its task.

    Attributes:
        weights: the masks of each weight, by name.
        uncovered: size of each trained weight that no mask covers, by name; those of excluded modules are left out.
        history: the rows that :meth:`end_task` returned, of all finished tasks.

    Raises:
        ConfigurationError: for another value of ``unmasked``, a model without a weight to mask or with products
            (see :class:`ProductWeight`), and as :func:`maskable_weights` says.
    """

    def __init__(
        self, model: nn.Module, unmasked: Unmasked = "frozen", exclude: tuple[type[nn.Module], ...] = ()
    ) -> None:
        if unmasked not in ("per_task", "frozen"):
            raise ConfigurationError(f"unmasked must be per_task or frozen, not {unmasked!r}")
        self.model = model
        self.layers: dict[str, Maskable] = maskable_weights(model, exclude)
        if not self.layers:
            raise ConfigurationError("the model has no Linear or Conv layer, nor another weight, to mask")
        if any(len(layer.trained) > 1 for layer in self.layers.values()):
            raise ConfigurationError(
                "masks of tasks cannot freeze a product of two trained factors; they need model.reparam=powerprop"
            )
        self.weights: dict[str, MaskedWeight] = {name: layer.mask() for name, layer in self.layers.items()}
        self._exclude = exclude
        self.has_excluded = any(True for _ in self._excluded())
        self.uncovered = dict(self._find_uncovered())
        self._per_task = dict(self._make_per_task(unmasked, exclude))
        self._before: dict[str, Tensor] = {}
        self._frozen_phi: dict[str, tuple[Tensor, ...]] = {}
        self._is_restoring = False
        self.history: list[LayerCapacity] = []

    def _make_per_task(
        self, unmasked: Unmasked, exclude: tuple[type[nn.Module], ...]
    ) -> Iterator[tuple[str, tuple[nn.Module, str, PerTaskTensor]]]:
        for name, module in named_modules_outside(self.model, exclude):
            for tensor in getattr(module, "parametrizations", {}):  # of an allocator before this one
                kept = find_parametrization(module, tensor, PerTaskTensor)
                if kept is not None:
                    yield f"{name}.{tensor}".lstrip("."), (module, tensor, kept)
            tensors: list[str] = []
            if unmasked == "per_task":
                tensors += [key for key, value in module.named_parameters(recurse=False) if value.requires_grad]
            if isinstance(module, _NormBase):
                tensors += [key for key, _ in module.named_buffers(recurse=False) if key != "num_batches_tracked"]
            for tensor in tensors:
                if not parametrize.is_parametrized(module, tensor):
                    per_task = PerTaskTensor(getattr(module, tensor))
                    add_parametrization(module, tensor, per_task)
                    yield f"{name}.{tensor}".lstrip("."), (module, tensor, per_task)

    def _find_uncovered(self) -> Iterator[tuple[str, int]]:
        excluded = {id(value) for module in self._excluded() for value in module.parameters()}
        for name, value in self._unmasked():
            if id(value) not in excluded and value.dim() > 1:
                yield _readable(name), value.numel()

    def _excluded(self) -> Iterator[nn.Module]:
        return (module for module in self.model.modules() if isinstance(module, self._exclude))

    @property
    def coverage(self) -> float:
        """Share of the trained weights that masks cover, from 0 to 1; vectors, such as biases, are not counted."""
        masked = sum(weight.owner.numel() for weight in self.weights.values())
        return masked / (masked + sum(self.uncovered.values()))

    @property
    def tasks(self) -> int:
        """Number of finished tasks."""
        return next(iter(self.weights.values())).tasks

    @property
    def labels(self) -> list[int]:
        """The label of each finished task."""
        return next(iter(self.weights.values())).labels.tolist()

    def phi(self, name: str) -> Tensor:
        """Return the trained parameter ``phi`` of a masked layer."""
        layer = self.layers[name]
        return original(layer.module, layer.tensor)

    def theta(self, name: str) -> Tensor:
        """Return the weight ``theta`` of a masked layer, with no mask applied."""
        return self.weights[name].theta(self.phi(name))

    def begin_task(self, generator: torch.Generator | None) -> None:
        """Start the next task: re-initialise the free weights (except for the first task), remember the frozen ones.

        Args:
            generator: of the new values; None leaves the free weights as they are.

        Raises:
            ConfigurationError: if a masked layer was replaced, or something else computes its weight now.
        """
        self.check_layers()
        select_task(self.model, self.tasks)
        if any(weight.is_loaded for weight in self.weights.values()):
            self.freeze(list(self._shared_unmasked()))
        self._is_restoring = True
        for name, weight in self.weights.items():
            phi = self.phi(name)
            if weight.tasks and generator is not None:
                weight.reinitialize_free(phi, generator)
            weight.set_training_view(None)
            frozen = weight.frozen
            if frozen.any():
                self._hold(name, *held(phi.detach(), frozen))
            else:
                self._frozen_phi.pop(name, None)
        self._before = {name: value.detach().clone() for name, value in self._unmasked()}

    def _hold(self, name: str, *values: Tensor) -> None:
        """Remember how frozen weights are restored, in the same place for all tasks, as recorded steps need it."""
        before = self._frozen_phi.get(name)
        if before is None or [_kind(each) for each in before] != [_kind(each) for each in values]:
            self._frozen_phi[name] = values
        else:
            torch._foreach_copy_(before, values)

    def check_layers(self) -> None:
        """Make sure that the masked weights are still those of the model.

        Raises:
            ConfigurationError: if a masked layer was replaced, or something else computes its weight now.
        """
        now = {id(layer.module) for layer in maskable_weights(self.model, self._exclude).values()}
        for name, layer in self.layers.items():
            # Avalanche's IncrementalClassifier, for example, replaces its layer when there are new classes.
            if id(layer.module) not in now:
                raise ConfigurationError(
                    f"layer {name} was replaced since masking began; give it all its outputs from the start"
                )

    def restore_frozen(self) -> None:
        """Restore the frozen weights bit for bit: momentum and weight decay move a weight even if its gradient is 0."""
        for name, values in self._frozen_phi.items() if self._is_restoring else ():
            overwrite_(self.phi(name).detach(), *values)

    def restored_tensors(self) -> list[Tensor]:
        """Return the tensors that :meth:`restore_frozen` works on, the weights apart."""
        return [each for values in self._frozen_phi.values() for each in values] if self._is_restoring else []

    def frozen_values(self, name: str) -> tuple[Tensor, ...]:
        """Return what :meth:`restore_frozen` restores a layer with (see :func:`~cl_powerprop.sparsity.bits.held`)."""
        if self._is_restoring and name in self._frozen_phi:
            return self._frozen_phi[name]
        phi = self.phi(name).detach()
        return held(phi, torch.zeros_like(phi, dtype=torch.bool))

    def propose(self, masks: Mapping[str, Tensor | None]) -> None:
        """Use and train only the weights in ``masks`` from now on: boolean, by layer name, shaped like the weights.

        None stands for all weights of a layer.
        """
        for name, weight in self.weights.items():
            weight.set_training_view(masks[name])

    def hide_frozen(self) -> None:
        """Use and train the free weights alone; a layer without any stays visible, for a signal must pass it."""
        free = {name: ~weight.frozen for name, weight in self.weights.items()}
        self.propose({name: mask if mask.any() else ~mask for name, mask in free.items()})

    def see_everything(self) -> None:
        """Undo :meth:`propose`."""
        for weight in self.weights.values():
            weight.set_training_view(None)

    def end_task(self, label: int | None = None) -> list[LayerCapacity]:
        """Assign the proposed masks to the task (all weights, if none were proposed) and freeze the weights in them.

        Args:
            label: what the task is called; kept with its masks in the model's state. None is its index.

        Returns:
            One row per masked layer, and one per dense tensor that this task trained (head, bias, norm) or of which it
            keeps its own values (statistics of a norm layer).
        """
        self.restore_frozen()
        task = self.tasks
        label = task if label is None else label
        rows = [self._allocate(task, label, name, weight) for name, weight in self.weights.items()]
        for module, tensor, per_task in self._per_task.values():
            per_task.store(original(module, tensor))
        dense = list(self._freeze_trained())
        kept = ((name, original(module, tensor)) for name, (module, tensor, _) in self._per_task.items())
        dense += [(name, value) for name, value in kept if not isinstance(value, nn.Parameter)]
        rows += [
            LayerCapacity(task, name, "dense", value.numel(), value.numel(), value.numel(), 0) for name, value in dense
        ]
        self._is_restoring = False
        self.history += rows
        return rows

    def _allocate(self, task: int, label: int, name: str, weight: MaskedWeight) -> LayerCapacity:
        mask = weight.training_view
        if mask is None:
            mask = torch.ones_like(weight.frozen)
        owners = weight.owner[mask]
        reused = torch.bincount(owners[owners >= 0].int(), minlength=task).tolist()
        weight.allocate(mask, label)
        size, kept = mask.numel(), len(owners)
        free = size - int(weight.frozen.sum())
        return LayerCapacity(task, name, "masked", size, kept, kept - sum(reused), free, tuple(reused))

    def _unmasked(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield (name, parameter) of the trainable parameters that no mask covers."""
        masked = {id(self.phi(name)) for name in self.layers}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and id(parameter) not in masked:
                yield name, parameter

    @property
    def frozen_parameters(self) -> list[str]:
        """Names of the parameters without masks that belong to finished tasks and are no longer trained."""
        return [name for name, parameter in self.model.named_parameters() if not parameter.requires_grad]

    def freeze(self, names: Iterable[str]) -> None:
        """Freeze parameters without masks: a state dict does not hold `requires_grad`.

        Args:
            names: :attr:`frozen_parameters` of the allocator whose masks were loaded.
        """
        parameters = dict(self.model.named_parameters())
        for name in names:
            if name in parameters:
                parameters[name].requires_grad_(False)
        for weight in self.weights.values():
            weight.is_loaded = False

    def _shared_unmasked(self) -> Iterator[str]:
        """Return the parameters without masks that all tasks share: what must be frozen if nothing else is known."""
        kept = {id(original(module, tensor)) for module, tensor, _ in self._per_task.values()}
        kept |= {id(value) for module in self._excluded() for value in module.parameters()}
        return (name for name, value in self._unmasked() if id(value) not in kept)

    def _freeze_trained(self) -> Iterator[tuple[str, Tensor]]:
        """Freeze and yield the unmasked parameters that this task has changed; per-task ones stay trainable."""
        per_task = {id(original(module, tensor)) for module, tensor, _ in self._per_task.values()}
        trained = self.trained_unmasked()
        for name, parameter in list(self._unmasked()):
            if name not in trained:
                continue
            if id(parameter) not in per_task:
                parameter.requires_grad_(False)
                parameter.grad = None  # optimizers skip a parameter without a gradient, and do not decay it either
            yield _readable(name), parameter

    def trained_unmasked(self) -> list[str]:
        """Return the names of the parameters without masks that were trained since :meth:`begin_task`."""
        return [name for name, value in self._unmasked() if self._is_trained(name, value)]

    def _is_trained(self, name: str, parameter: nn.Parameter) -> bool:
        before = self._before.get(name)
        return before is None or parameter.grad is not None or not torch.equal(before, parameter)

    def note_trained(self, names: Iterable[str]) -> None:
        """Note that some parameters without masks were trained before, in a process that began the same task."""
        for name in names:
            self._before.pop(name, None)

    @property
    def capacity_used(self) -> float:
        """Share of all maskable weights that at least one task uses, from 0 to 1."""
        held = sum(int(weight.frozen.sum()) for weight in self.weights.values())
        return held / sum(weight.owner.numel() for weight in self.weights.values())

    def overlaps(self) -> Tensor:
        """Return int64 ``[tasks, tasks]`` on the CPU: the number of weights that are in the masks of both tasks."""
        total = torch.zeros(self.tasks, self.tasks, dtype=torch.int64)
        for weight in self.weights.values():
            for part in weight.masks.split(_BYTES_AT_A_TIME, dim=1):
                bits = unpack(part.flatten(), torch.Size((self.tasks, 8 * part.shape[1]))).float()
                total += (bits @ bits.T).long().cpu()  # exact in float32: counts stay far below 2**24
        return total

    @property
    def mask_bits(self) -> int:
        """Size of the stored masks, in bits."""
        return 8 * sum(weight.masks.numel() for weight in self.weights.values())


def restore_together(
    allocators: Sequence[MaskAllocator], stacked: Callable[[Tensor], Tensor], hold: Hold
) -> Callable[[], None]:
    """Return what does for several networks at once what :meth:`MaskAllocator.restore_frozen` does for one.

    Args:
        allocators: of networks of one form.
        stacked: returns the tensor ``[networks, *weight]`` that is trained in place of a weight of the first one.
        hold: keeps the frozen weights.
    """
    frozen = []
    for name in allocators[0].weights:
        if any(bool(each.weights[name].tasks) for each in allocators):
            frees, values = zip(*(each.frozen_values(name) for each in allocators), strict=True)
            weight = stacked(allocators[0].phi(name)).detach()
            frozen.append(
                (weight, hold(f"{name}/free", torch.stack(frees)), hold(f"{name}/frozen", torch.stack(values)))
            )

    def restore() -> None:
        for each in frozen:
            overwrite_(*each)

    return restore


def _kind(tensor: Tensor) -> tuple[torch.dtype, torch.device]:
    return tensor.dtype, tensor.device


def _readable(name: str) -> str:
    """Return the name that a parametrised parameter had before."""
    return name.replace("parametrizations.", "").removesuffix(".original")
