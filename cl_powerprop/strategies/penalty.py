"""What strategies share that pull weights back to their values of earlier tasks, by importances of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import at_least
from cl_powerprop.strategies.base import Context, Strategy, StrategyConfig, Summary

if TYPE_CHECKING:
    from avalanche.core import BasePlugin
    from torch import nn

    from cl_powerprop.plugins.quadratic_penalty import QuadraticPenalty


@dataclass(kw_only=True)
class PenaltyConfig(StrategyConfig):
    """What strategies with a penalty have.

    Attributes:
        penalty: its weight in the loss.
    """

    penalty: float

    def check(self, epochs: int) -> None:
        at_least("strategy.penalty", self.penalty, 0)


class PenaltyStrategy(Strategy):
    """Adds a quadratic penalty to the loss; a derived strategy makes the plugin that finds the importances."""

    resumable = resumable_within_tasks = resumable_anywhere = True
    takes_sparsity = True
    clip_norm = 1.0  # the penalty's own gradient has no bound
    plugin: QuadraticPenalty

    @abstractmethod
    def make_plugin(self) -> QuadraticPenalty:
        """Return the strategy's own plugin."""

    def plugins(self, context: Context) -> list[BasePlugin]:
        self.plugin = self.make_plugin()
        return [self.plugin, *super().plugins(context)]

    def summary(self, model: nn.Module) -> Summary:
        return replace(super().summary(model), importance_bits=self.plugin.bits)

    def state_dict(self) -> dict[str, Any]:
        return {**self.plugin.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        self.plugin.load_state_dict(state, model)
