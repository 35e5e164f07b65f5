"""Joint training: all tasks at once, their samples mixed. What a network reaches when there is nothing to forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cl_powerprop.strategies.base import StrategyConfig, register_strategy
from cl_powerprop.strategies.mixed import MixedStrategy

if TYPE_CHECKING:
    from cl_powerprop.tasks import Task
    from cl_powerprop.training.tensor_data import Samples


@register_strategy("joint", StrategyConfig)
class Joint(MixedStrategy):
    """Trains one experience that mixes the training samples of all tasks."""

    tests_unseen = False

    def training_samples(self, tasks: Sequence[Task]) -> list[Samples]:
        from cl_powerprop.training.tensor_data import MixedSamples

        return [MixedSamples(super().training_samples(tasks))]

    def curriculum(self, stream: Sequence[Any], n_tasks: int) -> list[tuple[int, Any]]:
        return [(n_tasks - 1, stream[0])]
