"""A weight whose mask changes while it trains: what it uses now, and what it has used so far."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Size, Tensor
from torch.optim import Optimizer

from cl_powerprop.sparsity.maskable import Maskable
from cl_powerprop.sparsity.packing import pack, unpack
from cl_powerprop.sparsity.ranks import sum_over_ranks_

_HISTORY = ("active", "ever_active", "ever_dropped")
# What torch's optimizers do not begin with 0, and the option that it begins with: Rprop's and Adagrad's state.
_BEGINS_WITH = {"step_size": "lr", "sum": "initial_accumulator_value"}


@dataclass(frozen=True)
class LayerDensity:
    """How sparse a layer is, in weights.

    Attributes:
        layer: name of the layer.
        weights: how many it has.
        active: those in use.
        ever_active: those that were in use at some time.
        dropped, grown: how many were dropped and grown so far.
        regrown: how many of those grown had been dropped before.
        dead_units: output units (or channels) without an active weight.
    """

    layer: str
    weights: int
    active: int
    ever_active: int
    dropped: int
    grown: int
    regrown: int
    dead_units: int


class SparseWeight:
    """One masked weight of a model that a controller trains sparsely.

    Hidden weights are 0, and so are the optimizer's moments for them: neither momentum nor decay can move them. A
    grown weight starts without moments.

    Args:
        name: of the layer.
        weight: the weight; it becomes maskable in place.
        optimizer: trains it.

    Attributes:
        active: boolean, shaped like the weight: those in use.
    """

    def __init__(self, name: str, weight: Maskable, optimizer: Optimizer) -> None:
        self.name = name
        self.weight = weight
        self.masked = weight.mask()
        self.masked.keep_bits(weight.stored.dtype)
        view = self.masked.training_view  # of a controller before this one
        self.active = torch.ones_like(weight.stored, dtype=torch.bool) if view is None else view.clone()
        self.ever_active = self.active.clone()
        self.ever_dropped = torch.zeros_like(self.active)
        # weights dropped, grown and regrown; steps times weights in use, and times weights that got a gradient
        self._counts = torch.zeros(5, dtype=torch.int64, device=self.active.device)
        self._optimizer = optimizer

    @property
    def shape(self) -> Size:
        """Shape of the weight."""
        return self.active.shape

    @property
    def phi(self) -> Tensor:
        """The parameter that is trained, detached."""
        return self.weight.stored.detach()

    @property
    def theta(self) -> Tensor:
        """The weights, hidden ones as they are stored."""
        return self.masked.theta(self.weight.stored)

    @property
    def gradient(self) -> Tensor:
        """dL/dtheta of all weights, hidden ones included, in the step that was watched; over all processes."""
        gradient = self.masked.full_gradient
        return torch.zeros_like(self.phi) if gradient is None else gradient

    @property
    def has_gradient(self) -> bool:
        """Whether a backward pass of the step that was watched reached this weight."""
        return self.masked.full_gradient is not None

    def watch(self, on: bool) -> None:
        """Let the next step give the gradient of hidden weights too, or stop."""
        self.masked.watch(on)

    def share_gradient(self) -> None:
        """Add up the watched gradient over the processes of distributed training."""
        if not self.has_gradient:  # this process did not use the layer in this step, but another may have
            self.masked.add_gradient(torch.zeros_like(self.phi))
        sum_over_ranks_(self.gradient)

    @torch.no_grad()
    def begin(self, active: Tensor, learning: Tensor | None = None) -> None:
        """Start with these weights in use; no other has been. Arguments are those of :meth:`change`."""
        self.active, self.ever_active = active, active.clone()
        self._apply(learning)

    @torch.no_grad()
    def change(self, active: Tensor, learning: Tensor | None = None) -> None:
        """Use these weights from now on.

        Args:
            active: boolean, shaped like the weight: those in use; all others are set to 0.
            learning: the same: those that get a gradient, if they are more; then hidden weights keep their values.
        """
        dropped, grown = self.active & ~active, active & ~self.active
        regrown = grown & self.ever_dropped
        self._counts[:3] += torch.stack([dropped.sum(), grown.sum(), regrown.sum()])
        self.active = active
        self.ever_active |= active
        self.ever_dropped |= dropped
        self._apply(learning)

    @torch.no_grad()
    def hide(self) -> None:
        """Set the hidden weights and their moments to 0."""
        self.phi.masked_fill_(~self.active, 0.0)
        self.forget_moments(self.active)

    def _apply(self, learning: Tensor | None) -> None:
        if learning is None:
            self.hide()
        else:
            self.forget_moments(learning)
        self.show(learning)

    @torch.no_grad()
    def place(self, where: Tensor, theta: Tensor) -> None:
        """Set the weights at ``where`` (boolean, shaped like the weight) to ``theta``; they start without moments."""
        self.masked.place(self.phi, where, theta)
        self.forget_moments(~where)  # decay moves the second factor of a hidden product, and so its moments

    def show(self, learning: Tensor | None = None) -> None:
        """Compute with the active weights only; ``learning`` are those that get a gradient, by default the same."""
        self.masked.set_training_view(self.active, learning)

    def forget_moments(self, keep: Tensor) -> None:
        """Set the optimizer's moments to what it begins with, nearly always 0, except for the weights to keep."""
        for trained in self.weight.trained:
            for moment, value in self._optimizer.state.get(trained, {}).items():
                if isinstance(value, Tensor) and value.shape == keep.shape:
                    value.masked_fill_(~keep, self._first(moment, trained))

    def _first(self, moment: str, trained: Tensor) -> float:
        """Return the value that the optimizer begins a moment of a parameter with."""
        if moment not in _BEGINS_WITH:
            return 0.0
        groups = self._optimizer.param_groups
        group = next(group for group in groups if any(each is trained for each in group["params"]))
        return float(group.get(_BEGINS_WITH[moment], 0.0))

    def quantile(self, share: float) -> Tensor:
        """Return the magnitude that a share of the active weights does not exceed, a scalar; some must be active."""
        magnitudes = self.theta[self.active].abs()
        return magnitudes.kthvalue(min(magnitudes.numel(), 1 + math.floor(share * magnitudes.numel()))).values

    def count_steps(self, steps: int, learning: Tensor | None = None) -> None:
        """Note that some steps computed with the active weights, and gave ``learning`` (the same) a gradient."""
        active = self.active.sum()
        self._counts[3:] += steps * torch.stack([active, active if learning is None else learning.sum()])

    def count_dense_gradient(self) -> None:
        """Note that the last step computed the gradient of hidden weights too; none of them was learning."""
        self._counts[4] += (~self.active).sum()

    def training_density(self, steps: int) -> float:
        """Return the mean share of a dense step's multiplications over the steps so far.

        A step multiplies by the weights twice, forward and for the gradient of the inputs, and computes the gradient
        of the weights once (Evci et al. 2020, appendix H).
        """
        active, learning = self._counts[3:].tolist()
        return float((2 * active + learning) / (3 * steps * self.active.numel())) if steps else 1.0

    def report(self) -> LayerDensity:
        """Return how sparse the layer is."""
        dropped, grown, regrown = self._counts[:3].tolist()
        units = self.weight.by_unit(self.active).any(1)
        return LayerDensity(
            layer=self.name,
            weights=self.active.numel(),
            active=int(self.active.sum()),
            ever_active=int(self.ever_active.sum()),
            dropped=dropped,
            grown=grown,
            regrown=regrown,
            dead_units=int((~units).sum()),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return masks, 8 weights a byte, and counts; the weights are in the model's state."""
        masks = {f"{self.name}/{each}": pack(getattr(self, each)) for each in _HISTORY}
        return masks | {f"{self.name}/counts": self._counts.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state_dict` returned."""
        for each in _HISTORY:
            setattr(self, each, unpack(state[f"{self.name}/{each}"].to(self.active.device), self.shape))
        self._counts = state[f"{self.name}/counts"].to(self.active.device).clone()
        self.show()
