"""A quadratic penalty on changes of weights that earlier tasks depend on; derived plugins say how much they do."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from cl_powerprop.sparsity.powerprop import to_theta
from cl_powerprop.sparsity.theta_space import theta_gradients

Named = dict[str, Tensor]

_TABLES = ("importances", "anchors")


class QuadraticPenalty(SupervisedPlugin):  # type: ignore[misc]
    """Adds ``strength * sum(importance * (weight - anchor)^2)`` over all weights to the loss of a step.

    Its gradient is added to that of the loss after the backward pass, so that a derived plugin sees the gradient of the
    loss alone. A weight without a gradient in a step, as in the head of another task, has not moved from its anchor.
    Where the optimizer steps in theta-space, gradients are those of ``theta``, and so are all values here.

    Args:
        strength: factor of the penalty.

    Attributes:
        importances: of each parameter that earlier tasks have trained, by its name; empty before.
        anchors: values of the weights that the penalty pulls to.
        counted: tables that :attr:`bits` counts; all others follow from these and from the network.
    """

    counted: tuple[str, ...] = ("importances",)

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.importances: Named = {}
        self.anchors: Named = {}
        self._parameters: dict[str, nn.Parameter] = {}
        self._alphas: dict[str, float] = {}  # of those whose gradient is one of theta

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Look up the parameters: to go through the modules in each step would take longer than the penalty."""
        self._model = strategy.model
        self._parameters = trained_parameters(strategy.model)
        self._alphas = theta_gradients(strategy.model)

    def weight(self, name: str) -> Tensor:
        """Return the value of a parameter that its gradient is one of: ``theta`` where steps are in theta-space."""
        return to_theta(self._parameters[name].detach(), self._alphas.get(name, 1.0))

    def weights(self) -> Named:
        """Return copies of all weights."""
        return {name: self.weight(name).clone() for name in self._parameters}

    def graph_tensors(self, strategy: Any) -> list[Tensor]:
        return self.tensors()

    @torch.no_grad()
    def after_backward(self, strategy: Any, **_: Any) -> None:
        """Add the penalty's value and gradient to those of the loss."""
        if self.importances:
            self.add_penalty(strategy, [name for name, value in self._parameters.items() if value.grad is not None])

    def add_penalty(self, strategy: Any, names: Sequence[str]) -> None:
        """Add the penalty on some parameters, which have gradients, to the loss and to these."""
        weights = [self.weight(name) for name in names]
        distances = torch._foreach_sub(weights, [self.anchors[name] for name in names])
        pulls = torch._foreach_mul(distances, [self.importances[name] for name in names])
        torch._foreach_add_(self.gradients(names), pulls, alpha=2 * self.strength)
        sums = [torch.dot(pull.flatten(), distance.flatten()) for pull, distance in zip(pulls, distances, strict=True)]
        strategy.loss = strategy.loss.detach() + self.strength * torch.stack(sums).sum()

    def gradients(self, names: Sequence[str]) -> list[Tensor]:
        """Return the gradients of parameters, which have one."""
        return [self._parameters[name].grad for name in names]  # type: ignore[misc]

    def tensors(self) -> list[Tensor]:
        """Return all tensors that steps use."""
        return [value for table in self.tables().values() for value in table.values()]

    def tables(self) -> dict[str, Named]:
        """Return what is kept from task to task: tensors by table and by the parameter's name."""
        return {name: getattr(self, name) for name in _TABLES}

    def state_dict(self) -> Named:
        """Return the tables as ``table/parameter``."""
        return joined(self.tables())

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        """Take back what :meth:`state_dict` returned.

        Raises:
            ValueError: if a tensor has not the shape of its parameter.
        """
        for table in self.tables():
            setattr(self, table, taken(state, table, model))

    @property
    def bits(self) -> int:
        """Bits of what earlier tasks leave beside the network: its own values are the anchors once a task is over."""
        kept = self.tables()
        return sum(8 * value.nbytes for table in self.counted for value in kept[table].values())


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that an optimizer trains, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def zeros(parameters: Mapping[str, Tensor]) -> Named:
    """Return zeros of the same shapes."""
    return {name: torch.zeros_like(value) for name, value in parameters.items()}


def joined(tables: Mapping[str, Named]) -> Named:
    """Return tables of tensors as one, with names ``table/parameter``."""
    return {f"{table}/{name}": value for table, values in tables.items() for name, value in values.items()}


def taken(state: Mapping[str, Any], table: str, model: nn.Module) -> Named:
    """Return one of the tables that :func:`joined` has put together, on the devices of the model's parameters.

    Raises:
        KeyError, ValueError: if a tensor is missing, or has not the shape of its parameter.
    """
    parameters = trained_parameters(model)
    if not any(key.startswith(f"{table}/") for key in state):
        return {}
    return {name: _fitted(state[f"{table}/{name}"], table, name, value) for name, value in parameters.items()}


def _fitted(kept: Tensor, table: str, name: str, parameter: Tensor) -> Tensor:
    if kept.shape != parameter.shape or kept.dtype != parameter.dtype:
        raise ValueError(f"{table} of {name} are {kept.dtype} of the shape {list(kept.shape)}")
    return kept.to(parameter.device)
