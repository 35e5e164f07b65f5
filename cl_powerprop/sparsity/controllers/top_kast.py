"""Top-KAST: always sparse, in the forward and in the backward pass."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity.bits import overwrite_, to_bits
from cl_powerprop.sparsity.controllers.base import Controller
from cl_powerprop.sparsity.packing import pack, unpack
from cl_powerprop.sparsity.powerprop import magnitude_power, to_theta
from cl_powerprop.sparsity.schedules import Updates
from cl_powerprop.sparsity.scores import Magnitude


class TopKAST(Controller):
    """Computes with the largest weights, and trains somewhat more of them.

    Jayakumar et al., "Top-KAST: Top-K Always Sparse Training", NeurIPS 2020, arXiv:2106.03517. The forward set A has
    the largest weights by magnitude, the backward set B more of them; those outside B stay as they are until they are
    in it again. Weights in A have an L2 penalty, and those in B alone one that is divided by A's density, so that they
    either grow into A or leave B. :meth:`finalize` sets all weights outside A to 0.

    Args:
        stop: the sets do not change after this step.
        every: steps from one choice of the sets to the next.
        backward_sparsity: share of the masked weights outside B; None for the one that gives B twice the size of A.
        penalty: coefficient of the L2 penalty on theta, whose gradient is added before each optimizer step.
        options: of :class:`Controller`.

    Attributes:
        backward: B of each layer, boolean.

    Raises:
        ConfigurationError: for an impossible value, or a B that is smaller than A.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        stop: int,
        every: int = 100,
        backward_sparsity: float | None = None,
        penalty: float = 1e-4,
        **options: Any,
    ) -> None:
        self.updates = Updates(min(every, stop), stop, every)
        if not penalty >= 0.0:
            raise ConfigurationError(f"penalty must be at least 0, not {penalty:g}")
        self.penalty = penalty
        super().__init__(model, optimizer, **options)
        self.backward_sparsity = max(0.0, 2.0 * self.target - 1.0) if backward_sparsity is None else backward_sparsity
        if not 0.0 <= self.backward_sparsity <= self.target:
            raise ConfigurationError(
                f"backward_sparsity must be from 0 to the sparsity, {self.target:g}, not {self.backward_sparsity:g}"
            )
        if any(each.masked.factors for each in self.weights):
            raise ConfigurationError(
                "Top-KAST cannot keep hidden weights as they are if they are products of two factors; it needs "
                "model.reparam=powerprop"
            )
        self.backward: dict[str, Tensor] = {}
        self._held: dict[str, tuple[Tensor, Tensor]] = {}
        self._hook = optimizer.register_step_pre_hook(self._add_penalty)
        active = self._choose()
        for each in self.weights:
            each.begin(active[each.name], self.backward[each.name])
        self._hold()

    def is_due(self, step: int) -> bool:
        return step in self.updates

    def count_steps(self) -> None:
        for each in self.weights:
            each.count_steps(self.steps - self._counted, self.backward[each.name])
        self._counted = self.steps

    def step(self) -> None:
        """As in the base class; also puts back the weights outside B, which momentum or decay may have moved."""
        for each in self.weights:
            overwrite_(each.phi, *self._held[each.name])
        super().step()

    def update(self) -> None:
        active = self._choose()
        for each in self.weights:
            each.change(active[each.name], self.backward[each.name])
        self._hold()

    def _choose(self) -> dict[str, Tensor]:
        """Choose B, and return A, by layer."""
        self.backward = self.select(Magnitude(), self.backward_sparsity, among="all")
        return self.select(Magnitude(), self.target, among="all")

    def _hold(self) -> None:
        """Keep the weights outside B as they are now."""
        for each in self.weights:
            trained = to_bits(self.backward[each.name], each.phi.dtype)
            self._held[each.name] = (trained, each.phi.view(trained.dtype) & ~trained)

    @torch.no_grad()
    def _add_penalty(self, *_: object) -> None:
        if self.is_final or not self.penalty:
            return
        density = 1.0 - self.target
        for each in self.weights:
            phi, alpha, gradient = each.phi, each.masked.alpha, each.weight.stored.grad
            if gradient is None:
                continue
            slope = self.penalty * to_theta(phi, alpha)
            if alpha != 1.0 and not each.masked.theta_gradient:
                slope = slope * magnitude_power(phi, alpha).mul_(alpha)
            gradient.add_(torch.where(each.active, slope, slope / density).mul_(self.backward[each.name]))

    def complete(self) -> None:
        self._hook.remove()
        self.backward = {each.name: each.active for each in self.weights}
        for each in self.weights:
            each.change(each.active)  # hides nothing new, and sets the others to 0
        self._hold()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {f"{name}/backward": pack(mask) for name, mask in self.backward.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        for each in self.weights:
            packed = state[f"{each.name}/backward"].to(each.active.device)
            self.backward[each.name] = unpack(packed, each.shape)
            each.show(self.backward[each.name])
        self._hold()
