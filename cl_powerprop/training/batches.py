"""How the samples of an epoch are divided into batches, and a batch among processes. Imports no torch."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of several processes trains on; by default there is one process.

    Attributes:
        rank: number of the process, from 0.
        ranks: how many there are.
    """

    rank: int = 0
    ranks: int = 1

    def of(self, batch: slice) -> slice:
        """Return the part of a batch, whose range of samples has a start and a stop."""
        size = batch.stop - batch.start
        start, stop = (batch.start + size * rank // self.ranks for rank in (self.rank, self.rank + 1))
        return slice(start, stop)

    def take(self, batch: list[Any]) -> list[Any]:
        """Return the part of a batch of tensors."""
        if self.ranks == 1:
            return batch
        own = self.of(slice(0, len(batch[0])))
        return [values[own] for values in batch]


WHOLE = Share()


def count_batches(samples: int, size: int, join_lone: bool = True) -> int:
    """Return the number of batches of an epoch.

    Args:
        samples: number of samples.
        size: samples per batch.
        join_lone: a lone sample at the end joins the batch before it, because batch norm cannot train on one sample.
            With batches of one sample, or one sample in all, there is nothing to join.
    """
    lone = join_lone and 1 < size < samples and samples % size == 1
    return -(-samples // size) - lone


def divide(samples: int, size: int, join_lone: bool = True) -> list[slice]:
    """Return the range of samples of each batch of an epoch; arguments are those of :func:`count_batches`."""
    last = count_batches(samples, size, join_lone) - 1
    return [slice(index * size, samples if index == last else (index + 1) * size) for index in range(last + 1)]


class Resumable:
    """A loader whose next epoch can begin after some of its batches.

    Attributes:
        first: batches of the next epoch that are not given, nor computed.
        drawn_by_batch: names of the generators that each batch draws from; the others only an epoch's beginning does.
    """

    first = 0
    drawn_by_batch: Collection[str] = ()

    def left(self, batches: list[slice]) -> list[slice]:
        """Return the batches that the epoch which now begins is to give."""
        first, self.first = self.first, 0
        return batches[first:]
