"""HAT: a task learns which hidden units it uses (Serra et al., ICML 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.limits import check_hat
from cl_powerprop.strategies.base import Context, register_strategy
from cl_powerprop.strategies.masking import MaskingConfig, MaskingStrategy

if TYPE_CHECKING:
    from torch import nn

    from cl_powerprop.plugins import HATPlugin


@dataclass(kw_only=True)
class HATConfig(MaskingConfig):
    """`strategy=hat`: the arguments of :class:`HATPlugin`."""

    c: float
    s_max: float
    gate_lr: float

    def check(self, epochs: int) -> None:
        super().check(epochs)
        check_hat(self.c, self.s_max, self.gate_lr)


@register_strategy("hat", HATConfig)
class HAT(MaskingStrategy):
    """:class:`HATPlugin`."""

    config: HATConfig

    def check_model(self, model: nn.Module) -> None:
        from cl_powerprop.plugins.masking import HEADS
        from cl_powerprop.plugins.unit_gates import feeding_layers
        from cl_powerprop.sparsity import maskable_weights

        feeding_layers(model, maskable_weights(model, HEADS))

    def make_plugin(self, context: Context, **shared: Any) -> HATPlugin:
        from cl_powerprop.plugins import HATPlugin

        return HATPlugin(self.config.c, self.config.s_max, self.config.gate_lr, **shared)
