"""Averaged gradient episodic memory (A-GEM): no step may raise the loss of samples that are kept of earlier tasks.

Chaudhry et al., "Efficient lifelong learning with A-GEM", ICLR 2019, arXiv:1812.00420; Avalanche's ``AGEMPlugin``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cl_powerprop.strategies.base import Context, register_strategy
from cl_powerprop.strategies.memory import MemoryStrategy, ReplayConfig

if TYPE_CHECKING:
    from avalanche.core import BasePlugin


@register_strategy("agem", ReplayConfig)
class AGEM(MemoryStrategy):
    """Projects each gradient by that of a random batch of the memory."""

    samples_of_each_task = True
    clip_norm = 1.0  # as for naive: all weights go on changing in every task
    config: ReplayConfig

    def plugins(self, context: Context) -> list[BasePlugin]:
        from cl_powerprop.plugins.agem import AveragedGradientMemory

        memory = self.make_memory(context)
        return [AveragedGradientMemory(memory, self.config.mem_batch), *super().plugins(context)]
