"""PackNet: every task keeps a fixed share of the weights and uses all weights of earlier tasks.

Mallya & Lazebnik, "PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning", CVPR 2018,
arXiv:1711.05769.
"""

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import check_shares, check_shares_of_tasks
from cl_powerprop.plugins.masking import MaskingPlugin
from cl_powerprop.sparsity import rank
from cl_powerprop.sparsity.allocator import Unmasked

_ROUNDING = 1e-9


class PackNetPlugin(MaskingPlugin):
    """Keeps the largest free weights of each layer; the task's mask is these and all weights frozen before.

    Args:
        shares: share of each layer that a task keeps, in (0, 1]: one number for all tasks, or a list of one per task.
        reuse: which frozen weights are in the mask: "all" (PackNet's); "chosen", as in EfficientPackNet: the mask is
            the task's share of all weights, the largest ones, frozen or not, and takes fewer new ones; or "none": they
            are hidden while the task trains, too.
        retrain_epochs, unmasked, seed: see :class:`MaskingPlugin`.

    Raises:
        ConfigurationError: for a share outside (0, 1], or shares that add up to more than the whole layer.
    """

    def __init__(
        self,
        shares: float | Sequence[float],
        retrain_epochs: int = 0,
        unmasked: Unmasked = "frozen",
        seed: int = 0,
        reuse: Literal["all", "chosen", "none"] = "all",
    ) -> None:
        super().__init__(retrain_epochs, unmasked, seed)
        self.shares = check_shares(shares, reuse)
        self.reuse = reuse

    @classmethod
    def for_tasks(cls, n_tasks: int, shares: float | Sequence[float] | None = None, **options: Any) -> "PackNetPlugin":
        """Return the plugin for a known number of tasks, so that impossible shares are rejected before training.

        Args:
            n_tasks: number of tasks.
            shares: see :class:`PackNetPlugin`; None gives all tasks equal shares.
            options: further arguments of the plugin.

        Raises:
            ConfigurationError: if the shares are too few for the tasks, or exceed what is left by the last one.
        """
        if n_tasks < 1:
            raise ConfigurationError(f"n_tasks must be at least 1, not {n_tasks}")
        per_task = [1.0 / n_tasks] * n_tasks if shares is None else shares
        check_shares_of_tasks(per_task, n_tasks, options.get("reuse", "all"))
        return cls(per_task, **options)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"shares": self.shares, "reuse": self.reuse}

    def _boundaries(self, task: int) -> tuple[float, float]:
        """Return (start, end) of the task's share of a layer, from 0 to 1.

        Raises:
            ConfigurationError: if no share is left for the task.
        """
        if isinstance(self.shares, int | float):
            end = (task + 1) * self.shares
            if self.reuse != "chosen" and end > 1.0 + _ROUNDING:
                raise ConfigurationError(f"task {task}: a share of {self.shares:g} of each layer exceeds what is left")
            return task * self.shares, end
        if task >= len(self.shares):
            raise ConfigurationError(f"task {task}: strategy.shares lists {len(self.shares)} shares only")
        ends = list(itertools.accumulate(self.shares, initial=0.0))
        return ends[task], ends[task + 1]

    def prepare_task(self, strategy: Any) -> None:
        """Reject a task that has no share before it trains, not after; hide frozen weights that it does not reuse."""
        self._boundaries(self.allocator.tasks)
        if self.reuse == "none" and self.allocator.tasks:
            self.allocator.hide_frozen()

    def choose_masks(self, strategy: Any) -> dict[str, Tensor]:
        """Return masks of the task's share of the weights and, with ``reuse="all"``, of all frozen ones."""
        start, end = self._boundaries(self.allocator.tasks)
        masks = {}
        for name, weight in self.allocator.weights.items():
            frozen = weight.frozen
            # Differences of rounded ends, so that equal shares of 1 / T use up the layer to the last weight.
            count = round(end * frozen.numel()) - round(start * frozen.numel())
            magnitude = self.allocator.theta(name).abs()
            if self.reuse == "chosen":
                masks[name] = rank(magnitude) < max(1, count)
                continue
            kept = rank(torch.where(frozen, -1.0, magnitude)) < count
            new = kept & ~frozen
            # A layer of which the task gets nothing stays visible, as it was in training.
            masks[name] = new if self.reuse == "none" and new.any() else frozen | new
        return masks
