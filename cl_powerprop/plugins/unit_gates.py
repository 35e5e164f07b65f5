"""Gates of hidden units, by which HAT learns its masks: a task's attention over the units of each layer."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd, _MaxPoolNd
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.networks.classifier import Classifier
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.plugins.learned_masks import LearnedMasks
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator
from cl_powerprop.sparsity.maskable import Maskable
from cl_powerprop.sparsity.powerprop import SparseWeightFunction

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BY_UNIT = (  # what computes each unit from itself alone, and pooling or flattening
    *(nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU, nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d),
    *(_BatchNorm, _MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd),
)
_LARGEST_EXPONENT = 50.0  # of the hyperbolic cosines, as in the published code
_LARGEST_EMBEDDING = 6.0  # the same


class Gate:
    """The gate of each unit of a layer, ``sigmoid(scale * embedding)``.

    Args:
        units: how many the layer has.
        scale: a scalar that all gates share, and that is changed in place.
        device: of the embedding.
    """

    def __init__(self, units: int, scale: Tensor, device: torch.device) -> None:
        self.embedding = nn.Parameter(torch.zeros(units, device=device))
        self._scale = scale

    @property
    def value(self) -> Tensor:
        """The gates, ``[units]``, from 0 to 1."""
        return torch.sigmoid(self._scale * self.embedding)

    @property
    def used(self) -> Tensor:
        """Boolean, ``[units]``: the gates that are open at a large scale; the one nearest to it if none is.

        Where several are as near, it is the first.
        """
        used = self.embedding.detach() > 0.0
        used[self.embedding.detach().argmax()] = True
        return used


class GatedWeight:
    """Computes a weight whose inputs come from gated units.

    Args:
        gate: of these units; None for inputs that have no gate.
    """

    def __init__(self, gate: Gate | None) -> None:
        self._gate = gate

    def weight(self, phi: Tensor, alpha: float, gate: Tensor | None, theta_gradient: bool) -> Tensor:
        """Return ``theta`` times the gates of its inputs: the layer then computes what it would for gated inputs."""
        theta: Tensor = SparseWeightFunction.apply(phi, alpha, None, gate, theta_gradient)
        return theta if self._gate is None else theta * by_input(self._gate.value, phi)

    def shown(self, phi: Tensor) -> Tensor:
        """Return which weights have inputs of a unit in use, boolean, such that it can be combined with ``phi``."""
        used = torch.ones(1, 1, dtype=torch.bool, device=phi.device)
        return used if self._gate is None else by_input(self._gate.used, phi)


def by_input(values: Tensor, weight: Tensor) -> Tensor:
    """Return values of units such that they can be multiplied with the weight of the layer that comes next.

    Args:
        values: ``[units]``.
        weight: ``[outputs, inputs, ...]``; flattening may have made several inputs of each unit.
    """
    values = values.repeat_interleave(weight.shape[1] // len(values))
    return values.view(1, -1, *[1] * (weight.dim() - 2))


class UnitGates(LearnedMasks):
    """Gates of all hidden units of a network whose layers come one after the other.

    Args:
        s_max: scale of the gates at the end of an epoch, at least 1.
        lr: learning rate of the embeddings, times the optimizer's.
        seed: the embeddings are drawn for task k from (seed, k).
    """

    def __init__(self, s_max: float, lr: float, seed: int) -> None:
        super().__init__(lr, reset=True)
        self.s_max = s_max
        self.seed = seed
        self.gates: dict[str, Gate] = {}
        self.layers: dict[str, GatedWeight] = {}
        self._scale: Tensor
        self._new: Tensor  # 1 for each unit that no earlier task uses, else 0
        self._of_head: tuple[TaskHeads, Gate] | None = None
        self._hook: RemovableHandle | None = None

    def settings(self) -> dict[str, Any]:
        return {"s_max": self.s_max, "gate_lr": self.lr}

    def cover(self, allocator: MaskAllocator) -> None:
        self.allocator = allocator
        device = next(iter(allocator.weights.values())).owner.device
        self._scale = torch.full((), self.s_max, device=device)
        feeding, of_head = feeding_layers(allocator.model, allocator.layers)
        gated = {*feeding.values(), of_head} - {None}
        sizes = {name: allocator.phi(name).shape[0] for name in feeding if name in gated}
        self.gates = {name: Gate(units, self._scale, device) for name, units in sizes.items()}
        self.layers = {name: GatedWeight(self.gates.get(before or "")) for name, before in feeding.items()}
        self.parameters = {name: gate.embedding for name, gate in self.gates.items()}
        if of_head is not None:
            self._of_head = list(_in_order(allocator.model))[-1], self.gates[of_head]  # type: ignore[assignment]

    def draw(self, task: int) -> None:
        draws = generator(self.seed, "embeddings", task)
        for gate in self.gates.values():
            gate.embedding.copy_(torch.randn(gate.embedding.shape, generator=draws))

    def attach(self) -> None:
        for name, layer in self.layers.items():
            self.allocator.weights[name].train_through(layer)
        if self._of_head is not None and self._hook is None:
            self._hook = self._of_head[0].register_forward_pre_hook(self._gate_head)

    @property
    def is_attached(self) -> bool:
        return all(self.allocator.weights[name].learned is layer for name, layer in self.layers.items())

    def join(self, optimizer: Optimizer) -> None:
        super().join(optimizer)
        device = next(iter(self.parameters.values())).device
        self._scale.data = self._scale.data.to(device)  # the gates share it

    def _gate_head(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Gate the inputs of the head of the task in training; in the heads of others, unused inputs have weight 0."""
        if not self.is_attached or self._of_head is None:
            return None
        gates = self._of_head[1].value
        return (inputs[0] * gates.repeat_interleave(inputs[0].shape[1] // len(gates)), *inputs[1:])

    def set_scale(self, done: float) -> None:
        """Set the scale for a step.

        Args:
            done: share of the epoch's other steps that came before, from 0 to 1.
        """
        self._scale.fill_(1.0 / self.s_max + (self.s_max - 1.0 / self.s_max) * done)

    def regulariser(self) -> Tensor:
        """Return the mean gate of the units that no earlier task uses (paper, eq. 6)."""
        gates = torch.cat([gate.value for gate in self.gates.values()])
        return (gates * self._new).sum() / self._new.sum().clamp(min=1.0)

    @property
    def tensors(self) -> list[Tensor]:
        """What steps read beside the parameters."""
        return [self._scale, self._new]

    def begin_task(self) -> None:
        # Units in use have weights in the mask of their task: from each unit in use before, or input.
        used = [self.allocator.weights[name].frozen.flatten(1).any(1) for name in self.gates]
        self._new = torch.cat(used).logical_not().float()
        super().begin_task()

    @torch.no_grad()
    def compensate(self) -> None:
        """Make gradients of the embeddings ``s_max`` times what they would be at a scale of 1 (paper, section 2.4)."""
        for gate in self.gates.values():
            gradient, embedding = gate.embedding.grad, gate.embedding
            if gradient is not None:
                exponent = (self._scale * embedding).clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
                gradient *= self.s_max / self._scale * (exponent.cosh() + 1.0) / (embedding.cosh() + 1.0)

    @torch.no_grad()
    def limit(self) -> None:
        """Keep the embeddings where gates still have a gradient."""
        for gate in self.gates.values():
            gate.embedding.clamp_(-_LARGEST_EMBEDDING, _LARGEST_EMBEDDING)

    def masks(self) -> dict[str, Tensor]:
        masks = {}
        for name, layer in self.layers.items():
            phi = self.allocator.phi(name)
            shown = layer.shown(phi).expand_as(phi)
            if name in self.gates:
                shown = shown & self.gates[name].used.view(-1, *[1] * (phi.dim() - 1))
            masks[name] = shown.clone()
        return masks

    @torch.no_grad()
    def close(self) -> None:
        """Cut the head of the task off from units that are not in use: they may be constant, but not 0."""
        if self._of_head is not None:
            heads, gate = self._of_head
            assert isinstance(heads.selected, int)
            head = heads.heads[heads.selected]
            assert isinstance(head, nn.Linear)
            head.weight.mul_(by_input(gate.used, head.weight))
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


def feeding_layers(model: nn.Module, weights: Mapping[str, Maskable]) -> tuple[dict[str, str | None], str | None]:
    """Return which layer has the units that are the inputs of another, by name, and which has those of per-task heads.

    Args:
        model: its layers must follow one another.
        weights: those that have masks.

    Returns:
        For each layer the one before it, None for the first; and the layer before the heads, None without such heads.

    Raises:
        ConfigurationError: if units cannot be told apart, because layers do not follow one another or something mixes
            the units between them; or if there is no hidden layer.
    """
    names = {id(weight.module): name for name, weight in weights.items()}
    feeding: dict[str, str | None] = {}
    before: str | None = None
    has_heads = False
    for module in _in_order(model):
        kind = type_before_parametrizations(module)
        has_heads = kind is TaskHeads
        if id(module) in names and kind in _LAYERS and getattr(module, "groups", 1) == 1:
            name = names[id(module)]
            feeding[name], before = before, name
        elif not (has_heads or isinstance(module, _BY_UNIT)):
            raise ConfigurationError(
                "gates of units need Linear and Conv layers one after the other, without groups and with nothing that "
                f"mixes units between them; {kind.__name__} is not possible (model.norm=batch and none are)"
            )
    hidden = len(feeding) - (not has_heads)
    if hidden < 1:
        raise ConfigurationError("gates of units need a hidden layer, and the network has none")
    return feeding, before if has_heads else None


def _in_order(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of a network one after the other; what is no sequence is yielded as a whole."""
    if isinstance(model, Classifier):
        yield from _in_order(model.features)
        yield model.output
    elif isinstance(model, nn.Sequential):
        for child in model:
            yield from _in_order(child)
    else:
        yield model
