"""Samples on the device as Avalanche data sets."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from avalanche.benchmarks.utils.data import AvalancheDataset, _FlatDataWithTransform
from avalanche.benchmarks.utils.flat_data import LazyRange
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from avalanche.benchmarks.utils.transforms import MultiParamTransform
from torch import Tensor
from torch.utils.data import Dataset

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
