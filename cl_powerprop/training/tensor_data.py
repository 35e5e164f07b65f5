"""Samples on the device as Avalanche data sets, and loaders that take whole batches from them at a time."""

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from avalanche.benchmarks.utils.data import AvalancheDataset, _FlatDataWithTransform
from avalanche.benchmarks.utils.flat_data import LazyRange
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from avalanche.benchmarks.utils.transforms import MultiParamTransform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cl_powerprop.training.batches import WHOLE, Resumable, Share, count_batches, divide

_MOST_HELD = 2**30  # bytes of images of a task that a loader computes at once

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""``(batch, generator) -> batch``, all on the device: what is done to a batch before the network gets it."""


class Samples(Protocol):
    """What a loader takes samples from: a :class:`~cl_powerprop.tasks.Split`, or any class with the same members."""

    @property
    def labels(self) -> Tensor:
        """Labels, int64 ``[n]`` on the device."""

    def __len__(self) -> int: ...

    def images(self, which: Tensor | slice = slice(None)) -> Tensor:
        """Return the samples at the given positions, all by default: ``[k, *sample]``."""

    def subset(self, which: Tensor) -> "Samples":
        """Return the samples at the given positions as a separate object."""


class MixedSamples:
    """The samples of several tasks in one object, task after task; images are computed for one batch at a time.

    Args:
        parts: the samples of each task.
        rows: int64 ``[n]`` on their device, which of the samples of all tasks are in it; None for all.
    """

    def __init__(self, parts: Sequence[Samples], rows: Tensor | None = None) -> None:
        self._parts = list(parts)
        labels = torch.cat([part.labels for part in parts])
        counts = torch.tensor([len(part) for part in parts])
        self._starts = (counts.cumsum(0) - counts).tolist()
        self._rows = torch.arange(len(labels), device=labels.device) if rows is None else rows
        self.labels = labels[self._rows]
        self._tasks = torch.arange(len(parts)).repeat_interleave(counts)[self._rows.cpu()]  # on the CPU, as an order is
        self.tasks = self._tasks.to(labels.device)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, which: Tensor | slice = slice(None)) -> Tensor:
        """Return the samples at the given positions, all by default."""
        order = torch.arange(len(self))[which.cpu() if isinstance(which, Tensor) else which]
        for _, images in self.batches(order, [slice(0, len(order))]):
            return images
        raise IndexError("no position was given")

    def batches(self, order: Tensor, parts: Sequence[slice]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the positions and the images of the samples in each part of an order; nothing waits for the device.

        Args:
            order: int64 ``[n]`` on the CPU, positions of samples.
            parts: ranges of it that follow each other.
        """
        if not parts or parts[-1].stop == parts[0].start:
            return
        order = order[parts[0].start : parts[-1].stop]
        sizes = torch.tensor([part.stop - part.start for part in parts])
        batch = torch.arange(len(parts)).repeat_interleave(sizes)
        group = batch * len(self._parts) + self._tasks[order]  # the samples of one task in one batch
        by_group = group.argsort(stable=True)
        counts = group.bincount(minlength=len(parts) * len(self._parts)).view(len(parts), -1).tolist()
        places = (by_group - (sizes.cumsum(0) - sizes)[batch[by_group]]).to(self.labels.device)  # within the batch
        positions = order.to(self.labels.device)
        rows = self._rows[order[by_group].to(self.labels.device)]
        begun, end = 0, 0
        for size, of_tasks in zip(sizes.tolist(), counts, strict=True):
            images: Tensor | None = None
            for task, count in enumerate(of_tasks):
                if count:
                    own = slice(end, end + count)
                    part = self._parts[task].images(rows[own] - self._starts[task])
                    if images is None:
                        images = part.new_empty((size, *part.shape[1:]))
                    images.index_copy_(0, places[own], part)
                    end += count
            assert images is not None
            yield positions[begun : begun + size], images
            begun += size

    def subset(self, which: Tensor) -> "MixedSamples":
        """Return the samples at the given positions as a separate object."""
        return MixedSamples(self._parts, self._rows[which.to(self._rows.device)])


class TensorDataset(Dataset[tuple[Tensor, int]]):
    """Samples as a map-style data set, for plugins that index single samples (replay, joint training).

    Args:
        samples: the samples.
        train_transform: applied to every training batch.
        eval_transform: applied to every batch of an evaluation.
    """

    def __init__(
        self, samples: Samples, train_transform: Transform | None = None, eval_transform: Transform | None = None
    ) -> None:
        self.samples = samples
        self.train_transform = train_transform
        self.eval_transform = eval_transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.samples.images(torch.tensor([index]))[0], int(self.samples.labels[index])

    def subset(self, which: Tensor) -> "TensorDataset":
        """Return some of the samples, with the same transforms."""
        return TensorDataset(self.samples.subset(which), self.train_transform, self.eval_transform)


