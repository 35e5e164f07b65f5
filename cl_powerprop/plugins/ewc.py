"""Elastic weight consolidation in Avalanche's events, with a penalty that is computed on the device alone."""

from collections.abc import Iterable
from typing import Any

import torch
from avalanche.training.plugins import EWCPlugin
from torch import Tensor


class DeviceEWC(EWCPlugin):  # type: ignore[misc]
    """Avalanche's ``EWCPlugin`` with the same numbers, whose steps can be recorded: none copies a number to the GPU."""

    def graph_tensors(self, strategy: Any) -> Iterable[Tensor]:
        tables = (self.saved_params, self.importances)
        return [kept.data for table in tables for values in table.values() for kept in values.values()]

    def before_backward(self, strategy: Any, **_: Any) -> None:
        """Add the penalty to the loss."""
        learned = strategy.clock.train_exp_counter
        if not learned:
            return
        penalty = torch.zeros((), device=strategy.device)
        for task in range(learned) if self.mode == "separate" else (learned - 1,):
            saved, importances = self.saved_params[task], self.importances[task]
            for name, parameter in strategy.model.named_parameters():
                if name in saved:
                    distance = parameter - saved[name].expand(parameter.shape)
                    penalty += (importances[name].expand(parameter.shape) * distance.pow(2)).sum()
        strategy.loss += self.ewc_lambda * penalty
