"""Experience replay (ER): samples of earlier tasks are kept, and some of them trained on in each step.

Chaudhry et al., "On tiny episodic memories in continual learning", 2019, arXiv:1902.10486, with reservoir sampling;
Avalanche's ``ReplayPlugin``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cl_powerprop.strategies.base import Context, register_strategy
from cl_powerprop.strategies.memory import MemoryStrategy, ReplayConfig

if TYPE_CHECKING:
    from avalanche.core import BasePlugin


@register_strategy("replay", ReplayConfig)
class Replay(MemoryStrategy):
    """Trains each batch together with a random one of the memory."""

    config: ReplayConfig

    def plugins(self, context: Context) -> list[BasePlugin]:
        from cl_powerprop.plugins.replay import ReplayPlugin
        from cl_powerprop.plugins.task_selection import MixedTaskSelection

        return [ReplayPlugin(self.make_memory(context), self.config.mem_batch), MixedTaskSelection()]
