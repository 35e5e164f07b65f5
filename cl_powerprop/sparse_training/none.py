"""Dense training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cl_powerprop.sparse_training.base import SparsityConfig, register_sparsity

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@register_sparsity("none", SparsityConfig)
def none(model: nn.Module, optimizer: Optimizer, config: SparsityConfig, *, steps: int, seed: int) -> None:
    """Train all weights, as they are."""
