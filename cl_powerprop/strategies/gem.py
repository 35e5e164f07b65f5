"""Gradient episodic memory (GEM): no step may raise the loss of samples that are kept of any earlier task.

Lopez-Paz & Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017, arXiv:1706.08840; Avalanche's
``GEMPlugin``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cl_powerprop.errors import ConfigurationError, at_least
from cl_powerprop.strategies.base import Context, register_strategy
from cl_powerprop.strategies.memory import MemoryConfig, MemoryStrategy

if TYPE_CHECKING:
    from avalanche.core import BasePlugin


@dataclass(kw_only=True)
class GEMConfig(MemoryConfig):
    """`strategy=gem`."""

    strength: float

    def check(self, epochs: int) -> None:
        super().check(epochs)
        at_least("strategy.strength", self.strength, 0)
        if find_spec("quadprog") is None:
            raise ConfigurationError("strategy=gem needs quadprog: pip install 'cl-powerprop[gem]'")


@register_strategy("gem", GEMConfig)
class GEM(MemoryStrategy):
    """Projects each gradient by those of the memory of each earlier task; a step costs as many passes."""

    samples_of_each_task = True
    clip_norm = 1.0  # as for naive: all weights go on changing in every task
    config: GEMConfig

    def plugins(self, context: Context) -> list[BasePlugin]:
        from cl_powerprop.plugins.gem import GradientMemory

        return [GradientMemory(self.make_memory(context), self.config.strength), *super().plugins(context)]
