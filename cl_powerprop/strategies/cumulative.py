"""Cumulative training: each task is trained together with all tasks before it; Avalanche's ``Cumulative``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cl_powerprop.strategies.base import Context, Strategy, StrategyConfig, Summary, register_strategy

if TYPE_CHECKING:
    from avalanche.core import BasePlugin
    from torch import nn

    from cl_powerprop.tasks import Task
    from cl_powerprop.training.tensor_data import Samples


@register_strategy("cumulative", StrategyConfig)
class Cumulative(Strategy):
    """Mixes the training samples of all tasks so far; an epoch of task k takes as long as k of them."""

    resumable = resumable_within_tasks = resumable_anywhere = True
    keeps_samples = True
    takes_sparsity = True

    def training_samples(self, tasks: Sequence[Task]) -> list[Samples]:
        from cl_powerprop.training.tensor_data import MixedSamples

        trained = [task.train for task in tasks]
        self._bits = sum(len(each) * (8 * math.prod(each.shape) + 2 * 64) for each in trained)
        return [MixedSamples(trained[: index + 1]) for index in range(len(trained))]

    def plugins(self, context: Context) -> list[BasePlugin]:
        from cl_powerprop.plugins.task_selection import MixedTaskSelection

        return [MixedTaskSelection()]

    def summary(self, model: nn.Module) -> Summary:
        return replace(super().summary(model), buffer_bits=self._bits)
