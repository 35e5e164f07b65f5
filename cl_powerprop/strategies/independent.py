"""One network for each task, trained on it alone: what tasks reach without each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cl_powerprop.strategies.base import Context, Strategy, StrategyConfig, TaskReport, register_strategy

if TYPE_CHECKING:
    from avalanche.core import BasePlugin


@register_strategy("independent", StrategyConfig)
class Independent(Strategy):
    """Builds a network a task, and reports the weights of all of them as its capacity."""

    needs_task = True
    tests_unseen = False
    resumable = resumable_within_tasks = resumable_anywhere = True

    def architecture(self, architecture: dict[str, Any]) -> dict[str, Any]:
        return architecture | {"independent": True}

    def plugins(self, context: Context) -> list[BasePlugin]:
        self._n_tasks = context.n_tasks
        return super().plugins(context)

    def report(self) -> TaskReport:
        return TaskReport(capacity_used=float(self._n_tasks))
