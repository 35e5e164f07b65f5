"""Averaged Gradient Episodic Memory in Avalanche's events."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cl_powerprop.networks.heads import select_samples
from cl_powerprop.plugins.memory import MemoryPlugin, loss_of
from cl_powerprop.plugins.quadratic_penalty import trained_parameters
from cl_powerprop.sparsity import select_task


class AveragedGradientMemory(MemoryPlugin):
    """Lets no step raise the loss of a random batch of the memory, to first order (Chaudhry et al. 2019, equation 11).

    The gradient is projected so that its product with the memory's is not below 0. Parameters that the task itself
    does not train, such as earlier heads, take part, which they do not in Avalanche's ``AGEMPlugin``.
    """

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Look up the parameters."""
        self._parameters = trained_parameters(strategy.model)

    def graph_tensors(self, strategy: Any) -> list[Tensor] | None:
        return self.recordable()

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Compute the gradient of the memory's loss."""
        if len(self.memory):
            self._reference = gradients_of(strategy, self.recall(), self._parameters)

    @torch.no_grad()
    def after_backward(self, strategy: Any, **_: Any) -> None:
        """Project the gradient, if it would raise the memory's loss."""
        if not len(self.memory):
            return
        gradients, reference = current_gradients(self._parameters), self._reference
        product = inner(gradients, reference)
        tiny = torch.finfo(product.dtype).tiny  # of a reference of 0 the product is 0 too
        share = (-product).clamp(min=0.0) / inner(reference, reference).clamp(min=tiny)
        torch._foreach_add_(gradients, torch._foreach_mul(reference, share))


def gradients_of(strategy: Any, batch: list[Tensor], parameters: Mapping[str, nn.Parameter]) -> list[Tensor]:
    """Return the gradients of the learner's loss for a batch ``[images, labels, tasks]`` of any tasks.

    They are 0 for parameters that it does not depend on. Afterwards the task in training is selected.
    """
    own = strategy.mbatch
    select_samples(strategy.model, batch[2])
    strategy.mbatch = batch
    outputs = strategy.forward()
    strategy.mbatch = own
    loss = loss_of(strategy, batch, outputs)
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    select_task(strategy.model, strategy.experience.task_label)
    return [
        torch.zeros_like(value) if gradient is None else gradient
        for value, gradient in zip(parameters.values(), gradients, strict=True)
    ]


def current_gradients(parameters: Mapping[str, nn.Parameter]) -> list[Tensor]:
    """Return the gradients of the parameters; those that have none get one of 0."""
    for value in parameters.values():
        if value.grad is None:
            value.grad = torch.zeros_like(value)
    return [value.grad for value in parameters.values() if value.grad is not None]


def inner(some: list[Tensor], others: list[Tensor]) -> Tensor:
    """Return the inner product of two lists of tensors of the same shapes."""
    pairs = zip(some, others, strict=True)
    return torch.stack([torch.dot(one.flatten(), other.flatten()) for one, other in pairs]).sum()
