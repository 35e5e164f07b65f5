"""Memory Aware Synapses in Avalanche's events, with the numbers of Avalanche's ``MASPlugin``, on whole batches."""

from typing import Any

import torch
from torch import Tensor

from cl_powerprop.plugins.quadratic_penalty import Named, QuadraticPenalty, zeros
from cl_powerprop.training.loaders import statistics_batches


class MemoryAwareSynapses(QuadraticPenalty):
    """Importances by how much the outputs' squared norm changes with each weight (Aljundi et al. 2018, section 4).

    As in Avalanche, that is the absolute value of each batch's mean gradient, and the mean over batches.

    Args:
        strength: factor of the penalty.
        alpha: share of the old importances when a task is added; the new ones have the rest.
    """

    def __init__(self, strength: float, alpha: float) -> None:
        super().__init__(strength)
        self.alpha = alpha

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Measure the importances of the task, and add them to those before."""
        new, old = self._measure(strategy), self.importances
        self.importances = {name: old[name].lerp(new[name], 1.0 - self.alpha) for name in new} if old else new
        self.anchors = self.weights()

    def _measure(self, strategy: Any) -> Named:
        model, batches = strategy.model, 0
        parameters: list[Tensor] = list(self._parameters.values())
        sums = zeros(self._parameters)
        was_training = model.training
        model.eval()
        dataset, task = strategy.experience.dataset, strategy.experience.task_label
        for batch in statistics_batches(dataset, task, strategy.train_mb_size, strategy.device, join_lone=False):
            norm = model(batch[0]).square().sum(1).mean()
            gradients = torch.autograd.grad(norm, parameters, allow_unused=True)
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:  # the head of another task has none
                    total += gradient.abs()
            batches += 1
        model.train(was_training)
        return {name: total / batches for name, total in sums.items()}
