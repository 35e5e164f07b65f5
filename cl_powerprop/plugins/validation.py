"""The accuracy of a network on validation samples, under the masks that it has at the time."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from itertools import compress
from typing import Any, NamedTuple

import torch
from avalanche.models.utils import avalanche_forward, is_multi_task_module

from cl_powerprop.sparsity.norm_statistics import batch_statistics, statistics_size
from cl_powerprop.training.loaders import statistics_batches
from cl_powerprop.training.stacked import train_alone
from cl_powerprop.training.stacked_network import NotStackedError, StackedNetwork, network_key
from cl_powerprop.training.unseen import unseen

Until = Callable[[float, float], bool]
"""Called as ``until(lowest, highest)`` with the accuracies that are still possible; returns whether that is enough."""


class Hits(NamedTuple):
    """How many samples were right in the first batches."""

    right: int = 0
    batches: int = 0


class Validation:
    """Validates the network of a learner; samples are loaded once, here.

    Batch norms use the statistics of each batch, since their running ones were gathered with no mask applied.

    Args:
        strategy: the learner. Those in lockstep are validated at once.
        data: Avalanche's data set of the samples.

    Attributes:
        stacked: its network and those of others that were validated at once with it, if it was the first of them.
    """

    def __init__(self, strategy: Any, data: Any) -> None:
        self._strategy = strategy
        self._model = strategy.model
        size = statistics_size(strategy.model, strategy.eval_mb_size)
        self._batches = list(statistics_batches(data, strategy.experience.task_label, size, strategy.device))
        self._sizes = [len(batch[1]) for batch in self._batches]
        self._samples = sum(self._sizes)
        self.stacked: StackedNetwork | None = None

    @torch.no_grad()
    def count(self, until: Until | None = None, begun: Hits = Hits()) -> Hits:  # noqa: B008
        """Go on after some batches, and return how many samples were right.

        Args:
            until: called after each batch. None for all batches.
            begun: of the batches that were counted before.
        """
        counting = _Counting(self, until, begun)
        lockstep = getattr(self._strategy, "lockstep", None)
        if lockstep is not None:
            position = (*self._strategy.position, 1)  # after the epoch
            lockstep.meet(self._key() or ("alone", self._strategy.seed), counting, _count_together, position)
        for batch in self._batches[counting.hits.batches :] if not counting.is_over else ():
            counting.add(self._hits(batch))
            if counting.is_over:
                break
        return counting.hits

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

    def _key(self) -> Hashable | None:
        """Return what validations have in common that can be done at once; None if this cannot be one of them."""
        network = network_key(self._model)
        strategy = self._strategy
        if network is None or not strategy.stacks or is_multi_task_module(self._model) or unseen(strategy) is not None:
            return None
        return "validation", self._strategy.experience.current_experience, len(self._batches), network


class _Counting:
    """A count that goes on from batch to batch.

    Attributes:
        hits: so far.
        is_over: no more batches are needed.
    """

    def __init__(self, validation: Validation, until: Until | None, begun: Hits) -> None:
        self.validation = validation
        self.hits = begun
        self.is_over = begun.batches == len(validation._sizes)
        self._until = until

    def add(self, right: int) -> None:
        """Count the next batch, of which so many samples were right."""
        validation, done = self.validation, self.hits.batches + 1
        self.hits = Hits(self.hits.right + right, done)
        reachable = self.hits.right + sum(validation._sizes[done:])
        shares = self.hits.right / validation._samples, reachable / validation._samples
        self.is_over = done == len(validation._sizes) or (self._until is not None and self._until(*shares))


@torch.no_grad()
def _count_together(countings: Sequence[_Counting]) -> list[None]:
    """Count what several networks get right, batch by batch, as long as two need more."""
    done = [None for _ in countings]
    validations = [counting.validation for counting in countings]
    equal = len({validation._batches[0][0].shape for validation in validations}) == 1
    network = _stack(validations) if equal and len(countings) > 1 else None
    if network is None:
        return done
    network.load()
    for index, batches in enumerate(zip(*(validation._batches for validation in validations), strict=True)):
        shapes = {batch[0].shape for batch in batches}
        if len(shapes) > 1 or sum(not counting.is_over for counting in countings) < 2:
            break  # each counts the rest for itself
        waiting = [not counting.is_over and counting.hits.batches == index for counting in countings]
        if not any(waiting):
            continue
        answers = network(torch.stack([batch[0] for batch in batches])).argmax(2)
        hits = (answers == torch.stack([batch[1] for batch in batches])).sum(1).tolist()
        for counting, right in compress(zip(countings, hits, strict=True), waiting):
            counting.add(right)
    return done


def _stack(validations: Sequence[Validation]) -> StackedNetwork | None:
    """Return the networks as one in evaluation mode, batch norms apart; None if they cannot be."""
    first, models = validations[0], [validation._model for validation in validations]
    if first.stacked is not None and first.stacked.models == models:
        return first.stacked
    with ExitStack() as stack:
        for model in models:
            stack.callback(model.train, model.training)
            model.eval()
            stack.enter_context(batch_statistics(model))
        first.stacked = StackedNetwork(models)
        try:
            first.stacked.try_out(first._batches[0][0][:1])
        except NotStackedError as error:
            train_alone([validation._strategy for validation in validations], error)
            first.stacked = None
    return first.stacked
