"""Cumulative training: each task is trained together with all tasks before it; Avalanche's ``Cumulative``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cl_powerprop.strategies.base import StrategyConfig, register_strategy
from cl_powerprop.strategies.mixed import MixedStrategy

if TYPE_CHECKING:
    from cl_powerprop.tasks import Task
    from cl_powerprop.training.tensor_data import Samples


@register_strategy("cumulative", StrategyConfig)
class Cumulative(MixedStrategy):
    """Mixes the training samples of all tasks so far; an epoch of task k takes as long as k of them."""

    def training_samples(self, tasks: Sequence[Task]) -> list[Samples]:
        from cl_powerprop.training.tensor_data import MixedSamples

        trained = super().training_samples(tasks)
        return [MixedSamples(trained[: index + 1]) for index in range(len(trained))]
