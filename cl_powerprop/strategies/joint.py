"""Joint training: all tasks at once, their samples mixed. What a network reaches when there is nothing to forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cl_powerprop.strategies.base import Context, Strategy, StrategyConfig, register_strategy

if TYPE_CHECKING:
    from avalanche.core import BasePlugin

    from cl_powerprop.tasks import Task
    from cl_powerprop.training.tensor_data import Samples


@register_strategy("joint", StrategyConfig)
class Joint(Strategy):
    """Trains one experience that mixes the training samples of all tasks."""

    tests_unseen = False
    resumable = resumable_within_tasks = resumable_anywhere = True
    keeps_samples = True
    takes_sparsity = True

    def training_samples(self, tasks: Sequence[Task]) -> list[Samples]:
        from cl_powerprop.training.tensor_data import MixedSamples

        return [MixedSamples([task.train for task in tasks])]

    def curriculum(self, stream: Sequence[Any], n_tasks: int) -> list[tuple[int, Any]]:
        return [(n_tasks - 1, stream[0])]

    def plugins(self, context: Context) -> list[BasePlugin]:
        from cl_powerprop.plugins.task_selection import MixedTaskSelection

        return [MixedTaskSelection()]
