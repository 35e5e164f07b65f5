"""Winning SubNetworks: masks by learned scores, weights of earlier masks frozen (Kang et al., ICML 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.limits import check_scores
from cl_powerprop.strategies.base import Context, register_strategy
from cl_powerprop.strategies.masking import MaskingConfig, MaskingStrategy

if TYPE_CHECKING:
    from cl_powerprop.plugins import WSNPlugin


@dataclass(kw_only=True)
class WSNConfig(MaskingConfig):
    """`strategy=wsn`: the arguments of :class:`WSNPlugin`."""

    density: float
    score_lr: float
    reset_scores: bool

    def check(self, epochs: int) -> None:
        super().check(epochs)
        check_scores(self.density, self.score_lr)


@register_strategy("wsn", WSNConfig)
class WSN(MaskingStrategy):
    """:class:`WSNPlugin`."""

    config: WSNConfig

    def make_plugin(self, context: Context, **shared: Any) -> WSNPlugin:
        from cl_powerprop.plugins import WSNPlugin

        config = self.config
        return WSNPlugin(config.density, config.score_lr, config.reset_scores, **shared)
