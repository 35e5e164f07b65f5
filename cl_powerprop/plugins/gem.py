"""Gradient Episodic Memory in Avalanche's events."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl_powerprop.plugins.agem import current_gradients, gradients_of
from cl_powerprop.plugins.memory import Memory, MemoryPlugin
from cl_powerprop.plugins.quadratic_penalty import trained_parameters


class GradientMemory(MemoryPlugin):
    """Lets no step raise the loss of any earlier task's memory, to first order (Lopez-Paz & Ranzato 2017, equation 11).

    Each step computes the gradient of each earlier task's whole memory, as in Avalanche's ``GEMPlugin``. Parameters
    that the task itself does not train, such as earlier heads, take part.

    Args:
        memory: see :class:`MemoryPlugin`.
        strength: least share of each memory's gradient in a projected one: above 0, earlier tasks gain (``gamma``).
    """

    def __init__(self, memory: Memory, strength: float) -> None:
        super().__init__(memory)
        self.strength = strength

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Look up the parameters."""
        self._parameters = trained_parameters(strategy.model)

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Draw nothing: each step takes all of the memory, not augmented."""

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Choose nothing."""

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Compute the gradient of each earlier task's loss, ``[tasks, parameters]``."""
        memory = self.memory
        if memory.images is None:
            return
        sizes = memory.sizes
        parts = zip(*(each.split(sizes) for each in (memory.images, memory.labels, memory.tasks)), strict=True)
        rows = [gradients_of(strategy, list(batch), self._parameters) for batch in parts]
        self._references = torch.stack([torch.cat([each.flatten() for each in row]) for row in rows])

    @torch.no_grad()
    def after_backward(self, strategy: Any, **_: Any) -> None:
        """Project the gradient, if it would raise the loss of any earlier task."""
        if self.memory.images is None:
            return
        gradients = current_gradients(self._parameters)
        gradient = torch.cat([each.flatten() for each in gradients])
        products = self._references @ gradient
        if not bool((products < 0).any()):
            return
        projected = gradient + _shares(self._references, products, self.strength) @ self._references
        parts = projected.split([each.numel() for each in gradients])
        torch._foreach_copy_(gradients, [part.view_as(each) for part, each in zip(parts, gradients, strict=True)])


def _shares(references: Tensor, products: Tensor, strength: float) -> Tensor:
    """Return how much of each reference the projected gradient has: the dual of equation 11, by quadprog."""
    import quadprog

    squares = (references @ references.T).double().cpu().numpy()
    count = len(squares)
    squares = 0.5 * (squares + squares.T) + np.eye(count) * 1e-3  # as published: the solver needs it to be definite
    bound = np.full(count, strength)
    shares = quadprog.solve_qp(squares, -products.double().cpu().numpy(), np.eye(count), bound)[0]
    return torch.from_numpy(shares).to(references)
