"""How much the loss depends on each weight: saliencies, summed over mini-batches."""

from collections.abc import Mapping
from typing import Any

import torch
from avalanche.models.utils import avalanche_forward
from torch import Tensor

from cl_powerprop.sparsity.allocator import MaskAllocator
from cl_powerprop.sparsity.norm_statistics import batch_statistics
from cl_powerprop.training.loaders import statistics_batches

_NAME = "saliency/"  # what the names in a state begin with


class Saliencies:
    """Sums of the squares of ``theta * dL/dtheta``, frozen weights included; these still are not trained.

    Attributes:
        sums: of each layer, like its weight, by name; none before :meth:`begin`.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def begin(self, allocator: MaskAllocator) -> None:
        """Begin with zeros, and have gradients of frozen weights computed too."""
        for name, weight in allocator.weights.items():
            weight.open_gate()
            self.sums[name] = torch.zeros_like(allocator.phi(name))

    def add(self, allocator: MaskAllocator) -> None:
        """Add a mini-batch after its backward pass: ``theta * dL/dtheta`` equals ``phi * dL/dphi / alpha``."""
        for name, total in self.sums.items():
            weight, phi = allocator.weights[name], allocator.phi(name)
            if phi.grad is not None:
                value = allocator.theta(name) if weight.theta_gradient else phi.detach() / weight.alpha
                product = value * phi.grad
                total.addcmul_(product, product)

    @property
    def measured(self) -> bool:
        """Whether any sum is above 0."""
        return any(bool(total.any()) for total in self.sums.values())

    def measure(self, allocator: MaskAllocator, strategy: Any) -> None:
        """Sum them in a pass over a learner's training data, without a step."""
        self.begin(allocator)
        model, training = strategy.model, strategy.model.training
        model.eval()
        with batch_statistics(model):
            label, size = strategy.experience.task_label, strategy.train_mb_size
            for batch in statistics_batches(strategy.adapted_dataset, label, size, strategy.device):
                strategy.optimizer.zero_grad()
                strategy._criterion(avalanche_forward(model, batch[0], batch[-1]), batch[1]).backward()
                self.add(allocator)
        strategy.optimizer.zero_grad()
        model.train(training)

    def clear(self) -> None:
        """Forget all sums, after a task."""
        self.sums = {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums so far."""
        return {f"{_NAME}{name}": total for name, total in self.sums.items()}

    def load_state_dict(self, state: Mapping[str, Any], allocator: MaskAllocator) -> None:
        """Take back what :meth:`state_dict` returned; other keys of a state are left alone."""
        for key in (key for key in state if key.startswith(_NAME)):
            name = key.removeprefix(_NAME)
            allocator.weights[name].open_gate()
            self.sums[name] = state[key]
