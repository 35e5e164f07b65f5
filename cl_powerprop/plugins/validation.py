"""The accuracy of a network on validation samples, under the masks that it has at the time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from avalanche.models.utils import avalanche_forward

from cl_powerprop.sparsity.norm_statistics import batch_statistics, statistics_size
from cl_powerprop.training.tensor_data import statistics_batches


class Hits(NamedTuple):
    """How many samples were right in the first batches."""

    right: int = 0
    batches: int = 0


class Validation:
    """Validates the network of a learner; samples are loaded once, here.

    Batch norms use the statistics of each batch, since their running ones were gathered with no mask applied.

    Args:
        strategy: the learner.
        data: Avalanche's data set of the samples.
    """

    def __init__(self, strategy: Any, data: Any) -> None:
        self._model = strategy.model
        size = statistics_size(strategy.model, strategy.eval_mb_size)
        self._batches = list(statistics_batches(data, strategy.experience.task_label, size, strategy.device))
        self._samples = sum(len(batch[1]) for batch in self._batches)

    @torch.no_grad()
    def count(self, until: Callable[[float, float], bool] | None = None, begun: Hits = Hits()) -> Hits:  # noqa: B008
        """Go on after some batches, and return how many samples were right.

        Args:
            until: called as ``until(lowest, highest)`` with the accuracies that are still possible after each batch;
                returns whether that is enough. None for all batches.
            begun: of the batches that were counted before.
        """
        right, done = begun
        reachable = self._samples - (sum(len(batch[1]) for batch in self._batches[:done]) - right)
        for batch in self._batches[done:]:
            hits = self._hits(batch)
            right, done = right + hits, done + 1
            reachable -= len(batch[1]) - hits
            if until is not None and until(right / self._samples, reachable / self._samples):
                break
        return Hits(right, done)

    def accuracy(self, hits: Hits) -> float:
        """Return the accuracy if all samples in other batches are wrong."""
        return hits.right / self._samples

    def _hits(self, batch: Any) -> int:
        training = self._model.training
        self._model.eval()
        with batch_statistics(self._model):
            answers = avalanche_forward(self._model, batch[0], batch[-1]).argmax(1)
        self._model.train(training)
        return int((answers == batch[1]).sum())
