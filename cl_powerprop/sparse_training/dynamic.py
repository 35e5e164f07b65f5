"""Sparse from the first step on: static, set and rigl."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import check_choice
from cl_powerprop.limits import DECAYS, GROW_SCORES, SCORES, check_drop_fraction, check_share
from cl_powerprop.sparse_training.base import SparseConfig, check_interval, check_point, register_sparsity, to_steps

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from cl_powerprop.sparsity import RigL, SparseEvolutionaryTraining, StaticRandom

log = logging.getLogger("cl_powerprop")


@dataclass(kw_only=True)
class StaticConfig(SparseConfig):
    """Options of `sparsity=static`.

    Attributes:
        rescale: divide a layer's initial weights by the square root of its density.
    """

    rescale: bool


@dataclass(kw_only=True)
class DynamicConfig(StaticConfig):
    """Options of `sparsity=set` and `sparsity=rigl`.

    Attributes:
        drop_fraction: share of the weights in use that the first update exchanges.
        decay: how it falls until the stop: "cosine", "linear" or "constant".
        every: steps from one update to the next.
        stop: of the updates: a share of the training up to 1, or a number of steps.
        drop: score by which weights are kept: "magnitude", "random", "gradient" or "saliency".
        grow: score by which they are grown: "random" or "gradient".
        grown_quantile: with Powerpropagation, grown weights start with the magnitude that this share of the layer's
            weights in use does not exceed.
    """

    drop_fraction: float
    decay: str
    every: int
    stop: float
    drop: str
    grow: str
    grown_quantile: float

    def check(self) -> None:
        super().check()
        check_drop_fraction("sparsity.drop_fraction", self.drop_fraction)
        check_choice("sparsity.decay", self.decay, DECAYS)
        check_interval(self.every)
        check_point("sparsity.stop", self.stop)
        check_choice("sparsity.drop", self.drop, SCORES)
        check_choice("sparsity.grow", self.grow, GROW_SCORES)
        check_share("sparsity.grown_quantile", self.grown_quantile)

    def options(self, steps: int, seed: int) -> dict[str, Any]:
        """Return the arguments of the controller.

        Raises:
            ConfigurationError: if the stop is after the end of training.
        """
        stop = to_steps("sparsity.stop", self.stop, steps)
        if self.every >= stop:
            log.warning(
                f"sparsity.every={self.every} leaves no update before sparsity.stop, step {stop} of {steps}: the mask "
                "never changes; lower it"
            )
        return self.shared(seed) | {
            "drop_fraction": self.drop_fraction,
            "decay": self.decay,
            "every": self.every,
            "stop": stop,
            "drop": self.drop,
            "grow": self.grow,
            "grown_quantile": self.grown_quantile,
            "rescale": self.rescale,
        }


@register_sparsity("static", StaticConfig)
def static(model: nn.Module, optimizer: Optimizer, config: StaticConfig, *, steps: int, seed: int) -> StaticRandom:
    """Train a random sparse network whose mask never changes."""
    from cl_powerprop.sparsity import StaticRandom

    return StaticRandom(model, optimizer, rescale=config.rescale, **config.shared(seed))


@register_sparsity("set", DynamicConfig)
def sparse_evolutionary_training(
    model: nn.Module, optimizer: Optimizer, config: DynamicConfig, *, steps: int, seed: int
) -> SparseEvolutionaryTraining:
    """Exchange the smallest weights for random ones."""
    from cl_powerprop.sparsity import SparseEvolutionaryTraining

    return SparseEvolutionaryTraining(model, optimizer, **config.options(steps, seed))


@register_sparsity("rigl", DynamicConfig)
def rigl(model: nn.Module, optimizer: Optimizer, config: DynamicConfig, *, steps: int, seed: int) -> RigL:
    """Exchange the smallest weights for those with the largest gradient."""
    from cl_powerprop.sparsity import RigL

    return RigL(model, optimizer, **config.options(steps, seed))
