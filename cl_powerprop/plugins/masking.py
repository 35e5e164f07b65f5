"""What PackNet and EfficientPackNet share: a task trains, gets its mask, is retrained through it, and is frozen."""

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
    """Runs the allocator through Avalanche's events. A method says only how it chooses a mask.

    The last ``retrain_epochs`` of a strategy's ``train_epochs`` go to retraining. Experiences need task labels of their
    own; a task that was not learned yet is evaluated with the network as it stands.

    Args:
        retrain_epochs: epochs that train the new weights of the mask once it is chosen.
        unmasked: what becomes of biases and norm parameters: "per_task" or "frozen" (see :class:`MaskAllocator`).
        seed: free weights are drawn anew for task k from (seed, k).
    """

    def __init__(self, retrain_epochs: int = 0, unmasked: Unmasked = "frozen", seed: int = 0) -> None:
        super().__init__()
        if retrain_epochs < 0:
            raise ConfigurationError(f"strategy.retrain_epochs must be at least 0, not {retrain_epochs}")
        self.retrain_epochs = retrain_epochs
        self.unmasked: Unmasked = unmasked
        self.seed = seed
        self.allocator: MaskAllocator
        self.capacity: list[LayerCapacity] = []  # rows of the task that ended last
        self.search_seconds = 0.0
        self.messages: list[str] = []  # what a user should know of this run
        self._task_of_label: dict[int, int] = {}
        self._training = False

    @abstractmethod
    def choose_masks(self, strategy: Any) -> dict[str, Tensor]:
        """Return the mask of the task in training: boolean, by layer name."""

    def prepare_task(self, strategy: Any) -> None:
        """Do what a method needs before a task trains."""

    def task_of(self, experience: Any) -> int:
        """Return which learned task an experience is of; the number of learned tasks if it is of none."""
        return self._task_of_label.get(experience.task_label, self.allocator.tasks)

    def tell(self, message: str) -> None:
        """Keep a message for the report of the run, and log it."""
        self.messages.append(message)
        log.warning(message)

    def last_search(self) -> dict[str, Any] | None:
        """Return how the mask of the task that ended last was found, as JSON values; None without a search."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what the next task depends on, the model apart, as JSON values."""
        return {"labels": list(self._task_of_label), "search_seconds": self.search_seconds}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        """Take back what :meth:`state_dict` returned, and put the allocator over a model that is loaded next.

        Args:
            state: the values by name.
            model: as it is built anew; load its own state dict, masks included, after this.
        """
        self.allocator = MaskAllocator(model, self.unmasked, exclude=HEADS)
        self._task_of_label = {label: task for task, label in enumerate(state["labels"])}
        self.search_seconds = state["search_seconds"]

    def before_training(self, strategy: Any, **_: Any) -> None:
        """Put the allocator over the model, once."""
        if not hasattr(self, "allocator"):
            self.allocator = MaskAllocator(strategy.model, self.unmasked, exclude=HEADS)

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Start the next task.

        Raises:
            ConfigurationError: if its label was learned before, there is no epoch left to train before retraining, or a
                masked layer was replaced since masking began.
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
            # Avalanche's IncrementalClassifier, for one, makes a new layer when classes come.
            if strategy.model.get_submodule(name) is not layer:
                raise ConfigurationError(
                    f"layer {name} was replaced since masking began; give it all its outputs from the start"
                )
        self._task_of_label[label] = self.allocator.tasks
        self._training = True
        # A freed weight is a new weight: moments of its past life would move it.
        strategy.optimizer.state.clear()
        self.allocator.begin_task(generator(self.seed, "reinitialize", self.allocator.tasks))
        self.prepare_task(strategy)

    def after_update(self, strategy: Any, **_: Any) -> None:
        """Put frozen weights back, whatever the optimizer did."""
        self.allocator.restore_frozen()

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Choose the mask when the epochs before retraining are over."""
        if strategy.clock.train_exp_epochs + 1 == strategy.train_epochs - self.retrain_epochs:
            start = time.perf_counter()
            self.allocator.propose(self.choose_masks(strategy))
            if not self.retrain_epochs:  # nothing else would tell batch norms of the mask
                recalibrate(strategy.model, _outputs(strategy))
            self.search_seconds += time.perf_counter() - start

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Give the task its mask and freeze what it holds."""
        self.capacity = self.allocator.end_task()
        self._training = False

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """See the network as the task to evaluate does."""
        if hasattr(self, "allocator"):  # before any training the network is evaluated as it is
            select_task(strategy.model, self.task_of(strategy.experience))

    def after_eval(self, strategy: Any, **_: Any) -> None:
        """Go back to the task in training, if an evaluation came in between."""
        if self._training:
            select_task(strategy.model, self.allocator.tasks)


def _outputs(strategy: Any) -> Iterator[Tensor]:
    """Yield the model's outputs for its training data, in batches."""
    label, size = strategy.experience.task_label, strategy.eval_mb_size
    for batch in evaluation_batches(strategy.adapted_dataset, label, size, strategy.device):
        if len(batch[1]) > 1:  # one sample alone has no statistics
            yield avalanche_forward(strategy.model, batch[0], batch[-1])
