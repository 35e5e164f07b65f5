"""Avalanche's early stopping beside masks: it watches retraining anew, and goes back to the best network's masks."""

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EarlyStoppingPlugin
from avalanche.training.templates.base_sgd import PeriodicEval
from torch import Tensor

from cl_powerprop.plugins.learned_masks import LearnedMasks


def stoppers(strategy: Any) -> list[EarlyStoppingPlugin]:
    """Return a learner's plugins that stop training early, and put the best network back."""
    return [plugin for plugin in strategy.plugins if isinstance(plugin, EarlyStoppingPlugin)]


def watch_anew(strategy: Any) -> None:
    """Let early stopping forget the network so far: without its mask, it is another one."""
    found = stoppers(strategy)
    for plugin in strategy.plugins if found else ():
        if isinstance(plugin, PeriodicEval) and plugin.eval_every > 0:
            plugin._peval(strategy)  # what they watch from now on
    for stopper in found:
        stopper.before_training_exp(strategy)


class BestMasks(SupervisedPlugin):  # type: ignore[misc]
    """Keeps learned masks with the networks that early stopping keeps, and puts them back: it knows the network only.

    It must come after early stopping.

    Args:
        learned: the masks that the task in training learns.
    """

    def __init__(self, learned: LearnedMasks) -> None:
        super().__init__()
        self._learned = learned
        self._kept: dict[int, tuple[Any, dict[str, Tensor]]] = {}  # by stopper: the network that it keeps, and ours

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Follow early stopping by epochs."""
        self._follow(strategy)

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Follow early stopping by steps."""
        self._follow(strategy)

    @torch.no_grad()
    def _follow(self, strategy: Any) -> None:
        if not self._learned.is_attached:
            self._kept.clear()
            return
        for stopper in stoppers(strategy):
            if stopper.best_state is None:
                continue
            network, values = self._kept.get(id(stopper), (None, {}))
            if network is not stopper.best_state:
                values = {name: value.detach().clone() for name, value in self._learned.parameters.items()}
                self._kept[id(stopper)] = stopper.best_state, values
            since = stopper._get_strategy_counter(strategy) - stopper.best_step
            if strategy._stop_training and since >= stopper.patience:
                for name, value in values.items():
                    self._learned.parameters[name].copy_(value)
