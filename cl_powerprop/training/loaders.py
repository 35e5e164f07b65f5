"""Loaders that take whole batches at a time from samples on the device."""

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any

import torch
from avalanche.benchmarks.utils.data import AvalancheDataset
from torch import Tensor
from torch.utils.data import DataLoader

from cl_powerprop.training.batches import WHOLE, Resumable, Share, count_batches, divide
from cl_powerprop.training.tensor_data import MixedSamples, Samples, Transform, find_tensors

_MOST_HELD = 2**30  # bytes of images of a task that a loader computes at once


class MixedLoader(Resumable):
    """Batches ``[images, labels, task ids]`` of mixed samples in a new order each epoch; a lone last sample is joined.

    Args:
        samples: the samples to load.
        batch_size, transform, seed, share: see :class:`TensorLoader`.
        shuffle: CPU generator that draws the order of each epoch.
    """

    drawn_by_batch = ("transform",)

    def __init__(
        self,
        samples: MixedSamples,
        batch_size: int,
        shuffle: torch.Generator,
        transform: Transform | None,
        seed: int,
        share: Share = WHOLE,
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.transform = transform
        self.share = share
        self._draws = torch.Generator(samples.labels.device).manual_seed(seed)

    @property
    def generators(self) -> dict[str, torch.Generator]:
        """What it draws from, by name."""
        return {"order": self.shuffle, "transform": self._draws}

    def __len__(self) -> int:
        return count_batches(len(self.samples), self.batch_size)

    def __iter__(self) -> Iterator[list[Tensor]]:
        samples = self.samples
        order = torch.randperm(len(samples), generator=self.shuffle)
        for which, images in samples.batches(order, self.left(divide(len(samples), self.batch_size))):
            shown = images if self.transform is None else self.transform(images, self._draws)
            yield self.share.take([shown, samples.labels[which], samples.tasks[which]])


class TensorLoader(Resumable):
    """Batches ``[images, labels, task ids]`` of some samples, gathered on the device by one operation per batch.

    The images are computed once (normalised, permuted), when the loader is made, and freed with it: only the current
    task takes memory. Those that would take more than a gigabyte are computed batch by batch.

    Args:
        samples: the samples to load.
        task: the task id of all samples.
        batch_size: samples per batch; the last batch may be smaller.
        shuffle: CPU generator that draws the order of each epoch; None keeps the order of the samples.
        transform: applied to every batch.
        seed: seed of the transform's generator, which every loader creates for itself.
        join_lone: see :func:`~cl_powerprop.training.batches.count_batches`.
        share: the part of every batch that is given; the transform is applied to the whole batch.

    Attributes:
        images: all of them; None if they are computed batch by batch.
        first_image: the first one, ``[1, *sample]``.
        begun: what :meth:`begin_epoch` is to return next, for the rest of an epoch; None for a new one.
    """

    drawn_by_batch = ("transform",)

    def __init__(
        self,
        samples: Samples,
        task: int,
        batch_size: int,
        shuffle: torch.Generator | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        join_lone: bool = True,
        share: Share = WHOLE,
    ) -> None:
        self._slice: Callable[[slice], Tensor] = samples.images
        self._gather: Callable[[Tensor], Tensor] = samples.images
        self.images: Tensor | None = None
        self.first_image = samples.images(slice(1))
        if len(samples) * self.first_image.nbytes <= _MOST_HELD:
            self.hold(samples.images())
        self.labels = samples.labels
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.transform = transform
        self._draws = torch.Generator(self.labels.device).manual_seed(seed)
        self.share = share
        self._join_lone = join_lone
        self.begun: tuple[Tensor, list[slice]] | None = None
        longest = min(batch_size + 1, len(samples))  # + 1 for one that joins
        self._task_ids = torch.full((longest,), task, device=self.labels.device)

    @property
    def generators(self) -> dict[str, torch.Generator]:
        """What it draws from, by name."""
        return {"transform": self._draws} | ({} if self.shuffle is None else {"order": self.shuffle})

    def hold(self, images: Tensor) -> None:
        """Take batches from these images, the same as before: ``[n, *sample]``."""
        self.images = images
        self._slice, self._gather = images.__getitem__, partial(torch.index_select, images, 0)

    def stack_key(self) -> Hashable | None:
        """Return what loaders have in common whose learners train together; None if this cannot be one of them."""
        if self.shuffle is None or self.share is not WHOLE:
            return None
        return self.first_image.shape, self.gathers, self.batch_size, len(self), self.first

    def __len__(self) -> int:
        return count_batches(len(self.labels), self.batch_size, self._join_lone)

    def __iter__(self) -> Iterator[list[Tensor]]:
        if self.shuffle is not None:
            yield from map(self.batch, self.places())
            return
        for rows in self._parts():
            yield self._shown(self._slice(rows), self.labels[rows])

    @property
    def gathers(self) -> bool:
        """Whether :meth:`batch` only works on tensors that stay where they are, and draws nothing."""
        return self.shuffle is not None and self.transform is None and self.share is WHOLE and self.images is not None

    def places(self) -> Iterator[Tensor]:
        """Yield the positions of each batch's samples, in the order of a new epoch."""
        order, parts = self.begin_epoch()
        for rows in parts:
            yield order[rows]

    def begin_epoch(self) -> tuple[Tensor, list[slice]]:
        """Return the order of a new epoch, int64 ``[n]`` on the device, and the range in it of each batch left."""
        begun, self.begun = self.begun, None
        if begun is not None:
            return begun
        return torch.randperm(len(self.labels), generator=self.shuffle).to(self.labels.device), self._parts()

    def batch(self, places: Tensor) -> list[Tensor]:
        """Return the batch of the samples at some positions."""
        return self._shown(self._gather(places), self.labels.index_select(0, places))

    def _parts(self) -> list[slice]:
        return self.left(divide(len(self.labels), self.batch_size, self._join_lone))

    def _shown(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        shown = images if self.transform is None else self.transform(images, self._draws)
        return self.share.take([shown, labels, self._task_ids[: len(labels)]])


class JoiningLoader:
    """The batches of another loader, whose last one is a lone sample: it joins the batch before it.

    Args:
        loader: yields batches as sequences of tensors, two batches at least.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader) - 1

    def __iter__(self) -> Iterator[list[Tensor]]:
        batches = iter(self.loader)
        for _ in range(len(self) - 1):
            yield next(batches)
        yield [torch.cat(parts) for parts in zip(next(batches), next(batches), strict=True)]


def statistics_batches(
    dataset: AvalancheDataset[Any], task: int, batch_size: int, device: torch.device, join_lone: bool = True
) -> Iterator[list[Tensor]]:
    """Yield the batches of any Avalanche data set, transformed as for evaluation, in order, on the device.

    With ``join_lone``, batch norms can take their statistics from each: a batch has two samples or more, unless there
    is only one in all.
    """
    dataset, batch_size = dataset.eval(), max(2, batch_size) if join_lone else batch_size
    found = find_tensors(dataset)
    if found is not None:
        yield from TensorLoader(found.samples, task, batch_size, transform=found.eval_transform, join_lone=join_lone)
        return
    rows = [list(range(len(dataset))[part]) for part in divide(len(dataset), batch_size, join_lone)]
    for batch in DataLoader(dataset, batch_sampler=rows, collate_fn=getattr(dataset, "collate_fn", None)):
        yield [part.to(device) for part in batch]
