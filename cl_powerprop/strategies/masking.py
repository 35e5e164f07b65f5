"""What PackNet, EPN, WSN, SupSup and HAT share as strategies: a mask for each task over the weights of one network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.strategies.base import Context, Strategy, StrategyConfig, Summary, TaskReport
from cl_powerprop.training.phase import Phase

if TYPE_CHECKING:
    from avalanche.core import BasePlugin
    from torch import nn

    from cl_powerprop.plugins.masking import MaskingPlugin
    from cl_powerprop.sparsity.allocator import Unmasked

TASK_INFERENCE = ("none", "entropy")


@dataclass(kw_only=True)
class MaskingConfig(StrategyConfig):
    """What strategies with masks have.

    Attributes:
        retrain_epochs: epochs, of those a task is trained for, that come after its mask is chosen; None for half.
        retrain_lr: times the optimizer's rate.
        task_inference: "none", or "entropy" to infer the task of test samples.
        inference_batch: test samples of one task that are known to belong together.
    """

    retrain_epochs: int | None = None
    retrain_lr: float = 0.5
    task_inference: str = "none"
    inference_batch: int = 100

    def settle(self, epochs: int) -> None:
        if self.retrain_epochs is None:
            self.retrain_epochs = epochs // 2

    def check(self, epochs: int) -> None:
        if not self.retrain_lr >= 0.0:
            raise ConfigurationError(f"strategy.retrain_lr must be at least 0, not {self.retrain_lr}")
        if self.retraining < 0:
            raise ConfigurationError(f"strategy.retrain_epochs must be at least 0, not {self.retrain_epochs}")
        if self.retraining >= epochs:
            raise ConfigurationError(
                f"strategy.retrain_epochs={self.retrain_epochs} leaves no epoch to train of "
                f"train.epochs={epochs}, which counts both; strategy.retrain_epochs=null is half of them"
            )
        check_choice("strategy.task_inference", self.task_inference, TASK_INFERENCE)
        if self.inference_batch < 1:
            raise ConfigurationError(f"strategy.inference_batch must be at least 1, not {self.inference_batch}")

    @property
    def retraining(self) -> int:
        """Epochs of retraining, as :meth:`settle` left them."""
        return self.retrain_epochs or 0


class ReportsMasks(Strategy):
    """Reports the masks that a :class:`MaskingPlugin` on the learner gives to tasks.

    Attributes:
        plugin: the plugin.
    """

    needs_task = True
    tests_unseen = False
    resumable = resumable_within_tasks = resumable_anywhere = True
    plugin: MaskingPlugin

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._searched = 0.0  # seconds of search that were reported

    def settings(self) -> dict[str, Any]:
        return {"strategy": self.plugin.settings()}

    def report(self) -> TaskReport:
        plugin = self.plugin
        messages, plugin.messages = plugin.messages, []
        searched, self._searched = plugin.search_seconds - self._searched, plugin.search_seconds
        return TaskReport(plugin.allocator.capacity_used, plugin.capacity, plugin.last_search(), searched, messages)

    def summary(self, model: nn.Module) -> Summary:
        from cl_powerprop.evaluation.weights import weight_histogram
        from cl_powerprop.networks.heads import TaskHeads

        allocator = self.plugin.allocator
        weights = weight_histogram(model, (TaskHeads,), masked=True)
        return Summary(weights, allocator.mask_bits, allocator.overlaps(), allocator.coverage)

    def mask_options(self) -> dict[str, Any]:
        return {"unmasked": self.plugin.unmasked}

    def state_dict(self) -> dict[str, Any]:
        begun = hasattr(self.plugin, "allocator")
        frozen = self.plugin.allocator.frozen_parameters if begun else []
        return self.plugin.state_dict() | {"reported_seconds": self._searched, "frozen": frozen}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        self.plugin.load_state_dict(state, model)
        self.plugin.allocator.freeze(state.get("frozen", ()))
        self._searched = state.get("reported_seconds", self.plugin.search_seconds)


class MaskingStrategy(ReportsMasks):
    """Lets a plugin of its own give each task its mask; a derived strategy says which."""

    gives_masks = True
    task_hint = "strategy.task_inference=entropy infers it"
    config: MaskingConfig

    def __init__(self, config: MaskingConfig) -> None:
        super().__init__(config)
        self.infers_task = config.task_inference != "none"
        self.inference_batch = config.inference_batch
        self._inference: Any = None

    @abstractmethod
    def make_plugin(self, context: Context, **shared: Any) -> MaskingPlugin:
        """Return the strategy's own plugin; ``shared`` are the arguments of :class:`MaskingPlugin`."""

    def plugins(self, context: Context) -> list[BasePlugin]:
        from cl_powerprop.plugins.task_inference import EntropyTaskInference

        unmasked: Unmasked = "per_task" if context.bias == "per_task" else "frozen"
        shared = {"retrain_epochs": self.config.retraining, "unmasked": unmasked, "seed": context.seed}
        self.plugin = self.make_plugin(context, **shared)
        if not self.infers_task:
            return [self.plugin]
        self._inference = EntropyTaskInference(self.plugin, self.inference_batch)
        return [self.plugin, self._inference]

    def phases(self, epochs: int) -> list[Phase]:
        retraining = self.config.retraining
        if not retraining:
            return [Phase(epochs)]
        return [Phase(epochs - retraining), Phase(retraining, self.config.retrain_lr)]

    def identified(self) -> Mapping[int, float]:
        return {} if self._inference is None else dict(self._inference.identified)


def strategy_of(learner: Any) -> Strategy:
    """Return what reports on a learner that was made by hand: its masks, if a plugin of it gives tasks some."""
    from cl_powerprop.plugins.masking import masking_plugins

    reports = ReportsMasks()
    for plugin in masking_plugins(learner):
        reports.plugin = plugin
        return reports
    return Strategy()
