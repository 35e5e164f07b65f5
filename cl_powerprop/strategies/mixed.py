"""What strategies share that train on the samples of several tasks at once, and therefore keep them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cl_powerprop.strategies.base import Context, Strategy, Summary

if TYPE_CHECKING:
    from avalanche.core import BasePlugin
    from torch import nn

    from cl_powerprop.tasks import Task
    from cl_powerprop.training.tensor_data import Samples


class MixedStrategy(Strategy):
    """Selects the head of each sample's own task; a derived strategy mixes the samples."""

    resumable = resumable_within_tasks = resumable_anywhere = True
    keeps_samples = True
    takes_sparsity = True

    def training_samples(self, tasks: Sequence[Task]) -> list[Samples]:
        # As stored: 8 bits a value of an image, and 64 each for the label and the task.
        self._bits = sum(len(task.train) * (8 * math.prod(task.train.shape) + 2 * 64) for task in tasks)
        return super().training_samples(tasks)

    def plugins(self, context: Context) -> list[BasePlugin]:
        from cl_powerprop.plugins.task_selection import MixedTaskSelection

        return [MixedTaskSelection()]

    def summary(self, model: nn.Module) -> Summary:
        return replace(super().summary(model), buffer_bits=self._bits)
