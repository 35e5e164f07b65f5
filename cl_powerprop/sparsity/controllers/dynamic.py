"""Sparse-to-sparse training: the network is sparse from the first step on, and may exchange its connections."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cl_powerprop.errors import check_choice
from cl_powerprop.limits import GROW_SCORES, check_drop_fraction, check_share
from cl_powerprop.sparsity.controllers.base import Controller
from cl_powerprop.sparsity.schedules import DECAYS, Updates
from cl_powerprop.sparsity.scores import Random, Score, make_score
from cl_powerprop.sparsity.sparse_weight import SparseWeight


class StaticRandom(Controller):
    """A random sparse network whose mask never changes.

    Args:
        rescale: divide the initial weights of each layer by the square root of its density, so that its outputs keep
            the variance that they have in the dense network (Evci et al., "Gradient Flow in Sparse Neural Networks and
            How Lottery Tickets Win", AAAI 2022). Powerpropagation needs it most: its gradients shrink with the outputs
            and with the weights themselves.
        options: of :class:`Controller`.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, rescale: bool = True, **options: Any) -> None:
        super().__init__(model, optimizer, **options)
        masks = self.highest(self.scores(Random(), "begin"), self.budgets(self.target))
        for each in self.weights:
            each.begin(masks[each.name])
            if rescale:
                each.place(each.active, each.theta * each.active.float().mean().rsqrt())


class DropAndGrow(StaticRandom):
    """Exchanges a share of the weights in use at every update: the lowest scores are dropped, and as many grown.

    Those just dropped may come back, as they were. Other grown weights start at 0 if alpha is 1, as in Evci et al.
    With Powerpropagation 0 is a point of rest, where no gradient arrives: there they start with the magnitude that a
    share ``grown_quantile`` of the layer's weights in use does not exceed, against the gradient if growth goes by it,
    else with a random sign. They then move as easily as weights that are worth keeping, and change the network's
    outputs no more than what was dropped.

    Args:
        stop: none of the updates is later than this step.
        start: none is earlier.
        every: steps from one update to the next.
        drop_fraction: share of the weights in use that the first update exchanges, in (0, 1).
        decay: how that share falls until ``stop``: "cosine", "linear" or "constant".
        drop: score by which weights are kept: "magnitude", "random", "gradient", "saliency", or an object.
        grow: score by which they are grown: "random", "gradient", or an object; hidden weights are 0, and the other
            scores say nothing of them.
        grown_quantile: see above, in [0, 1].
        options: of :class:`Controller`.

    Raises:
        ConfigurationError: for an impossible value.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        stop: int,
        start: int | None = None,
        every: int = 100,
        drop_fraction: float = 0.3,
        decay: str = "cosine",
        drop: str | Score = "magnitude",
        grow: str | Score = "gradient",
        grown_quantile: float = 0.1,
        **options: Any,
    ) -> None:
        start = min(every, stop) if start is None else start
        self.updates = Updates(start, stop, every)
        check_drop_fraction("drop_fraction", drop_fraction)
        check_share("grown_quantile", grown_quantile)
        check_choice("decay", decay, tuple(DECAYS))
        if isinstance(grow, str):
            check_choice("grow", grow, GROW_SCORES)
        self.drop_fraction = drop_fraction
        self.decay = DECAYS[decay]
        self.drop, self.grow = make_score(drop), make_score(grow)
        self.grown_quantile = grown_quantile
        super().__init__(model, optimizer, **options)
        if self.needs_gradient:
            self._watch(self.is_due(1))

    @property
    def needs_gradient(self) -> bool:
        return self.drop.needs_gradient or self.grow.needs_gradient

    def is_due(self, step: int) -> bool:
        return step in self.updates and self.decay(step, self.updates.stop) > 0.0  # else nothing is exchanged

    def update(self) -> None:
        fraction = self.drop_fraction * self.decay(self.steps, self.updates.stop)
        kept, budgets = {}, self.budgets(self.target)
        held = {each.name: each.active for each in self.weights}
        scores = self.scores(self.drop, "drop")
        keep = [(names, count - int(fraction * count)) for names, count in budgets]
        kept = self.highest({name: scores[name].masked_fill(~held[name], -torch.inf) for name in scores}, keep)
        scores = self.scores(self.grow, "grow")
        grow = [(names, int(fraction * count)) for names, count in budgets]
        grown = self.highest({name: scores[name].masked_fill(kept[name], -torch.inf) for name in scores}, grow)
        for layer, each in enumerate(self.weights):
            start = self._start(layer)
            new = grown[each.name] & ~each.active
            each.change(kept[each.name] | grown[each.name])
            each.place(new, start)

    def _start(self, layer: int) -> Tensor:
        """Return the value that each weight of a layer would be grown with; of the weight's shape."""
        each = self.weights[layer]
        if each.masked.alpha == 1.0:
            return torch.zeros_like(each.phi)
        if self.grow.needs_gradient:
            upwards = each.gradient <= 0.0
        else:
            upwards = torch.rand(each.shape, generator=self.draws("sign", layer)).to(each.active.device) < 0.5
        size = self._size(each)
        return torch.where(upwards, size, -size)

    def _size(self, grown: SparseWeight) -> Tensor:
        """Return with which magnitude weights of a layer grow; one that is empty has none of its own."""
        layers = [grown] if grown.active.any() else [each for each in self.weights if each.active.any()]
        return torch.stack([each.quantile(self.grown_quantile) for each in layers]).min()


class SparseEvolutionaryTraining(DropAndGrow):
    """SET: drops the smallest weights and grows others at random.

    Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired by
    network science", Nature Communications 2018. Unlike there, initial weights are divided by the square root of their
    layer's density; pass ``rescale=False`` for a model that is trained already.

    Args:
        options: of :class:`DropAndGrow`, with ``grow="random"``.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, grow: str | Score = "random", **options: Any) -> None:
        super().__init__(model, optimizer, grow=grow, **options)


class RigL(DropAndGrow):
    """RigL: drops the smallest weights and grows those with the largest gradient.

    Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020, arXiv:1911.11134. The gradient is that of
    the step's own batch, as if no mask were in use; unlike there, the optimizer makes its step as well. Initial weights
    are divided by the square root of their layer's density; pass ``rescale=False`` for a model that is trained already.

    The gradient adds up over all ``backward()`` calls since the last ``step()``, as accumulation needs it, also those
    that ``zero_grad()`` has cleared since. A gradient for another purpose, such as an adversarial example, must come
    from ``torch.autograd.grad(loss, inputs)``.

    Args:
        options: of :class:`DropAndGrow`.
    """
