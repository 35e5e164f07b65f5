"""Elastic weight consolidation: weights that mattered to earlier tasks are held back.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017, arXiv:1612.00796; the online
form is that of Schwarz et al., "Progress & Compress", ICML 2018. Avalanche's implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.strategies.base import Context, Strategy, StrategyConfig, register_strategy

if TYPE_CHECKING:
    from avalanche.core import BasePlugin

MODES = ("online", "separate")


@dataclass(kw_only=True)
class EWCConfig(StrategyConfig):
    """`strategy=ewc`."""

    penalty: float
    mode: str
    decay: float

    def check(self, epochs: int) -> None:
        check_choice("strategy.mode", self.mode, MODES)
        for option, value in (("penalty", self.penalty), ("decay", self.decay)):
            if not 0.0 <= value < float("inf"):
                raise ConfigurationError(f"strategy.{option} must be at least 0, not {value}")


@register_strategy("ewc", EWCConfig)
class EWC(Strategy):
    """Adds a quadratic penalty to the loss, weighted by the diagonal of the Fisher information of earlier tasks."""

    resumable = False  # Avalanche's plugin gives no state
    config: EWCConfig

    def plugins(self, context: Context) -> list[BasePlugin]:
        from avalanche.training.plugins import EWCPlugin

        config = self.config
        decay = config.decay if config.mode == "online" else None
        return [EWCPlugin(config.penalty, config.mode, decay), *super().plugins(context)]
