"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import ConfigurationError, at_least
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
        at_least("optimizer.momentum", self.momentum, 0)
        if self.nesterov and not self.momentum:
            raise ConfigurationError("optimizer.nesterov=true needs optimizer.momentum above 0")


@register_optimizer("sgd", SGDConfig)
def sgd(groups: list[dict[str, Any]], config: SGDConfig) -> Optimizer:
    """Return torch's SGD over the parameter groups."""
    from torch.optim import SGD

    optimizer = SGD(
        groups,
        fused=True,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
    if config.momentum:
        optimizer.register_step_pre_hook(_fill_buffers)
    return optimizer


def _fill_buffers(optimizer: Optimizer, *_: object) -> None:
    """Give a momentum of 0, as at its first step, to parameters whose first gradient comes later than that of others.

    Heads of other tasks, for example, have no gradient in a step. torch's fused SGD stops at such a group: it expects
    a buffer of all parameters that have a gradient, or of none.
    """
    from torch import zeros_like

    for group in optimizer.param_groups:
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        new = [parameter for parameter in moved if optimizer.state[parameter].get("momentum_buffer") is None]
        if len(new) < len(moved):
            for parameter in new:
                optimizer.state[parameter]["momentum_buffer"] = zeros_like(parameter)
