"""Synaptic Intelligence in Avalanche's events. Avalanche's own finds importances of 0 on a CPU."""

from typing import Any

import torch

from cl_powerprop.plugins.path_integral import PathIntegral
from cl_powerprop.plugins.quadratic_penalty import zeros


class SynapticIntelligence(PathIntegral):
    """Importances by Zenke et al. 2017, equations 4 and 5: the path integral over the square of the whole change.

    Where a weight's changes have raised the loss in a task, the task adds 0. Avalanche's ``clip_to``, which bounds an
    importance by 0.001, is not taken over.

    Args:
        strength: factor of the penalty, ``c``.
        damping: what is added to the square of the change, ``xi``.
    """

    def __init__(self, strength: float, damping: float) -> None:
        super().__init__(strength)
        self.damping = damping

    def before_training_exp(self, strategy: Any, **options: Any) -> None:
        """Note where the task's weights begin."""
        super().before_training_exp(strategy, **options)
        self.anchors = self.weights()

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Add the task's importances."""
        importances = self.importances or zeros(self._parameters)
        for name in self._parameters:
            change = self.weight(name) - self.anchors[name]
            importances[name] += (self.path[name] / (change.square() + self.damping)).clamp(min=0.0)
        self.importances, self.anchors = importances, self.weights()
