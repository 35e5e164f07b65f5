"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.optimizers.base import OptimizerConfig
from cl_powerprop.registry import register_optimizer

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(kw_only=True)
class SGDConfig(OptimizerConfig):
    """`optimizer=sgd`."""

    momentum: float
    nesterov: bool


@register_optimizer("sgd", SGDConfig)
def sgd(groups: list[dict[str, Any]], config: SGDConfig) -> Optimizer:
    """Return SGD, with momentum where that is asked for."""
    from torch.optim import SGD

    return SGD(
        groups,
        fused=True,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
