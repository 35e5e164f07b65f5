"""The common base of all methods with masks: a task trains, gets its mask, retrains through it, and is frozen."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.models import MultiHeadClassifier
from avalanche.models.utils import avalanche_forward
from avalanche.training.utils import trigger_plugins
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.plugins.early_stopping import BestMasks, stoppers, watch_anew
from cl_powerprop.plugins.learned_masks import LearnedMasks
from cl_powerprop.plugins.padding import never_predict_padding
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import LayerCapacity, MaskAllocator, MaskedWeight, select_task
from cl_powerprop.sparsity.allocator import Unmasked, restore_together
from cl_powerprop.sparsity.norm_statistics import recalibrate, statistics_size
from cl_powerprop.training.loaders import statistics_batches

log = logging.getLogger("cl_powerprop")

HEADS = (TaskHeads, MultiHeadClassifier)
# What the state of a task in training has in addition.
_WITHIN_TASK = ("messages", "trained", "retrained", "steps_at_choice")
_MASK = "mask/"  # what the names of its masks begin with
_COVERED = 0.95  # share of the weights below which the user is told what has no mask


class MaskingPlugin(SupervisedPlugin, ABC):  # type: ignore[misc]
    """Runs the allocator in Avalanche's events. A subclass only has to choose the masks.

    The last ``retrain_epochs`` of the learner's ``train_epochs`` are for retraining. If training is stopped early
    (``strategy.stop_training()``, as Avalanche's ``EarlyStoppingPlugin`` does), the mask is chosen then and retrained
    for as many epochs; a stop during retraining ends the task. Early stopping watches training and retraining apart.

    Each experience needs its own task label; a task that was not learned yet is evaluated with the network as it is.
    Labels are kept with the masks in the model's state.

    Args:
        retrain_epochs: epochs that train the new weights of the mask once it is chosen.
        unmasked: how biases and norm parameters are treated: "per_task" or "frozen" (see :class:`MaskAllocator`).
        seed: free weights are re-initialised for task k from (seed, k).

    Attributes:
        capacity: how much of each tensor the last finished task uses.
        search_seconds: time spent on choosing masks so far.
        messages: what the user should know about the run.
        mask_chosen: the task in training has its mask, and is retrained.
        changes_masks: recorded steps must find all masks in one place.
        learned: what learns a mask while its task trains; None if a mask is only chosen afterwards.
        reinitializes: free weights start each task from new values.

    Raises:
        ConfigurationError: if ``retrain_epochs`` is negative.
    """

    changes_masks = True
    reinitializes = True
    learned: LearnedMasks | None = None

    def __init__(self, retrain_epochs: int = 0, unmasked: Unmasked = "frozen", seed: int = 0) -> None:
        super().__init__()
        if retrain_epochs < 0:
            raise ConfigurationError(f"strategy.retrain_epochs must be at least 0, not {retrain_epochs}")
        self.retrain_epochs = retrain_epochs
        self.unmasked: Unmasked = unmasked
        self.seed = seed
        self.allocator: MaskAllocator
        self.capacity: list[LayerCapacity] = []
        self.search_seconds = 0.0
        self.messages: list[str] = []
        self.mask_chosen = False
        self._label: int | None = None
        self._retrained = 0
        self._steps_at_choice = 0
        self._resumed: Mapping[str, Any] = {}
        self._best: BestMasks | None = None
        self._last = _AfterTheOthers(self)

    @abstractmethod
    def choose_masks(self, strategy: Any) -> dict[str, Tensor]:
        """Return the mask of the task in training: boolean, by layer name."""

    def prepare_task(self, strategy: Any) -> None:
        """Prepare the masks before a task trains; by default there is nothing to do."""

    def task_of(self, experience: Any) -> int:
        """Return the index of the learned task that an experience belongs to; the number of learned tasks if none."""
        labels = self.allocator.labels
        return labels.index(experience.task_label) if experience.task_label in labels else len(labels)

    def tell(self, message: str) -> None:
        """Keep a message for the run's report, and log it."""
        self.messages.append(message)
        log.warning(message)

    def settings(self) -> dict[str, Any]:
        """Return the options that tell this plugin's runs from others, as JSON values."""
        own = {"masks": type(self).__name__, "retrain_epochs": self.retrain_epochs, "unmasked": self.unmasked}
        return own if self.learned is None else own | self.learned.settings()

    def last_search(self) -> dict[str, Any] | None:
        """Return how the mask of the last finished task was found, as JSON values; None without a search."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what the next task depends on apart from the model, or the next epoch of the task in training.

        They are JSON values and tensors; the latter only within a task, or if learned masks go on to the next one.
        """
        state: dict[str, Any] = {"search_seconds": self.search_seconds}
        if self.learned is not None:
            state |= self.learned.state_dict(within_task=self._label is not None)
        if self._label is not None:
            state |= {"messages": self.messages, "trained": self.allocator.trained_unmasked()}
        if self.mask_chosen and self._label is not None:
            state |= {"retrained": self._retrained, "steps_at_choice": self._steps_at_choice}
            state |= {f"{_MASK}{name}": weight.training_view for name, weight in self.allocator.weights.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        """Restore what :meth:`state_dict` returned, and put the allocator over a model whose state is loaded next.

        Args:
            state: the values by name.
            model: newly built; load its own state dict, which includes the masks, after this.
        """
        self._cover(model)
        self.search_seconds = state["search_seconds"]
        if self.learned is not None:
            self.learned.load_state_dict(state)
        self._resumed = {key: state[key] for key in state if key in _WITHIN_TASK or key.startswith(_MASK)}

    def _go_on(self) -> None:
        """Go on within the task that has begun, if :meth:`load_state_dict` was given the state of one."""
        state, self._resumed = self._resumed, {}
        self.messages = state.get("messages", self.messages)
        self.allocator.note_trained(state.get("trained", ()))
        if "retrained" in state:
            self.mask_chosen, self._retrained = True, state["retrained"]
            self._steps_at_choice = state["steps_at_choice"]
            weights = self.allocator.weights
            self.allocator.propose({name: state[_MASK + name].to(weights[name].owner.device) for name in weights})

    def _cover(self, model: nn.Module) -> None:
        """Put the allocator over the model, and tell what it leaves out."""
        self.allocator = MaskAllocator(model, self.unmasked, exclude=HEADS)
        if self.learned is not None:
            self.learned.cover(self.allocator)
            self._best = BestMasks(self.learned)
        never_predict_padding(model)
        coverage = self.allocator.coverage
        if coverage < _COVERED:
            names = sorted(self.allocator.uncovered, key=self.allocator.uncovered.__getitem__, reverse=True)
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            fate = "kept for each task" if self.unmasked == "per_task" else "frozen after the first task"
            self.tell(f"masks cover {coverage:.1%} of the network's weights; {shown}: no mask, {fate}")

    def before_training(self, strategy: Any, **_: Any) -> None:
        """Put the allocator over the model, before the first task.

        Raises:
            ConfigurationError: if another plugin gives masks too, or the masks are those of another model.
        """
        masking = [type(plugin).__name__ for plugin in masking_plugins(strategy)]
        if len(masking) > 1:
            raise ConfigurationError(f"{' and '.join(masking)} on one strategy: a task can have one mask; keep one")
        if not hasattr(self, "allocator"):
            self._cover(strategy.model)
        if not any(module is self.allocator.model for module in strategy.model.modules()):
            raise ConfigurationError(
                f"this {masking[0]} has the masks of another model; make a new plugin for each model"
            )
        if self.learned is not None:
            self.learned.join(strategy.optimizer)
        others = [plugin for plugin in strategy.plugins if plugin not in (self._best, self._last)]
        last = [plugin for plugin in others if getattr(plugin, "comes_last", False)]  # ours, which stop nothing
        best = [self._best] if self._best is not None and stoppers(strategy) else []
        strategy.plugins[:] = [*(plugin for plugin in others if plugin not in last), *best, self._last, *last]

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Start the next task.

        Raises:
            ConfigurationError: if the experience has no task label, one that was learned before, or samples of several
                tasks; if retraining leaves no epoch to train; or if a masked layer was replaced since masking began.
        """
        self.mask_chosen, self._label, self._retrained = False, None, 0
        if not 0 <= self.retrain_epochs < strategy.train_epochs:
            raise ConfigurationError(
                f"retrain_epochs={self.retrain_epochs} leaves no epoch to train of "
                f"train_epochs={strategy.train_epochs}, which counts both"
            )
        label = getattr(strategy.experience, "task_label", None)
        if label is None:
            raise ConfigurationError(
                "masks need one task label for each experience, and this benchmark has none; add them with "
                "avalanche.benchmarks.task_incremental_benchmark(benchmark)"
            )
        labels = getattr(strategy.adapted_dataset, "targets_task_labels", None)
        if labels is not None and len(labels.uniques) > 1:
            raise ConfigurationError(
                f"masks need the samples of one task at a time; this strategy trains tasks "
                f"{', '.join(map(str, sorted(labels.uniques)))} together"
            )
        if label in self.allocator.labels:
            raise ConfigurationError(
                f"task label {label} came twice; masks need a label of its own for each experience "
                "(Avalanche's benchmarks give them with return_task_id=True)"
            )
        # Free weights start again from new values, which the optimizer's old moments would move.
        strategy.optimizer.state.clear()
        draws = generator(self.seed, "reinitialize", self.allocator.tasks) if self.reinitializes else None
        self.allocator.begin_task(draws)
        self._label = label
        if self.learned is not None:
            self.learned.begin_task()
        self.prepare_task(strategy)
        self._go_on()

    def graph_tensors(self, strategy: Any) -> Iterable[Tensor]:
        learned = [] if self.learned is None else self.learned.in_use
        return [*self.allocator.restored_tensors(), *learned]

    def after_update(self, strategy: Any, **_: Any) -> None:
        """Restore the frozen weights after the optimizer's step."""
        self.allocator.restore_frozen()

    def stack_key(self, strategy: Any) -> Hashable | None:
        """Return what learners have in common that train together; their masks may differ."""
        return ()

    def stack(self, together: Any, plugins: Sequence["MaskingPlugin"]) -> dict[str, Callable[[], None]]:
        """Restore the frozen weights of all learners."""
        restore = restore_together([plugin.allocator for plugin in plugins], together.stacked, together.hold)
        return {"after_update": restore}

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Choose the mask when training is over, and end the task when retraining is."""
        if self.mask_chosen:
            self.epoch_retrained(strategy, self._retrained + 1)  # may save: the epoch counts once it is back
            self._retrained += 1
            if self._retrained == self.retrain_epochs:
                strategy.stop_training()  # after an early stop, epochs are left over
        elif strategy.clock.train_exp_epochs + 1 == strategy.train_epochs - self.retrain_epochs:
            self._choose(strategy)
        else:
            self.choose_if_stopped(strategy)

    def epoch_retrained(self, strategy: Any, epochs: int) -> None:
        """Called after each epoch of retraining with their number so far; by default there is nothing to do."""

    def choose_if_stopped(self, strategy: Any) -> None:
        """Choose the mask if training was told to stop."""
        if strategy._stop_training and not self.mask_chosen:
            self._choose(strategy)

    def retraining_is_next(self, strategy: Any) -> bool:
        """Return whether the mask is chosen, and no step of retraining is made yet."""
        at_choice = bool(strategy.clock.train_exp_iterations == self._steps_at_choice)
        return self.mask_chosen and self.retrain_epochs > 0 and at_choice

    def _choose(self, strategy: Any) -> None:
        trigger_plugins(strategy, "can_save")
        self.propose_masks(strategy)
        if not self.retrain_epochs:  # retraining would adapt the running statistics of batch norms to the mask
            recalibrate(strategy.model, _outputs(strategy))
        self.mask_chosen, self._steps_at_choice = True, strategy.clock.train_exp_iterations
        if self.retrain_epochs:
            strategy._stop_training = False  # that was the end of training, not of the task
            _begin_retraining(strategy)

    def propose_masks(self, strategy: Any) -> None:
        """Choose the task's masks, and count the time that it takes."""
        start = time.perf_counter()
        self.allocator.propose(self.choose_masks(strategy))
        self.search_seconds += time.perf_counter() - start

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Give the task its mask and freeze the weights in it."""
        if not self.mask_chosen:
            self.tell(f"task {self.allocator.tasks}: training ended without its last epoch; it was not retrained")
            self._choose(strategy)
        if self.retraining_is_next(strategy):
            recalibrate(strategy.model, _outputs(strategy))  # retraining was stopped before its first step
        self.capacity = self.allocator.end_task(self._label)
        self._label = None
        strategy._stop_training = False  # done; else Avalanche would stop the next experience of this call

    def before_eval(self, strategy: Any, **_: Any) -> None:
        """Find the masks of a model whose state was loaded.

        Raises:
            ConfigurationError: if a masked layer was replaced, or something else computes its weight now.
        """
        loaded = any(isinstance(module, MaskedWeight) and module.tasks for module in strategy.model.modules())
        if loaded and not hasattr(self, "allocator"):
            self._cover(strategy.model)
        if hasattr(self, "allocator"):
            self.allocator.check_layers()

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Select the task to evaluate."""
        if hasattr(self, "allocator"):  # before any training the network is evaluated as it is
            select_task(strategy.model, self.task_of(strategy.experience))

    def after_eval(self, strategy: Any, **_: Any) -> None:
        """Select the task in training again, if the evaluation interrupted it."""
        if self._label is not None:
            select_task(strategy.model, self.allocator.tasks)


def masking_plugins(learner: Any) -> list[MaskingPlugin]:
    """Return the plugins of a learner that give tasks masks."""
    return [plugin for plugin in learner.plugins if isinstance(plugin, MaskingPlugin)]


class _AfterTheOthers(SupervisedPlugin):  # type: ignore[misc]
    """Comes after all other plugins, of which any may stop the training before an epoch."""

    def __init__(self, masking: MaskingPlugin) -> None:
        super().__init__()
        self.masking = masking

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Choose the mask if this epoch of training will not be."""
        self.masking.choose_if_stopped(strategy)

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Forget a stop of the training that has just ended: it is not one of the retraining."""
        if self.masking.retraining_is_next(strategy):
            strategy._stop_training = False


def _begin_retraining(strategy: Any) -> None:
    """Tell plugins of ours that retraining begins, and let early stopping forget the network without its mask."""
    trigger_plugins(strategy, "retraining_begins")
    watch_anew(strategy)


def _outputs(strategy: Any) -> Iterator[Tensor]:
    """Yield the model's outputs for its training data, in batches."""
    label, size = strategy.experience.task_label, statistics_size(strategy.model, strategy.eval_mb_size)
    for batch in statistics_batches(strategy.adapted_dataset, label, size, strategy.device):
        yield avalanche_forward(strategy.model, batch[0], batch[-1])
