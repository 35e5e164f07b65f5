"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import check_at_least_0
from cl_powerprop.optimizers.base import OptimizerConfig, register_optimizer

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(kw_only=True)
class SGDConfig(OptimizerConfig):
    """Options of `optimizer=sgd`.

    Attributes:
        momentum: as in torch; 0 for none.
        nesterov: use Nesterov momentum.
    """

    momentum: float
    nesterov: bool

    def check(self) -> None:
        super().check()
        check_at_least_0("optimizer.momentum", self.momentum)
        if self.nesterov and not self.momentum:
            raise ConfigurationError("optimizer.nesterov=true needs optimizer.momentum above 0")


@register_optimizer("sgd", SGDConfig)
def sgd(groups: list[dict[str, Any]], config: SGDConfig) -> Optimizer:
    """Return torch's SGD over the parameter groups."""
    from torch.optim import SGD

    return SGD(
        groups,
        fused=True,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
