"""SupSup: masks by learned scores over random weights that are never trained (Wortsman et al., NeurIPS 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.limits import FIXED_WEIGHTS, check_scores
from cl_powerprop.strategies.base import Context, register_strategy
from cl_powerprop.strategies.masking import MaskingConfig, MaskingStrategy

if TYPE_CHECKING:
    from cl_powerprop.plugins import SupSupPlugin


@dataclass(kw_only=True)
class SupSupConfig(MaskingConfig):
    """`strategy=supsup`: the arguments of :class:`SupSupPlugin`."""

    density: float
    score_lr: float
    weights: str

    def settle(self, epochs: int) -> None:
        self.retrain_epochs = self.retraining

    def check(self, epochs: int) -> None:
        super().check(epochs)
        if self.retraining:
            raise ConfigurationError("strategy=supsup never trains its weights, so strategy.retrain_epochs must be 0")
        check_scores(self.density, self.score_lr)
        check_choice("strategy.weights", self.weights, FIXED_WEIGHTS)


@register_strategy("supsup", SupSupConfig)
class SupSup(MaskingStrategy):
    """:class:`SupSupPlugin`."""

    config: SupSupConfig

    def make_plugin(self, context: Context, **shared: Any) -> SupSupPlugin:
        from cl_powerprop.plugins import SupSupPlugin

        config = self.config
        del shared["retrain_epochs"]
        return SupSupPlugin(config.density, config.score_lr, config.weights, **shared)  # type: ignore[arg-type]
