"""Memory aware synapses (MAS): weights are held back by how much the outputs change with them; no labels are needed.

Aljundi et al., "Memory aware synapses: learning what (not) to forget", ECCV 2018, arXiv:1711.09601; Avalanche's
``MASPlugin``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.strategies.base import register_strategy
from cl_powerprop.strategies.penalty import PenaltyConfig, PenaltyStrategy

if TYPE_CHECKING:
    from cl_powerprop.plugins.mas import MemoryAwareSynapses


@dataclass(kw_only=True)
class MASConfig(PenaltyConfig):
    """`strategy=mas`."""

    alpha: float

    def check(self, epochs: int) -> None:
        super().check(epochs)
        if not 0.0 <= self.alpha <= 1.0:
            raise ConfigurationError(f"strategy.alpha must be from 0 to 1, not {self.alpha}")


@register_strategy("mas", MASConfig)
class MAS(PenaltyStrategy):
    """Adds a quadratic penalty to the loss, weighted by the gradient of the outputs' squared norm."""

    config: MASConfig

    def make_plugin(self) -> MemoryAwareSynapses:
        from cl_powerprop.plugins.mas import MemoryAwareSynapses

        return MemoryAwareSynapses(self.config.penalty, self.config.alpha)
