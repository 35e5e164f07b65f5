"""SupSup: a mask for each task over random weights that are never trained.

Wortsman et al., "Supermasks in Superposition", NeurIPS 2020, arXiv:2006.14769, section 3.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from cl_powerprop.errors import check_choice
from cl_powerprop.limits import FIXED_WEIGHTS
from cl_powerprop.plugins.learned_scores import LearnedScores
from cl_powerprop.plugins.masking import MaskingPlugin
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity.allocator import Unmasked


class SupSupPlugin(MaskingPlugin):
    """Learns a score for each weight, whose top share in each layer is the task's mask; the weights stay as drawn.

    Every task draws its scores anew, and may use any weight. Parameters without masks are trained: heads of single
    tasks, biases and norms.

    Args:
        density: share of each layer's weights in a mask, in (0, 1].
        score_lr: learning rate of the scores, times the optimizer's.
        weights: "signed_constant", of one magnitude and random sign, or "kaiming_normal". Both have the variance of
            Kaiming initialisation for ReLU, for as many inputs as a mask keeps: ``2 / (fan_in * density)``.
        unmasked: see :class:`MaskingPlugin`. Nothing is retrained.
        seed: the weights are drawn from it, and the scores of task k from (seed, k).

    Raises:
        ConfigurationError: for a value outside its range.
    """

    reinitializes = False

    def __init__(
        self,
        density: float = 0.5,
        score_lr: float = 1.0,
        weights: Literal["signed_constant", "kaiming_normal"] = "signed_constant",
        unmasked: Unmasked = "frozen",
        seed: int = 0,
    ) -> None:
        super().__init__(0, unmasked, seed)
        check_choice("strategy.weights", weights, FIXED_WEIGHTS)
        self.weights = weights
        self.learned: LearnedScores = LearnedScores(density, score_lr, reset=True, seed=seed)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"weights": self.weights}

    def prepare_task(self, strategy: Any) -> None:
        """Draw the weights before the first task, and leave them out of training."""
        draws = None if self.allocator.tasks else generator(self.seed, "fixed weights")
        for name in self.allocator.weights:
            if draws is not None:
                self._draw(name, draws)
            self.allocator.phi(name).requires_grad_(False)

    @torch.no_grad()
    def _draw(self, name: str, draws: torch.Generator) -> None:
        weight, phi = self.allocator.weights[name], self.allocator.phi(name)
        fan_in = self.allocator.layers[name].by_unit(phi).shape[1]
        normal = torch.randn(phi.shape, generator=draws).to(phi)
        values = normal if self.weights == "kaiming_normal" else normal.sign()
        weight.place(phi, torch.ones_like(weight.frozen), values * math.sqrt(2.0 / (fan_in * self.learned.density)))

    def choose_masks(self, strategy: Any) -> dict[str, Tensor]:
        return self.learned.masks()