class OneByOne(MultiParamTransform):  # type: ignore[misc]
    """A batch transform for single samples, for whoever loads them without our loaders (replay, joint training).

    Args:
        transform: the batch transform.
        repeats: draw the same numbers for every sample, so that an evaluation repeats; else new ones for each.
    """

    def __init__(self, transform: Transform, repeats: bool) -> None:
        self.transform = transform
        self.repeats = repeats
        self._draws: torch.Generator | None = None

    def __call__(self, image: Tensor, *rest: Any) -> list[Any]:
        if self._draws is None or self.repeats:
            self._draws = torch.Generator(image.device).manual_seed(0)
        return [self.transform(image.unsqueeze(0), self._draws)[0], *rest]

    def flat_transforms(self, position: int) -> list[Any]:
        return [self] if position == 0 else []


def one_by_one(train_transform: Transform | None, eval_transform: Transform | None) -> TransformGroups:
    """Return batch transforms as the transforms of single samples that Avalanche has for training and evaluation."""
    transforms = {"train": (train_transform, False), "eval": (eval_transform, True)}
    return TransformGroups(
        {
            group: None if transform is None else OneByOne(transform, repeats)
            for group, (transform, repeats) in transforms.items()
        }
    )


def join(
    parts: Sequence[TensorDataset], transforms: TransformGroups | None = None
) -> list[_FlatDataWithTransform[Any]]:
    """Return the data of each experience of a stream as a part of one whole, which is how Avalanche keeps them.

    Only then can Avalanche merge subsets of several experiences, for replay, without nesting them ever deeper.

    Args:
        parts: the samples of each experience.
        transforms: applied to samples that are loaded one by one.
    """
    whole = _FlatDataWithTransform(parts, transform_groups=transforms or TransformGroups({}))
    starts = itertools.accumulate(map(len, parts), initial=0)
    return [
        _FlatDataWithTransform([whole], indices=LazyRange(0, len(part), offset=start))
        for part, start in zip(parts, starts, strict=False)
    ]


def find_tensors(dataset: AvalancheDataset[Any]) -> TensorDataset | None:
    """Return the tensors behind an Avalanche data set, or behind a subset of one.

    None if it mixes samples of several experiences, has Avalanche transforms, which work on single samples, or adds
    more to its samples than a task label.
    """
    if any(each.use_in_getitem and each.name != "targets_task_labels" for each in dataset._data_attributes.values()):
        return None
    data: Any = dataset._flat_data
    rows: Tensor | None = None
    while True:
        parts = getattr(data, "_datasets", None)
        if not parts or _transforms(data):
            return None
        if data._indices is not None:
            indices = _as_tensor(data._indices)
            rows = indices if rows is None else indices[rows]
        if all(isinstance(part, TensorDataset) for part in parts):
            return _select(parts, rows)
        if len(parts) != 1:
            return None
        data = parts[0]


def _transforms(data: Any) -> bool:
    """Return whether a level of an Avalanche data set has transforms other than those of its tensors."""
    for groups in (data._transform_groups, data._frozen_transform_groups):
        transform = groups[groups.current_group]
        if transform is not None and not isinstance(transform, OneByOne):
            return True
    return False


def _as_tensor(indices: Sequence[int]) -> Tensor:
    if isinstance(indices, LazyRange):  # a whole experience: much faster than one number at a time
        return torch.arange(len(indices)) + (indices[0] if len(indices) else 0)
    return torch.tensor(list(indices), dtype=torch.int64)


def _select(parts: Sequence[TensorDataset], rows: Tensor | None) -> TensorDataset | None:
    """Return some rows of data sets that follow each other, or None if they lie in several of them."""
    if rows is None or len(rows) == 0:
        return parts[0] if len(parts) == 1 and rows is None else None
    first, last = int(rows.min()), int(rows.max())
    start = 0
    for part in parts:
        if first < start + len(part):
            break
        start += len(part)
    if last >= start + len(part):
        return None
    rows = rows - start
    return part if torch.equal(rows, torch.arange(len(part))) else part.subset(rows)


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
    dataset: AvalancheDataset[Any], task: int, batch_size: int, device: torch.device
) -> Iterator[list[Tensor]]:
    """Yield the batches of any Avalanche data set, transformed as for evaluation, in order, on the device.

    Batch norms can take their statistics from each: a batch has two samples or more, unless there is only one in all.
    """
    dataset, batch_size = dataset.eval(), max(2, batch_size)
    found = find_tensors(dataset)
    if found is not None:
        yield from TensorLoader(found.samples, task, batch_size, transform=found.eval_transform)
        return
    rows = [list(range(len(dataset))[part]) for part in divide(len(dataset), batch_size)]
    for batch in DataLoader(dataset, batch_sampler=rows, collate_fn=getattr(dataset, "collate_fn", None)):
        yield [part.to(device) for part in batch]
