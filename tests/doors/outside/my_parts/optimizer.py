"""An optimizer: torch's RMSprop."""

from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer, RMSprop

from cl_powerprop import OptimizerConfig, register_optimizer


@dataclass(kw_only=True)
class RMSpropConfig(OptimizerConfig):
    smoothing: float = 0.99


@register_optimizer("rmsprop", RMSpropConfig)
def rmsprop(groups: list[dict[str, Any]], config: RMSpropConfig) -> Optimizer:
    """RMSprop."""
    return RMSprop(groups, lr=config.lr, alpha=config.smoothing, weight_decay=config.weight_decay)
