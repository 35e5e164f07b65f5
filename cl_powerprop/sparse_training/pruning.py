"""Pruning while or after a dense network trains: one_shot, iterative and gradual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.limits import GRADIENT_SCORES, SCORES, check_sparsity
from cl_powerprop.sparse_training.base import SparseConfig, check_interval, check_point, register_sparsity, to_steps
from cl_powerprop.training.phase import Phase

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from cl_powerprop.sparsity import GradualPruning, IterativePruning, OneShotPruning
    from cl_powerprop.strategies.base import Strategy

_MOST_ROUNDS = 1000


@dataclass(kw_only=True)
class PruningConfig(SparseConfig):
    """Options of pruning.

    Attributes:
        score: by which weights are kept: "magnitude", "random", "gradient" or "saliency".
    """

    score: str

    def check(self) -> None:
        super().check()
        check_choice("sparsity.score", self.score, SCORES)


@dataclass(kw_only=True)
class OneShotConfig(PruningConfig):
    """Options of `sparsity=one_shot`.

    Attributes:
        stop: when it prunes: a share of the training up to 1, or a number of steps; what is left is retraining.
    """

    stop: float

    def check(self) -> None:
        super().check()
        check_point("sparsity.stop", self.stop)


@dataclass(kw_only=True)
class GradualConfig(PruningConfig):
    """Options of `sparsity=gradual`.

    Attributes:
        start, stop: of pruning: shares of the training up to 1, or numbers of steps.
        every: steps from one pruning to the next.
        initial: sparsity at the start.
    """

    start: float
    stop: float
    every: int
    initial: float

    def check(self) -> None:
        super().check()
        check_point("sparsity.start", self.start)
        check_point("sparsity.stop", self.stop)
        check_interval(self.every)
        check_sparsity("sparsity.initial", self.initial)
        if self.score in GRADIENT_SCORES and self.initial > 0.0 and self.start == 0.0:
            raise ConfigurationError(
                f"sparsity.score={self.score} needs a gradient, and there is none before the first step: give "
                "sparsity.start as a share of the training above 0"
            )
        if self.initial > self.target:
            raise ConfigurationError(
                f"sparsity.initial={self.initial:g} is above sparsity.target={self.target:g}; pruning grows nothing"
            )


@dataclass(kw_only=True)
class IterativeConfig(PruningConfig):
    """Options of `sparsity=iterative`.

    Attributes:
        rounds: how often it prunes; training is divided into one part more, each with its own learning-rate schedule.
        rewind_to: the step whose values the network returns to after each pruning; None to train on.
    """

    rounds: int
    rewind_to: int | None

    def check(self) -> None:
        super().check()
        if not 1 <= self.rounds <= _MOST_ROUNDS:
            raise ConfigurationError(f"sparsity.rounds must be from 1 to {_MOST_ROUNDS}, not {self.rounds}")
        if self.rewind_to is not None and self.rewind_to < 0:
            raise ConfigurationError(f"sparsity.rewind_to must be a step, from 0 on, or null, not {self.rewind_to}")

    def check_strategy(self, name: str, strategy: Strategy, n_tasks: int) -> None:
        super().check_strategy(name, strategy, n_tasks)
        if n_tasks > 1:
            raise ConfigurationError(
                f"sparsity=iterative trains one task several times over, and there are {n_tasks}; use "
                "benchmark=single, or sparsity=gradual over a sequence"
            )

    def phases(self, phases: list[Phase]) -> list[Phase]:
        parts = self.rounds + 1
        return [Phase(phase.epochs / parts, phase.scale) for phase in phases for _ in range(parts)]


@register_sparsity("one_shot", OneShotConfig)
def one_shot(model: nn.Module, optimizer: Optimizer, config: OneShotConfig, *, steps: int, seed: int) -> OneShotPruning:
    """Prune a trained network once."""
    from cl_powerprop.sparsity import OneShotPruning

    at = max(1, to_steps("sparsity.stop", config.stop, steps))
    return OneShotPruning(model, optimizer, at=at, score=config.score, **config.shared(seed))


@register_sparsity("gradual", GradualConfig)
def gradual(model: nn.Module, optimizer: Optimizer, config: GradualConfig, *, steps: int, seed: int) -> GradualPruning:
    """Prune little by little while the network trains."""
    from cl_powerprop.sparsity import GradualPruning

    start, stop = (to_steps(f"sparsity.{name}", getattr(config, name), steps) for name in ("start", "stop"))
    if start > stop:
        raise ConfigurationError(f"sparsity.start={config.start:g} is after sparsity.stop={config.stop:g}")
    return GradualPruning(
        model,
        optimizer,
        start=start,
        stop=stop,
        every=config.every,
        initial=config.initial,
        score=config.score,
        **config.shared(seed),
    )


@register_sparsity("iterative", IterativeConfig)
def iterative(
    model: nn.Module, optimizer: Optimizer, config: IterativeConfig, *, steps: int, seed: int
) -> IterativePruning:
    """Train, prune and train again, for some rounds."""
    from cl_powerprop.sparsity import IterativePruning

    every = steps // (config.rounds + 1)
    if not every:
        raise ConfigurationError(
            f"sparsity.rounds={config.rounds} needs at least {config.rounds + 1} steps of training; there are {steps}"
        )
    return IterativePruning(
        model,
        optimizer,
        every=every,
        rounds=config.rounds,
        rewind_to=config.rewind_to,
        score=config.score,
        **config.shared(seed),
    )
