"""PackNet: every task keeps a fixed share of the weights and sees all that came before (Mallya & Lazebnik 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import check_choice
from cl_powerprop.limits import REUSES, check_shares, check_shares_of_tasks
from cl_powerprop.strategies.base import Context, register_strategy
from cl_powerprop.strategies.masking import MaskingConfig, MaskingStrategy

if TYPE_CHECKING:
    from cl_powerprop.plugins import PackNetPlugin


@dataclass(kw_only=True)
class PackNetConfig(MaskingConfig):
    """`strategy=packnet`. `shares` is a number, a list of numbers, or null for equal ones."""

    shares: Any
    reuse: str = "all"

    def check(self, epochs: int) -> None:
        super().check(epochs)
        check_choice("strategy.reuse", self.reuse, REUSES)
        if self.shares is not None:
            check_shares(self.shares, self.reuse)

    def check_tasks(self, n_tasks: int) -> None:
        if self.shares is not None:
            check_shares_of_tasks(self.shares, n_tasks, self.reuse)


@register_strategy("packnet", PackNetConfig)
class PackNet(MaskingStrategy):
    """:class:`PackNetPlugin`, for a known number of tasks."""

    config: PackNetConfig

    def __init__(self, config: PackNetConfig) -> None:
        super().__init__(config)
        self.needs_n_tasks = config.shares is None  # a task gets an equal share

    def make_plugin(self, context: Context, **shared: Any) -> PackNetPlugin:
        from cl_powerprop.plugins import PackNetPlugin

        return PackNetPlugin.for_tasks(context.n_tasks, self.config.shares, reuse=self.config.reuse, **shared)
