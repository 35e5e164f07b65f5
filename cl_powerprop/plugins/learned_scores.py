"""Scores that are trained with a task, by which its mask is learned: parameters of the optimizer, not of the model."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from cl_powerprop.limits import check_scores
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator
from cl_powerprop.sparsity.scored_mask import ScoredMask
from cl_powerprop.training.rates import hold_rates

_SCORES = "scores/"  # what the names of the scores begin with


class LearnedScores:
    """A score for each masked weight of a model. Tasks train through the top share of each layer by score.

    The optimizer has the scores in a parameter group of their own, without weight decay.

    Args:
        density: share of each layer's weights in the mask, in (0, 1].
        lr: learning rate of the scores, times the optimizer's.
        reset: draw them anew for each task; else they go on from one task to the next.
        seed: they are drawn for task k from (seed, k), or once from (seed, 0).

    Raises:
        ConfigurationError: for a value outside its range.
    """

    def __init__(self, density: float, lr: float = 1.0, reset: bool = False, seed: int = 0) -> None:
        check_scores(density, lr)
        self.density = density
        self.lr = lr
        self.reset = reset
        self.seed = seed
        self.layers: dict[str, ScoredMask] = {}
        self._allocator: MaskAllocator
        self._is_resumed = False  # the scores are those of the task that begins next

    def settings(self) -> dict[str, Any]:
        """Return the options that tell runs apart, as JSON values."""
        return {"density": self.density, "score_lr": self.lr, "reset_scores": self.reset}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The scores of all layers."""
        return [layer.scores for layer in self.layers.values()]

    @property
    def in_use(self) -> list[nn.Parameter]:
        """The scores that the task in training learns; empty once it has its masks."""
        weights = self._allocator.weights
        return [layer.scores for name, layer in self.layers.items() if weights[name].scored is layer]

    def cover(self, allocator: MaskAllocator) -> None:
        """Have scores for the weights of an allocator."""
        self._allocator = allocator
        self.layers = {name: ScoredMask(allocator.phi(name), self.density) for name in allocator.weights}

    def join(self, optimizer: Optimizer) -> None:
        """Give the scores to an optimizer, unless it has them."""
        known = {id(value) for group in optimizer.param_groups for value in group["params"]}
        if id(self.parameters[0]) in known:
            return
        for name, layer in self.layers.items():  # the model may have moved
            layer.scores.data = layer.scores.data.to(self._allocator.phi(name).device)
        rate = float(optimizer.param_groups[0]["lr"]) * self.lr
        optimizer.add_param_group({"params": self.parameters, "lr": rate, "weight_decay": 0.0})
        hold_rates(optimizer)

    def begin_task(self) -> None:
        """Train the task that has begun in the allocator through its scores, until masks are proposed."""
        task = self._allocator.tasks
        if (self.reset or task == 0) and not self._is_resumed:
            draws = generator(self.seed, "scores", task)
            for layer in self.layers.values():
                layer.draw(draws)
        self._is_resumed = False
        for name, layer in self.layers.items():
            self._allocator.weights[name].train_through_scores(layer)

    def masks(self) -> dict[str, Tensor]:
        """Return the top share of each layer by score: boolean, by layer name."""
        return {name: layer.mask() for name, layer in self.layers.items()}

    def magnitudes(self) -> dict[str, Tensor]:
        """Return the absolute values of the scores, by which weights rank, by layer name."""
        return {name: layer.scores.detach().abs() for name, layer in self.layers.items()}

    def state_dict(self, within_task: bool) -> dict[str, Tensor]:
        """Return the scores, if the task in training or the next one depends on them.

        Args:
            within_task: a task is in training.
        """
        if not self.layers or (not within_task and (self.reset or not self._allocator.tasks)):
            return {}
        return {f"{_SCORES}{name}": layer.scores.detach() for name, layer in self.layers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned, for the task that begins next."""
        for name, layer in self.layers.items():
            if _SCORES + name in state:
                layer.scores.data.copy_(state[_SCORES + name])
                self._is_resumed = True
