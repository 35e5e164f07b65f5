"""Pruning: a dense network becomes sparse, at once or little by little."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity.controllers.base import Controller
from cl_powerprop.sparsity.schedules import Updates, check_steps, cubic, geometric
from cl_powerprop.sparsity.scores import Magnitude, Score, make_score


class Pruning(Controller):
    """Takes weights away, those with the lowest scores first; none comes back.

    Args:
        score: "magnitude", "random", "gradient", "saliency", or an object.
        options: of :class:`Controller`.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, score: str | Score = "magnitude", **options: Any):
        super().__init__(model, optimizer, **options)
        self.score = make_score(score)
        if self.needs_gradient:
            self._watch(self.is_due(1))

    @property
    def needs_gradient(self) -> bool:
        return self.score.needs_gradient

    def sparsity_at(self, step: int) -> float:
        """Return the sparsity to reach after a step."""
        return self.target

    def update(self) -> None:
        self.prune(self.sparsity_at(self.steps))

    def prune(self, sparsity: float) -> None:
        """Prune to a sparsity."""
        masks = self.select(self.score, sparsity)
        for each in self.weights:
            each.change(masks[each.name])

    def complete(self) -> None:
        if not self.fits(self.target):  # training ended before the last update
            self.score = Magnitude() if self.needs_gradient else self.score
            self.prune(self.target)


class OneShotPruning(Pruning):
    """Prunes once, after a given step or at the end of training.

    Args:
        at: the step; None for :meth:`finalize`, after which no training follows.
        options: of :class:`Pruning`.

    Raises:
        ConfigurationError: for a step below 1, or no step with a score that needs a gradient.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, at: int | None = None, **options: Any) -> None:
        if at is not None:
            check_steps(at=at)
            if at < 1:
                raise ConfigurationError(f"pruning must be at step 1 or later, not {at}")
        self.at = at
        super().__init__(model, optimizer, **options)
        if at is None and self.needs_gradient:
            raise ConfigurationError("a score that needs a gradient needs a step to prune at")

    def is_due(self, step: int) -> bool:
        return step == self.at


class GradualPruning(Pruning):
    """Gradual magnitude pruning: ever more weights are taken away while the model trains.

    Zhu & Gupta, "To prune, or not to prune", 2017, arXiv:1710.01878. The sparsity follows the cubic schedule, and the
    target is reached exactly at the last update.

    Args:
        stop: none of the updates is later than this step.
        start: the step of the first update; at 0, the model is pruned to ``initial`` at once.
        every: steps from one update to the next, at most those from ``start`` to ``stop``.
        initial: sparsity at the start.
        options: of :class:`Pruning`.

    Raises:
        ConfigurationError: for impossible steps, an initial sparsity above the target, or one at step 0 with a score
            that needs a gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        stop: int,
        start: int = 0,
        every: int = 100,
        initial: float = 0.0,
        **options: Any,
    ) -> None:
        check_steps(stop=stop, start=start, every=every)
        self.updates = Updates(start, stop, min(every, stop - start) if start < stop else every)
        self.initial = initial
        super().__init__(model, optimizer, **options)
        if not 0.0 <= initial <= self.target:
            raise ConfigurationError(f"initial must be from 0 to the sparsity, {self.target:g}, not {initial:g}")
        if self.is_due(0) and self.sparsity_at(0) > 0.0:
            if self.needs_gradient:
                raise ConfigurationError("a score that needs a gradient cannot prune at step 0; let start be 1 or more")
            self.update()

    def is_due(self, step: int) -> bool:
        return step in self.updates

    def sparsity_at(self, step: int) -> float:
        return cubic(step, self.updates.start, self.updates.last, self.target, self.initial)


class IterativePruning(Pruning):
    """Iterative magnitude pruning: train, prune, and train again, for some rounds.

    Han et al., "Learning both weights and connections", NeurIPS 2015; with rewinding, Frankle et al., "Linear mode
    connectivity and the lottery ticket hypothesis", ICML 2020. Each round keeps the same share of the weights.

    Args:
        rounds: how often it prunes.
        every: steps of training before each time; as many are to follow the last one.
        rewind_to: the step to whose values the kept weights, and all other parameters and buffers, return after each
            round, with an optimizer that has no state; None to train on from where they are.
        options: of :class:`Pruning`.

    Raises:
        ConfigurationError: for impossible numbers, or a step to rewind to that is not in the first round.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        every: int,
        rounds: int = 5,
        rewind_to: int | None = None,
        **options: Any,
    ) -> None:
        check_steps(every=every)
        if rounds < 1:
            raise ConfigurationError(f"rounds must be at least 1, not {rounds}")
        if rewind_to is not None and not 0 <= rewind_to < every:
            raise ConfigurationError(f"rewind_to must be a step of the first round, 0 to {every - 1}, not {rewind_to}")
        self.updates = Updates(every, every * rounds, every)
        self.rounds = rounds
        self.rewind_to = rewind_to
        self._model = model
        self._early: dict[str, Tensor] = {}
        super().__init__(model, optimizer, **options)
        self._keep_early()

    def is_due(self, step: int) -> bool:
        return step in self.updates

    def sparsity_at(self, step: int) -> float:
        return geometric(step // self.updates.every, self.rounds, self.target)

    def step(self) -> None:
        super().step()
        self._keep_early()

    def _values(self) -> dict[str, Tensor]:
        """Return the model's parameters and buffers, without masks."""
        masks = {id(value) for each in self.weights for value in each.masked.buffers()}
        values = [*self._model.named_parameters(), *self._model.named_buffers()]
        return {name: value.detach() for name, value in values if id(value) not in masks}

    def _keep_early(self) -> None:
        if self.steps == self.rewind_to:
            self._early = {name: value.clone() for name, value in self._values().items()}

    @torch.no_grad()
    def update(self) -> None:
        super().update()
        if self.rewind_to is None:
            return
        for name, value in self._values().items():
            value.copy_(self._early[name])
        self.optimizer.state.clear()
        for each in self.weights:
            each.change(each.active)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {f"early/{name}": value for name, value in self._early.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        device = self.weights[0].active.device
        early = {name: value for name, value in state.items() if name.startswith("early/")}
        self._early = {name.removeprefix("early/"): value.to(device) for name, value in early.items()}
