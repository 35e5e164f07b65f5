"""Riemannian Walk in Avalanche's events, by one backward pass a step where Avalanche's ``RWalkPlugin`` takes two."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cl_powerprop.plugins.path_integral import PathIntegral
from cl_powerprop.plugins.quadratic_penalty import Named, zeros


class RiemannianWalk(PathIntegral):
    """Importances from a running Fisher information, and from how much each weight has lowered the loss.

    A weight's score grows, every ``interval`` steps and at the end of a task, by what it has lowered the loss by since,
    over the distance that it has moved by the Fisher information (Chaudhry et al. 2018, equations 6 to 8). The two
    parts of an importance are each divided by their largest value.

    Args:
        strength: factor of the penalty.
        rate: share of the newest gradient's square in the running Fisher information.
        interval: steps.

    Attributes:
        fisher: the running Fisher information.
        scores: of the tasks so far.
    """

    counted = ("fisher", "scores")

    def __init__(self, strength: float, rate: float, interval: int) -> None:
        super().__init__(strength)
        self.rate = rate
        self.interval = interval
        self.fisher: Named = {}
        self.scores: Named = {}
        self.gained: Named = {}  # scores of the task
        self.since: Named = {}  # weights when the scores last grew

    def before_training_exp(self, strategy: Any, **options: Any) -> None:
        """Begin the task's scores at 0."""
        super().before_training_exp(strategy, **options)
        self.gained, self.since = zeros(self._parameters), self.weights()
        self.fisher = self.fisher or zeros(self._parameters)

    def observe(self, names: Sequence[str]) -> None:
        running = [self.fisher[name] for name in names]
        gradients = [self._gradients[name] for name in names]
        torch._foreach_mul_(running, 1.0 - self.rate)
        torch._foreach_addcmul_(running, gradients, gradients, self.rate)

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Let the scores grow, if it is time."""
        if (strategy.clock.train_exp_iterations + 1) % self.interval == 0:
            self._grow()

    @torch.no_grad()
    def _grow(self) -> None:
        for name in self._parameters:
            value = self.weight(name)
            moved = (value - self.since[name]).square()
            self.gained[name] += self.path[name] / (0.5 * self.fisher[name] * moved + torch.finfo(value.dtype).eps)
            self.path[name].zero_()
            self.since[name].copy_(value)

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Average the task's scores with those before, and make importances of both parts."""
        self._grow()  # by the steps since the last interval
        before, gained = self.scores, self.gained
        self.scores = {name: 0.5 * (before[name] + gained[name]) if before else gained[name] for name in gained}
        information, score = _largest(self.fisher), _largest(self.scores)
        self.importances = {
            name: self.fisher[name] / information + self.scores[name].clamp(min=0.0) / score for name in gained
        }
        self.anchors = self.weights()

    def tables(self) -> dict[str, Named]:
        return super().tables() | {"fisher": self.fisher, "scores": self.scores}

    def progress(self) -> dict[str, Named]:
        return {"path": self.path, "gained": self.gained, "since": self.since}


def _largest(table: Named) -> Tensor:
    """Return the largest value of all tensors, and above 0 in any case."""
    return torch.stack([value.max() for value in table.values()]).max().clamp(min=torch.finfo(torch.float32).tiny)
