"""How much each weight has lowered the loss, summed over steps: for Synaptic Intelligence and Riemannian Walk."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cl_powerprop.plugins.quadratic_penalty import Named, QuadraticPenalty, joined, taken, zeros


class PathIntegral(QuadraticPenalty):
    """A penalty whose importances come from ``-gradient * change`` of each weight, summed over the steps of a task.

    The gradient is that of the loss alone, without the penalty, and before it is clipped.

    Attributes:
        path: these sums.
    """

    def __init__(self, strength: float) -> None:
        super().__init__(strength)
        self.path: Named = {}
        self._before: Named = {}
        self._gradients: Named = {}
        self._moving: Sequence[str] = ()

    def before_training_exp(self, strategy: Any, **options: Any) -> None:
        """Begin the sums of a task at 0."""
        super().before_training_exp(strategy, **options)
        self.path, self._before, self._gradients = (zeros(self._parameters) for _ in range(3))

    def graph_tensors(self, strategy: Any) -> list[Tensor]:
        held = (*self.progress().values(), self._before, self._gradients)
        return [*self.tensors(), *(value for table in held for value in table.values())]

    @torch.no_grad()
    def after_backward(self, strategy: Any, **_: Any) -> None:
        """Keep the gradient, and where the weights are; then add the penalty."""
        self._moving = [name for name, value in self._parameters.items() if value.grad is not None]
        torch._foreach_copy_(self._of(self._before), self._weights())
        torch._foreach_copy_(self._of(self._gradients), self.gradients(self._moving))
        self.observe(self._moving)
        if self.importances:
            self.add_penalty(strategy, self._moving)

    @torch.no_grad()
    def after_update(self, strategy: Any, **_: Any) -> None:
        """Add what the step has lowered the loss by, to first order."""
        if self._moving:
            moved = torch._foreach_sub(self._of(self._before), self._weights())
            torch._foreach_addcmul_(self._of(self.path), self._of(self._gradients), moved)

    def observe(self, names: Sequence[str]) -> None:
        """See the gradients of a step, of some parameters; a derived plugin may make more of them."""

    def _of(self, table: Named) -> list[Tensor]:
        return [table[name] for name in self._moving]

    def _weights(self) -> list[Tensor]:
        return [self.weight(name) for name in self._moving]

    def progress(self) -> dict[str, Named]:
        """Return the tables that are summed within a task."""
        return {"path": self.path, "anchors": self.anchors}

    def task_progress(self) -> dict[str, Any]:
        """Return what was summed in the task."""
        return joined(self.progress())

    def load_task_progress(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`task_progress` returned.

        Raises:
            ValueError: if a tensor has not the shape of its parameter.
        """
        for table in self.progress():
            setattr(self, table, taken(state, table, self._model))
