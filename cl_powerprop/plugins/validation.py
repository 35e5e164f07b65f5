"""How good a network is on validation samples, under the masks that it has at the time."""

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from itertools import compress
from typing import Any, NamedTuple

import torch
from avalanche.models.utils import avalanche_forward, is_multi_task_module
from torch import Tensor

from cl_powerprop.plugins.judging import JUDGE_BY_NAME
from cl_powerprop.sparsity.norm_statistics import batch_statistics, statistics_size
from cl_powerprop.training.loaders import statistics_batches
from cl_powerprop.training.stacked import train_alone
from cl_powerprop.training.stacked_network import NotStackedError, StackedNetwork, network_key
from cl_powerprop.training.unseen import unseen

Until = Callable[[float, float], bool]
"""Called as ``until(lowest, highest)`` with the means that are still possible; returns whether that is enough."""


class Sum(NamedTuple):
    """The sum of the values of all samples in the first batches."""

    total: float = 0
    batches: int = 0


class Validation:
    """Validates the network of a learner; samples are loaded once, here.

    Batch norms use the statistics of each batch, since their running ones were gathered with no mask applied.

    Args:
        strategy: the learner. Those in lockstep are validated at once.
        data: Avalanche's data set of the samples.
        judge: what samples are judged by, one of :data:`~cl_powerprop.plugins.judging.JUDGE_BY_NAME`.

    Attributes:
        stacked: its network and those of others that were validated at once with it, if it was the first of them.
    """

    def __init__(self, strategy: Any, data: Any, judge: str = "accuracy") -> None:
        self._strategy = strategy
        self.judge = JUDGE_BY_NAME[judge]
        self._model = strategy.model
        size = statistics_size(strategy.model, strategy.eval_mb_size)
        self._batches = list(statistics_batches(data, strategy.experience.task_label, size, strategy.device))
        self._sizes = [len(batch[1]) for batch in self._batches]
        self._samples = sum(self._sizes)
        self.stacked: StackedNetwork | None = None

    @torch.no_grad()
    def add_up(self, until: Until | None = None, begun: Sum = Sum()) -> Sum:  # noqa: B008
        """Go on after some batches, and return the sum of the values of the samples.

        Args:
            until: called after each batch. None for all batches.
            begun: of the batches that were added before.
        """
        adding = _Adding(self, until, begun)
        lockstep = getattr(self._strategy, "lockstep", None)
        if lockstep is not None:
            position = (*self._strategy.position, 1)  # after the epoch
            lockstep.meet(self._key() or ("alone", self._strategy.seed), adding, _add_together, position)
        for batch in self._batches[adding.sum.batches :] if not adding.is_over else ():
            adding.add(self._values(batch).sum().item())
            if adding.is_over:
                break
        return adding.sum

    def mean(self, sum: Sum) -> float:
        """Return the mean over all samples if those in other batches add nothing."""
        return sum.total / self._samples

    def reached(self, begun: Sum = Sum()) -> tuple[float, float]:  # noqa: B008
        """Return the mean value of all samples and the accuracy.

        Args:
            begun: the sum over the batches that were added before.
        """
        mean = self.mean(self.add_up(begun=begun))
        return mean, mean if self.judge.counts else self._accuracy()

    @torch.no_grad()
    def _accuracy(self) -> float:
        is_right = JUDGE_BY_NAME["accuracy"].score
        right = sum(int(is_right(self._outputs(batch), batch[1]).sum()) for batch in self._batches)
        return right / self._samples

    @torch.no_grad()
    def standard_error(self) -> float:
        """Return the standard error of the mean."""
        values = torch.cat([self._values(batch).double() for batch in self._batches])
        return float(values.std(correction=0) / math.sqrt(len(values)))

    def _values(self, batch: Any) -> Tensor:
        return self.judge.score(self._outputs(batch), batch[1])

    def _outputs(self, batch: Any) -> Tensor:
        training = self._model.training
        self._model.eval()
        with batch_statistics(self._model):
            outputs: Tensor = avalanche_forward(self._model, batch[0], batch[-1])
        self._model.train(training)
        return outputs

    def _key(self) -> Hashable | None:
        """Return what validations have in common that can be done at once; None if this cannot be one of them."""
        network, strategy = network_key(self._model), self._strategy
        if not self.judge.counts or network is None or not strategy.stacks:
            return None
        if is_multi_task_module(self._model) or unseen(strategy) is not None:
            return None
        return "validation", self._strategy.experience.current_experience, len(self._batches), network


class _Adding:
    """A sum that goes on from batch to batch.

    Attributes:
        sum: so far.
        is_over: no more batches are needed.
    """

    def __init__(self, validation: Validation, until: Until | None, begun: Sum) -> None:
        self.validation = validation
        self.sum = begun
        self.is_over = begun.batches == len(validation._sizes)
        self._until = until

    def add(self, values: float) -> None:
        """Add the sum over the next batch."""
        validation, done = self.validation, self.sum.batches + 1
        self.sum = Sum(self.sum.total + values, done)
        left = sum(validation._sizes[done:])
        self.is_over = not left or (self._until is not None and self._until(*self._possible(left)))

    def _possible(self, left: int) -> tuple[float, float]:
        """Return the lowest and the highest mean that are possible with so many samples left."""
        judge, samples = self.validation.judge, self.validation._samples
        lowest, highest = ((self.sum.total + left * each) / samples for each in (judge.lowest, judge.highest))
        return lowest, highest


@torch.no_grad()
def _add_together(addings: Sequence[_Adding]) -> list[None]:
    """Add up the values of several networks, batch by batch, as long as two need more."""
    done = [None for _ in addings]
    validations = [adding.validation for adding in addings]
    equal = len({validation._batches[0][0].shape for validation in validations}) == 1
    network = _stack(validations) if equal and len(addings) > 1 else None
    if network is None:
        return done
    network.load()
    score = validations[0].judge.score
    for index, batches in enumerate(zip(*(validation._batches for validation in validations), strict=True)):
        shapes = {batch[0].shape for batch in batches}
        if len(shapes) > 1 or sum(not adding.is_over for adding in addings) < 2:
            break  # each adds the rest for itself
        waiting = [not adding.is_over and adding.sum.batches == index for adding in addings]
        if not any(waiting):
            continue
        outputs = network(torch.stack([batch[0] for batch in batches]))
        values = score(outputs, torch.stack([batch[1] for batch in batches])).sum(1).tolist()
        for adding, value in compress(zip(addings, values, strict=True), waiting):
            adding.add(value)
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
