"""Elastic weight consolidation: weights that mattered to earlier tasks are held back.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017, arXiv:1612.00796; the online
form is that of Schwarz et al., "Progress & Compress", ICML 2018. Avalanche's implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import at_least, check_choice
from cl_powerprop.strategies.base import Context, Strategy, StrategyConfig, Summary, register_strategy

if TYPE_CHECKING:
    from avalanche.core import BasePlugin
    from avalanche.training.plugins import EWCPlugin
    from torch import nn

MODES = ("online", "separate")
_TABLES = ("saved_params", "importances")  # of Avalanche's plugin: tensors by task and parameter


@dataclass(kw_only=True)
class EWCConfig(StrategyConfig):
    """`strategy=ewc`."""

    penalty: float
    mode: str
    decay: float

    def check(self, epochs: int) -> None:
        check_choice("strategy.mode", self.mode, MODES)
        at_least("strategy.penalty", self.penalty, 0)
        at_least("strategy.decay", self.decay, 0)


@register_strategy("ewc", EWCConfig)
class EWC(Strategy):
    """Adds a quadratic penalty to the loss, weighted by the diagonal of the Fisher information of earlier tasks."""

    resumable = resumable_within_tasks = resumable_anywhere = True
    takes_sparsity = True
    clip_norm = 1.0  # the penalty's own gradient has no bound
    config: EWCConfig
    plugin: EWCPlugin

    def plugins(self, context: Context) -> list[BasePlugin]:
        from cl_powerprop.plugins.ewc import DeviceEWC

        config = self.config
        decay = config.decay if config.mode == "online" else None
        self.plugin = DeviceEWC(config.penalty, config.mode, decay)
        return [self.plugin, *super().plugins(context)]

    def summary(self, model: nn.Module) -> Summary:
        anchors, importances = (getattr(self.plugin, table) for table in _TABLES)
        old = [anchors[task] for task in sorted(anchors)[:-1]]  # the newest are the network's own values
        kept = [each.data for table in (*old, *importances.values()) for each in table.values()]
        return replace(super().summary(model), importance_bits=sum(8 * each.nbytes for each in kept))

    def state_dict(self) -> dict[str, Any]:
        return {
            f"{table}/{task}/{name}": parameter.data
            for table in _TABLES
            for task, parameters in getattr(self.plugin, table).items()
            for name, parameter in parameters.items()
        }

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        from avalanche.training.utils import ParamData

        keys = [key.split("/", 2) for key in state]
        for name, parameter in model.named_parameters():  # Avalanche goes through both tables in this order
            for table, task, _ in (key for key in keys if key[2] == name):
                kept = state[f"{table}/{task}/{name}"].to(parameter.device)
                if kept.shape != parameter.shape:
                    raise ValueError(f"{table} of {name} have the shape {list(kept.shape)}")
                getattr(self.plugin, table)[int(task)][name] = ParamData(name, init_tensor=kept, device=kept.device)
