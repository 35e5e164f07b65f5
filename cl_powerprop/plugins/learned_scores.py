"""Masks by scores: of all weights, of which a task uses the top share, or of frozen ones, which it may hide."""

from typing import Any

from torch import Tensor

from cl_powerprop.limits import check_scores
from cl_powerprop.plugins.learned_masks import LearnedMasks
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator
from cl_powerprop.sparsity.scored_mask import ScoredMask


class LearnedScores(LearnedMasks):
    """A score for each masked weight of a model: a task trains through the top share of each layer (edge-popup).

    Args:
        density: share of each layer's weights in the mask, in (0, 1].
        lr, reset: see :class:`LearnedMasks`.
        seed: they are drawn for task k from (seed, k), or once from (seed, 0).

    Raises:
        ConfigurationError: for a value outside its range.
    """

    def __init__(self, density: float, lr: float = 1.0, reset: bool = False, seed: int = 0) -> None:
        super().__init__(lr, reset)
        check_scores(density, lr)
        self.density = density
        self.seed = seed
        self.layers: dict[str, ScoredMask] = {}

    def settings(self) -> dict[str, Any]:
        return {"density": self.density, "score_lr": self.lr, "reset_scores": self.reset}

    def cover(self, allocator: MaskAllocator) -> None:
        self.allocator = allocator
        self.layers = {name: self._scored(allocator.phi(name)) for name in allocator.weights}
        self.parameters = {name: layer.scores for name, layer in self.layers.items()}

    def _scored(self, weight: Tensor) -> ScoredMask:
        return ScoredMask(weight, self.density)

    def draw(self, task: int) -> None:
        draws = generator(self.seed, "scores", task)
        for layer in self.layers.values():
            layer.draw(draws)

    def attach(self) -> None:
        for name, layer in self.layers.items():
            self.allocator.weights[name].train_through(layer)

    @property
    def is_attached(self) -> bool:
        return all(self.allocator.weights[name].learned is layer for name, layer in self.layers.items())

    def masks(self) -> dict[str, Tensor]:
        return {name: layer.mask() for name, layer in self.layers.items()}

    def magnitudes(self) -> dict[str, Tensor]:
        """Return the absolute values of the scores, by which weights rank, by layer name."""
        return {name: layer.scores.detach().abs() for name, layer in self.layers.items()}


class HidingScores(LearnedScores):
    """A score for each frozen weight: a task trains through all free weights, and the frozen ones with a score above 0.

    Each task begins with all frozen weights in use. The first task has none, and no scores.

    Args:
        lr: see :class:`LearnedMasks`.

    Raises:
        ConfigurationError: for a negative rate.
    """

    def __init__(self, lr: float = 1.0) -> None:
        super().__init__(1.0, lr, reset=True)

    def settings(self) -> dict[str, Any]:
        return {"score_lr": self.lr}

    def _scored(self, weight: Tensor) -> ScoredMask:
        return ScoredMask(weight, None)

    def attach(self) -> None:
        if self.allocator.tasks:
            super().attach()

    @property
    def is_attached(self) -> bool:
        return self.allocator.tasks > 0 and super().is_attached

    def masks(self) -> dict[str, Tensor]:
        weights = self.allocator.weights
        return {name: shown | ~weights[name].frozen for name, shown in super().masks().items()}
