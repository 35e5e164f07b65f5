"""Optimizer steps in theta-space, for optimizers that would cancel Powerpropagation's scaling of the gradient.

Adam, RMSProp and Adagrad normalise the gradient, so the factor ``alpha * |phi|^(alpha - 1)`` cancels. As in the paper
(Schwarz et al. 2021, section 2), the step and its moments are computed from dL/dtheta, then scaled and applied to
``phi``.

That scale vanishes at 0, so a small weight hardly moves and one at 0 never does. Xu et al., "Theoretical Analysis of
Sparse Optimization with Reparameterization, Weight Decay, and Adaptive Learning Rate" (ReWA), ICML 2026,
arXiv:2605.25134, multiply the learning rate of each weight by ``y^M / (y^(K-1) + eps)`` (our ``phi`` is their ``y``,
alpha their ``K``), after which the scale is ``alpha * |phi|^M`` for eps 0: with ``M = 0`` it is the same everywhere.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.optim import SGD, Optimizer
from torch.utils.hooks import RemovableHandle

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import check_power
from cl_powerprop.sparsity.maskable import maskable_weights
from cl_powerprop.sparsity.masked_weight import MaskedWeight
from cl_powerprop.sparsity.powerprop import magnitude_power


def is_adaptive(optimizer: Optimizer) -> bool:
    """Return whether the optimizer normalises its gradients; every optimizer except SGD is assumed to."""
    return not isinstance(optimizer, SGD)


def theta_gradients(model: nn.Module) -> dict[str, float]:
    """Return alpha of each parameter ``phi`` whose gradient is dL/dtheta, by the parameter's name in the model."""
    return {
        f"{name}.original": step.alpha
        for name, module in model.named_modules()
        if isinstance(module, ParametrizationList)
        for step in module
        if isinstance(step, MaskedWeight) and step.theta_gradient
    }


class ThetaSpaceStep:
    """Makes an optimizer step in theta-space: its own step, scaled by ``alpha * |phi|^(alpha - 1)``, moves ``phi``.

    This works through hooks on the optimizer, whose schedulers, ``param_groups`` and ``state_dict`` stay as they are.
    torch copies no hooks: copy or pickle this object together with model and optimizer.
    Weight decay is taken out of the step and applied to the parameters directly (decoupled, as in AdamW), to ``phi``
    for a reparameterised weight: for SGD without momentum, steps in both spaces are then the same.

    Args:
        optimizer: the optimizer of the model.
        model: the model; its weights with ``alpha`` above 1 are stepped in theta-space.
        power: ReWA's ``M``, from 0 to alpha - 1; None for Powerpropagation's scale, which is that of alpha - 1.

    Raises:
        ConfigurationError: if a weight is a product of two factors, or for an impossible ``power``.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module, power: float | None = None) -> None:
        self._power = power
        self._masked: list[MaskedWeight] = []
        weights: list[tuple[Tensor, float]] = []
        for weight in maskable_weights(model).values():
            masked = weight.masked
            if masked is not None and masked.factors:
                raise ConfigurationError("a product of two trained factors has no step in theta-space; use space=phi")
            if masked is not None and masked.alpha != 1.0:
                check_power(power, masked.alpha)
                masked.theta_gradient = True
                self._masked.append(masked)
                weights.append((weight.stored, masked.alpha))
        self._act(optimizer, weights)

    def _act(self, optimizer: Optimizer, weights: list[tuple[Tensor, float]]) -> None:
        """Act on the steps of an optimizer, for weights with their alpha."""
        self._weights = weights
        self._decays: list[float] = []
        self._starts: list[tuple[Tensor, Tensor]] = []
        self._optimizer = optimizer
        self._hooks = self._register_hooks()

    def act_on(self, optimizer: Optimizer, replace: Callable[[Tensor], Tensor]) -> "ThetaSpaceStep":
        """Return the same for another optimizer, of weights that take the place of these, such as several networks'.

        Args:
            optimizer: trains those weights.
            replace: returns what takes the place of a parameter; its gradient is one with respect to theta, too.
        """
        other = ThetaSpaceStep.__new__(ThetaSpaceStep)
        other._power, other._masked = self._power, []
        other._act(optimizer, [(replace(phi), alpha) for phi, alpha in self._weights])
        return other

    def _register_hooks(self) -> list[RemovableHandle]:
        return [
            self._optimizer.register_step_pre_hook(self._before_step),
            self._optimizer.register_step_post_hook(self._after_step),
        ]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_hooks": bool(self._hooks)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Hook into the optimizer, whose copy has lost its hooks."""
        vars(self).update(state)
        self._hooks = self._register_hooks() if state["_hooks"] else []

    def remove(self) -> None:
        """Restore the optimizer's plain step and the weights' plain gradient."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for weight in self._masked:
            weight.theta_gradient = False

    def _scale(self, phi: Tensor, alpha: float) -> Tensor:
        """Return what the step is multiplied by, shaped like ``phi``."""
        return magnitude_power(phi, alpha if self._power is None else self._power + 1.0).mul_(alpha)

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, *unused: object) -> None:
        scales = [self._scale(phi, alpha) for phi, alpha in self._weights]
        self._decays = [group.get("weight_decay", 0.0) for group in optimizer.param_groups]
        for group, decay in zip(optimizer.param_groups, self._decays, strict=True):
            if decay:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.mul_(1.0 - group["lr"] * decay)
                group["weight_decay"] = 0.0
        self._starts = [(phi.detach().clone(), scale) for (phi, _), scale in zip(self._weights, scales, strict=True)]

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, *unused: object) -> None:
        for (phi, _), (start, scale) in zip(self._weights, self._starts, strict=True):
            torch.addcmul(start, phi - start, scale, out=phi)
        for group, decay in zip(optimizer.param_groups, self._decays, strict=True):
            if decay:
                group["weight_decay"] = decay
        self._starts = []
