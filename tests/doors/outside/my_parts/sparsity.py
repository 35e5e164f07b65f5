"""Sparse training: gradual pruning at an even pace."""

from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from cl_powerprop import SparseConfig, register_sparsity
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity import GradualPruning


class EvenPruning(GradualPruning):
    def sparsity_at(self, step: int) -> float:
        first, last = self.updates.start, self.updates.last
        return self.target * (step - first) / (last - first) if step < last else self.target


@dataclass(kw_only=True)
class EvenConfig(SparseConfig):
    target: float = 0.5
    every: int = 2

    def check(self) -> None:
        super().check()
        if self.every < 1:
            raise ConfigurationError(f"sparsity.every must be at least 1 step, not {self.every}")


@register_sparsity("even", EvenConfig)
def even(model: nn.Module, optimizer: Optimizer, config: EvenConfig, *, steps: int, seed: int) -> EvenPruning:
    """Pruning by magnitude, the same number of weights each time."""
    return EvenPruning(model, optimizer, stop=steps, every=config.every, **config.shared(seed))
