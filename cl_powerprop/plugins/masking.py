"""The common base of PackNet and EfficientPackNet: a task trains, gets its mask, retrains through it, and is frozen."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.models import MultiHeadClassifier
from avalanche.models.utils import avalanche_forward
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import LayerCapacity, MaskAllocator, select_task
from cl_powerprop.sparsity.allocator import Unmasked
from cl_powerprop.sparsity.norm_statistics import recalibrate
from cl_powerprop.training.tensor_data import evaluation_batches

log = logging.getLogger("cl_powerprop")

HEADS = (TaskHeads, MultiHeadClassifier)


class MaskingPlugin(SupervisedPlugin, ABC):  # type: ignore[misc]
    """Runs the allocator in Avalanche's events. A subclass only has to choose the masks.

    The last ``retrain_epochs`` of the learner's ``train_epochs`` are for retraining. Each experience needs its own task
    label; a task that was not learned yet is evaluated with the network as it is.

    Args:
        retrain_epochs: epochs that train the new weights of the mask once it is chosen.
        unmasked: how biases and norm parameters are treated: "per_task" or "frozen" (see :class:`MaskAllocator`).
        seed: free weights are re-initialised for task k from (seed, k).

    Attributes:
        capacity: how much of each tensor the last finished task uses.
        search_seconds: time spent on choosing masks so far.
        messages: what the user should know about the run.

    Raises:
        ConfigurationError: if ``retrain_epochs`` is negative.
    """

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
        self._task_of_label: dict[int, int] = {}
        self._training = False

    @abstractmethod
    def choose_masks(self, strategy: Any) -> dict[str, Tensor]:
        """Return the mask of the task in training: boolean, by layer name."""

    def prepare_task(self, strategy: Any) -> None:
        """Prepare the masks before a task trains; by default there is nothing to do."""

    def task_of(self, experience: Any) -> int:
        """Return the index of the learned task that an experience belongs to; the number of learned tasks if none."""
        return self._task_of_label.get(experience.task_label, self.allocator.tasks)

    def tell(self, message: str) -> None:
        """Keep a message for the run's report, and log it."""
        self.messages.append(message)
        log.warning(message)

    def last_search(self) -> dict[str, Any] | None:
        """Return how the mask of the last finished task was found, as JSON values; None without a search."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what the next task depends on apart from the model, as JSON values."""
        return {"labels": list(self._task_of_label), "search_seconds": self.search_seconds}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        """Restore what :meth:`state_dict` returned, and put the allocator over a model whose state is loaded next.

        Args:
            state: the values by name.
            model: newly built; load its own state dict, which includes the masks, after this.
        """
        self.allocator = MaskAllocator(model, self.unmasked, exclude=HEADS)
        self._task_of_label = {label: task for task, label in enumerate(state["labels"])}
        self.search_seconds = state["search_seconds"]

    def before_training(self, strategy: Any, **_: Any) -> None:
        """Put the allocator over the model, before the first task."""
        if not hasattr(self, "allocator"):
            self.allocator = MaskAllocator(strategy.model, self.unmasked, exclude=HEADS)

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Start the next task.

        Raises:
            ConfigurationError: if the experience has no task label or one that was learned before, retraining leaves no
                epoch to train, or a masked layer was replaced since masking began.
        """
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
        if label in self._task_of_label:
            raise ConfigurationError(
                f"task label {label} came twice; masks need a label of its own for each experience "
                "(Avalanche's benchmarks give them with return_task_id=True)"
            )
        for name, layer in self.allocator.layers.items():
            # Avalanche's IncrementalClassifier, for example, replaces its layer when there are new classes.
            if strategy.model.get_submodule(name) is not layer:
                raise ConfigurationError(
                    f"layer {name} was replaced since masking began; give it all its outputs from the start"
                )
        self._task_of_label[label] = self.allocator.tasks
        self._training = True
        # Free weights start again from new values, which the optimizer's old moments would move.
        strategy.optimizer.state.clear()
        self.allocator.begin_task(generator(self.seed, "reinitialize", self.allocator.tasks))
        self.prepare_task(strategy)

    def after_update(self, strategy: Any, **_: Any) -> None:
        """Restore the frozen weights after the optimizer's step."""
        self.allocator.restore_frozen()

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Choose the mask when the epochs before retraining are over."""
        if strategy.clock.train_exp_epochs + 1 == strategy.train_epochs - self.retrain_epochs:
            start = time.perf_counter()
            self.allocator.propose(self.choose_masks(strategy))
            if not self.retrain_epochs:  # retraining would adapt the running statistics of batch norms to the mask
                recalibrate(strategy.model, _outputs(strategy))
            self.search_seconds += time.perf_counter() - start

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Give the task its mask and freeze the weights in it."""
        self.capacity = self.allocator.end_task()
        self._training = False

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Select the task to evaluate."""
        if hasattr(self, "allocator"):  # before any training the network is evaluated as it is
            select_task(strategy.model, self.task_of(strategy.experience))

    def after_eval(self, strategy: Any, **_: Any) -> None:
        """Select the task in training again, if the evaluation interrupted it."""
        if self._training:
            select_task(strategy.model, self.allocator.tasks)


def _outputs(strategy: Any) -> Iterator[Tensor]:
    """Yield the model's outputs for its training data, in batches."""
    label, size = strategy.experience.task_label, strategy.eval_mb_size
    for batch in evaluation_batches(strategy.adapted_dataset, label, size, strategy.device):
        if len(batch[1]) > 1:  # a batch of one sample has no statistics
            yield avalanche_forward(strategy.model, batch[0], batch[-1])
