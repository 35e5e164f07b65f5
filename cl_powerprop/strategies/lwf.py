"""Learning without Forgetting (LwF): the network is held to what it answered before each task.

Li & Hoiem, "Learning without forgetting", ECCV 2016, arXiv:1606.09282; Avalanche's ``LwFPlugin``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import at_least
from cl_powerprop.strategies.base import Context, Strategy, StrategyConfig, register_strategy

if TYPE_CHECKING:
    from avalanche.core import BasePlugin
    from torch import nn

    from cl_powerprop.plugins.lwf import LearningWithoutForgetting

_TEACHER = "teacher/"


@dataclass(kw_only=True)
class LwFConfig(StrategyConfig):
    """`strategy=lwf`."""

    alpha: float
    temperature: float

    def check(self, epochs: int) -> None:
        at_least("strategy.alpha", self.alpha, 0)
        at_least("strategy.temperature", self.temperature, 1e-3)


@register_strategy("lwf", LwFConfig)
class LwF(Strategy):
    """Distils the network before a task into itself, on the task's samples; keeps no samples."""

    resumable = resumable_within_tasks = resumable_anywhere = True
    takes_sparsity = True
    clip_norm = 1.0  # as for naive: all weights go on changing in every task
    config: LwFConfig
    plugin: LearningWithoutForgetting

    def plugins(self, context: Context) -> list[BasePlugin]:
        from cl_powerprop.plugins.lwf import LearningWithoutForgetting

        self.plugin = LearningWithoutForgetting(self.config.alpha, self.config.temperature)
        return [*super().plugins(context), self.plugin]

    def state_dict(self) -> dict[str, Any]:
        if self.plugin.teacher is None:
            return {}
        tensors = {_TEACHER + name: value for name, value in self.plugin.teacher.state_dict().items()}
        return tensors | {"learned": self.plugin.learned}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        tensors = {key.removeprefix(_TEACHER): value for key, value in state.items() if key.startswith(_TEACHER)}
        if not tensors:
            return
        teacher = copy.deepcopy(model)
        teacher.load_state_dict(tensors)
        self.plugin.teach(teacher)
        self.plugin.learned = [int(each) for each in state["learned"]]
