"""Riemannian walk (RWalk): weights are held back by their Fisher information and by what they have lowered the loss by.

Chaudhry et al., "Riemannian walk for incremental learning", ECCV 2018, arXiv:1801.10112; Avalanche's ``RWalkPlugin``.
The samples that the paper also keeps are left out, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.errors import ConfigurationError, at_least
from cl_powerprop.strategies.base import register_strategy
from cl_powerprop.strategies.penalty import PenaltyConfig, PenaltyStrategy

if TYPE_CHECKING:
    from cl_powerprop.plugins.rwalk import RiemannianWalk


@dataclass(kw_only=True)
class RWalkConfig(PenaltyConfig):
    """`strategy=rwalk`."""

    rate: float
    interval: int

    def check(self, epochs: int) -> None:
        super().check(epochs)
        if not 0.0 < self.rate <= 1.0:
            raise ConfigurationError(f"strategy.rate must be above 0 and at most 1, not {self.rate}")
        at_least("strategy.interval", self.interval, 1)


@register_strategy("rwalk", RWalkConfig)
class RWalk(PenaltyStrategy):
    """Adds a quadratic penalty to the loss, weighted by a running Fisher information and a score of each weight."""

    config: RWalkConfig

    def make_plugin(self) -> RiemannianWalk:
        from cl_powerprop.plugins.rwalk import RiemannianWalk

        return RiemannianWalk(self.config.penalty, self.config.rate, self.config.interval)
