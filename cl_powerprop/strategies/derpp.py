"""Dark experience replay (DER++): replay that also keeps the network's logits, and holds it to them.

Buzzega et al., "Dark experience for general continual learning", NeurIPS 2020, arXiv:2004.07211, equation 6;
Avalanche's ``DER``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import at_least
from cl_powerprop.strategies.base import Context, Summary, register_strategy
from cl_powerprop.strategies.memory import MemoryStrategy, ReplayConfig

if TYPE_CHECKING:
    from avalanche.core import BasePlugin
    from torch import nn

    from cl_powerprop.plugins.replay import DarkReplayPlugin


@dataclass(kw_only=True)
class DERppConfig(ReplayConfig):
    """`strategy=derpp`."""

    alpha: float
    beta: float

    def check(self, epochs: int) -> None:
        super().check(epochs)
        at_least("strategy.alpha", self.alpha, 0)
        at_least("strategy.beta", self.beta, 0)


@register_strategy("derpp", DERppConfig)
class DERpp(MemoryStrategy):
    """Adds the error of the logits, and the loss of the labels, of a random batch of the memory."""

    clip_norm = 1.0  # the error of the logits has no bound
    config: DERppConfig
    plugin: DarkReplayPlugin

    def plugins(self, context: Context) -> list[BasePlugin]:
        from cl_powerprop.plugins.replay import DarkReplayPlugin
        from cl_powerprop.plugins.task_selection import MixedTaskSelection

        config = self.config
        self.plugin = DarkReplayPlugin(self.make_memory(context), config.mem_batch, config.alpha, config.beta)
        return [self.plugin, MixedTaskSelection()]

    def summary(self, model: nn.Module) -> Summary:
        logits = 0 if self.plugin.logits is None else 32 * self.plugin.logits.numel()
        return replace(super().summary(model), buffer_bits=self.memory.bits + logits)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | ({} if self.plugin.logits is None else {"logits": self.plugin.logits})

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        super().load_state_dict(state, model)
        if len(self.memory):
            self.plugin.load_logits(state["logits"])
