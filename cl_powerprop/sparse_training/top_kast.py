"""Top-KAST: a sparse forward and a sparse backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_powerprop.errors import ConfigurationError, at_least
from cl_powerprop.limits import check_sparsity
from cl_powerprop.sparse_training.base import SparseConfig, check_interval, check_point, register_sparsity, to_steps

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from cl_powerprop.sparsity import TopKAST


@dataclass(kw_only=True)
class TopKASTConfig(SparseConfig):
    """Options of `sparsity=top_kast`.

    Attributes:
        backward: share of the masked weights that get no gradient; None to train twice the weights that are used.
        penalty: coefficient of the L2 penalty on theta.
        every: steps from one choice of the weights to the next.
        stop: of these choices: a share of the training up to 1, or a number of steps.
    """

    backward: float | None
    penalty: float
    every: int
    stop: float

    def check(self) -> None:
        super().check()
        if self.backward is not None:
            check_sparsity("sparsity.backward", self.backward)
            if self.backward > self.target:
                raise ConfigurationError(
                    f"sparsity.backward={self.backward:g} is above sparsity.target={self.target:g}; all weights "
                    "that are used are trained"
                )
        at_least("sparsity.penalty", self.penalty, 0)
        check_interval(self.every)
        check_point("sparsity.stop", self.stop)


@register_sparsity("top_kast", TopKASTConfig)
def top_kast(model: nn.Module, optimizer: Optimizer, config: TopKASTConfig, *, steps: int, seed: int) -> TopKAST:
    """Compute with the largest weights, and train somewhat more of them."""
    from cl_powerprop.sparsity import TopKAST

    return TopKAST(
        model,
        optimizer,
        backward_sparsity=config.backward,
        penalty=config.penalty,
        every=config.every,
        stop=to_steps("sparsity.stop", config.stop, steps),
        **config.shared(seed),
    )
