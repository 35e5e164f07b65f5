"""Top-KAST: always sparse, in the forward and in the backward pass."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity.bits import keep_, overwrite_, to_bits
from cl_powerprop.sparsity.controllers.base import Controller
from cl_powerprop.sparsity.masked_weight import MaskedWeight
from cl_powerprop.sparsity.packing import pack, unpack
from cl_powerprop.sparsity.powerprop import magnitude_power, to_theta
from cl_powerprop.sparsity.schedules import Updates
from cl_powerprop.sparsity.scores import Magnitude
from cl_powerprop.sparsity.sparse_weight import SparseWeight


class _Held(NamedTuple):
    """What the sets of a layer mean for each of its weights, until they change.

    Attributes:
        trained: bits of the weights in B.
        values: bits of the others, as they stay.
        penalty: coefficient of the penalty.
        loads: how often the model had been loaded when this was noted.
    """

    trained: Tensor
    values: Tensor
    penalty: Tensor
    loads: int


class TopKAST(Controller):
    """Computes with the largest weights, and trains somewhat more of them.

    Jayakumar et al., "Top-KAST: Top-K Always Sparse Training", NeurIPS 2020, arXiv:2106.03517. The forward set A has
    the largest weights by magnitude, the backward set B more of them; those outside B stay as they are until they are
    in it again. Weights in A have an L2 penalty, and those in B alone one that is divided by the density of A (of all
    masked layers together), so that they either grow into A or leave B. :meth:`finalize` sets all weights outside A
    to 0.

    Args:
        stop: the sets do not change after this step.
        every: steps from one choice of the sets to the next.
        backward_sparsity: share of the masked weights outside B; None for the one that gives B twice the size of A.
        penalty: coefficient of the L2 penalty on theta, whose gradient is added before each optimizer step; where the
            optimizer is given a closure, after that.
        options: of :class:`Controller`.

    Attributes:
        backward: B of each layer, boolean.

    Raises:
        ConfigurationError: for an impossible value, or a B that is smaller than A.
    """

    is_recordable = False  # what its steps put back is noted anew after each update

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
        self._held: dict[str, _Held] = {}
        self._hook = self._register_hook()
        active = self._choose()
        for each in self.weights:
            each.begin(active[each.name], self.backward[each.name])

    def _register_hook(self) -> RemovableHandle:
        hook = self.optimizer.register_step_pre_hook(self._before_step)
        # Before all others: that of a step in theta-space decays the weights.
        self.optimizer._optimizer_step_pre_hooks.move_to_end(hook.id, last=False)  # type: ignore[attr-defined]
        return hook

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_hook"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Hook into the optimizer, whose copy has lost its hooks."""
        vars(self).update(state)
        self._hook = self._register_hook()
        if self.is_final:
            self._hook.remove()

    def is_due(self, step: int) -> bool:
        return step in self.updates

    def count_steps(self) -> None:
        for each in self.weights:
            each.count_steps(self.steps - self._counted, self.backward[each.name])
        self._counted = self.steps

    def hide(self) -> None:
        """Do nothing: hidden weights keep their values."""

    def step(self) -> None:
        """As in the base class; also puts back the weights outside B, which momentum or decay may have moved."""
        for each in self.weights:
            held = self._held.get(each.name)
            if held is not None and held.loads == each.masked.loads:
                overwrite_(each.phi, held.trained, held.values)
        super().step()

    def update(self) -> None:
        before = self.backward
        active = self._choose()
        for each in self.weights:
            backward = self.backward[each.name]
            each.change(active[each.name], backward)
            each.forget_moments(backward & before[each.name])  # decay gives moments to those outside B, too

    def _choose(self) -> dict[str, Tensor]:
        """Choose B, and return A, by layer."""
        self._held = {}
        self.backward = self.select(Magnitude(), self.backward_sparsity, among="all")
        return self.select(Magnitude(), self.target, among="all")

    @torch.no_grad()
    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Note the weights outside B, which do not change until B does, and add the gradient of the penalty.

        A closure computes the gradients anew, and so adds the penalty to its own.
        """
        for each in self.weights:
            held = self._held.get(each.name)
            if held is None or held.loads != each.masked.loads or held.penalty.dtype != each.phi.dtype:
                self._held[each.name] = self._hold(each)
        closure = options.get("closure", args[1] if len(args) > 1 else None)  # args[0] is the optimizer
        if closure is None:
            self._add_penalty()
            return None

        def with_penalty() -> Any:
            loss = closure()
            self._add_penalty()
            return loss

        return (args[0],), options | {"closure": with_penalty}

    @torch.no_grad()
    def _add_penalty(self) -> None:
        for each in self.weights if self.penalty else ():
            gradient = each.weight.stored.grad
            if gradient is not None:
                gradient.addcmul_(_slope(each.phi, each.masked), self._held[each.name].penalty)

    def _hold(self, each: SparseWeight) -> _Held:
        phi, active, backward = each.phi, each.active, self.backward[each.name]
        trained = to_bits(backward, phi.dtype)
        penalty = active.to(phi.dtype).mul_(1.0 - 1.0 / (1.0 - self.target)).add_(1.0 / (1.0 - self.target))
        penalty = keep_(penalty.mul_(self.penalty), trained)
        return _Held(trained, phi.view(trained.dtype) & ~trained, penalty, each.masked.loads)

    def complete(self) -> None:
        self._hook.remove()
        self._held = {}
        self.backward = {each.name: each.active for each in self.weights}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {f"{name}/backward": pack(mask) for name, mask in self.backward.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._held = {}
        for each in self.weights:
            packed = state[f"{each.name}/backward"].to(each.active.device)
            self.backward[each.name] = unpack(packed, each.shape)
            each.show(self.backward[each.name])
        if self.is_final:
            self._hook.remove()


def _slope(phi: Tensor, masked: MaskedWeight) -> Tensor:
    """Return the gradient of ``theta^2 / 2``, with respect to what the optimizer is given the gradient of."""
    if masked.alpha == 1.0 or masked.theta_gradient:
        return to_theta(phi, masked.alpha)
    return magnitude_power(phi, 2.0 * masked.alpha).mul_(masked.alpha).copysign_(phi)
