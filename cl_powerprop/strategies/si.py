"""Synaptic intelligence (SI): weights are held back by how much they have lowered the loss of earlier tasks.

Zenke et al., "Continual learning through synaptic intelligence", ICML 2017, arXiv:1703.04200; Avalanche's
``SynapticIntelligencePlugin``, whose importances are all 0 on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.errors import at_least
from cl_powerprop.strategies.base import register_strategy
from cl_powerprop.strategies.penalty import PenaltyConfig, PenaltyStrategy

if TYPE_CHECKING:
    from cl_powerprop.plugins.si import SynapticIntelligence


@dataclass(kw_only=True)
class SIConfig(PenaltyConfig):
    """`strategy=si`."""

    damping: float

    def check(self, epochs: int) -> None:
        super().check(epochs)
        at_least("strategy.damping", self.damping, 1e-12)


@register_strategy("si", SIConfig)
class SI(PenaltyStrategy):
    """Adds a quadratic penalty to the loss, weighted by the path integral of each weight."""

    config: SIConfig

    def make_plugin(self) -> SynapticIntelligence:
        from cl_powerprop.plugins.si import SynapticIntelligence

        return SynapticIntelligence(self.config.penalty, self.config.damping)
