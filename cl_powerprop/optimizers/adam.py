"""Adam (Kingma & Ba 2015) and AdamW, Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.optimizers.base import OptimizerConfig, register_optimizer

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(kw_only=True)
class AdamConfig(OptimizerConfig):
    """Options of `optimizer=adam` and `optimizer=adamw`.

    Attributes:
        betas: decay rates of the first and second moment.
    """

    betas: list[float]

    def check(self) -> None:
        super().check()
        if len(self.betas) != 2:
            raise ConfigurationError(f"optimizer.betas must be two numbers, not {self.betas}")
        if any(not 0.0 <= beta < 1.0 for beta in self.betas):
            raise ConfigurationError(f"optimizer.betas must be in [0, 1), not {self.betas}")

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of torch's optimizer."""
        return {"fused": True, "lr": self.lr, "betas": tuple(self.betas), "weight_decay": self.weight_decay}


@register_optimizer("adam", AdamConfig)
def adam(groups: list[dict[str, Any]], config: AdamConfig) -> Optimizer:
    """Return torch's Adam over the parameter groups."""
    from torch.optim import Adam

    return Adam(groups, **config.options)


@register_optimizer("adamw", AdamConfig)
def adamw(groups: list[dict[str, Any]], config: AdamConfig) -> Optimizer:
    """Return torch's AdamW over the parameter groups."""
    from torch.optim import AdamW

    return AdamW(groups, **config.options)
