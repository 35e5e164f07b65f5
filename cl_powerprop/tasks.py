"""Tasks as views on one set of tensors: no task ever holds a copy of the data."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_powerprop.data.dataset import Dataset, PerChannel
from cl_powerprop.data.pictures import Pictures
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.seeding import generator
from cl_powerprop.sequences.base import check_n_tasks, refuse_class_scenario

Scenario = Literal["task", "domain", "class"]
ValidationFrom = Literal["random", "end"]

View = Callable[[Tensor], Tensor]
"""A task's transformation of images: from uint8 ``[k, channels, height, width]`` to the same shape, values 0 to 255."""


class ImageStore(Protocol):
    """What images are taken from: a tensor uint8 ``[n, channels, height, width]``, or what acts like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that all images together have."""

    @property
    def device(self) -> torch.device:
        """Device of the images that are taken."""

    def index_select(self, dim: int, index: Tensor, /) -> Tensor:
        """Return the images at the given positions; ``dim`` is 0."""


@dataclass(frozen=True)
class Pixels:
    """All images of a data set on the device, and how to normalise them.

    Attributes:
        images: uint8 ``[n, channels, height, width]``.
        labels: int64 ``[n]``.
        mean, std: of the pixels scaled to [0, 1]: a number, or a tensor ``[channels, 1, 1]`` with one for each channel.
        pictures: the files that images are read from whenever they are needed, on the CPU; None if all are in memory.
    """

    images: ImageStore
    labels: Tensor
    mean: float | Tensor
    std: float | Tensor
    pictures: Pictures | None = None


@dataclass(frozen=True)
class Split:
    """Some rows of :class:`Pixels`, with their own labels and, where the task has one, a transformation of the images.

    Attributes:
        source: the images of the data set.
        rows: int64 ``[n]`` on the device, the images of this split.
        labels: int64 ``[n]``, the label of each row, counted within the task or (scenario "class") over all tasks.
        view: transformation of the images; None for none.
    """

    source: Pixels
    rows: Tensor
    labels: Tensor
    view: View | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width)."""
        return tuple(self.source.images.shape[1:])

    def images(self, which: Tensor | slice = slice(None)) -> Tensor:
        """Return the normalised images at the given positions, float32 ``[k, channels, height, width]``."""
        return self.prepared(self.source.images.index_select(0, self.rows[which]))

    def prepared(self, pixels: Tensor) -> Tensor:
        """Return images uint8 ``[k, channels, height, width]`` as the task has them: transformed and normalised."""
        if self.view is not None:
            pixels = self.view(pixels)
        return pixels.float().div_(255.0).sub_(self.source.mean).div_(self.source.std)

    def subset(self, which: Tensor) -> "Split":
        """Return the samples at the given positions as a separate split."""
        which = which.to(self.rows.device)
        return replace(self, rows=self.rows[which], labels=self.labels[which])

    def fingerprint(self) -> str:
        """Return a SHA-256 of the samples and labels, to check that two runs have the same data."""
        digest = hashlib.sha256(self.images().cpu().numpy().tobytes())
        digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Task:
    """One task: its name, its number of classes, and its three splits."""

    name: str
    classes: int
    train: Split
    valid: Split
    test: Split


@dataclass(frozen=True)
class TaskSequence:
    """The tasks of a benchmark in the order they are learned.

    Attributes:
        is_whole: its one task is a whole data set, and no sequence is made of it.
    """

    name: str
    scenario: Scenario
    tasks: Sequence[Task]
    is_whole: bool = False
    sample_shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample_shape", self.tasks[0].train.shape)

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def workers(self) -> int | None:
        """Processes that read images from files whenever they are needed; None if all are in memory."""
        pictures = self.tasks[0].train.source.pictures
        return None if pictures is None else pictures.workers

    @property
    def classes(self) -> tuple[int, ...]:
        """Number of classes of each task."""
        return tuple(task.classes for task in self.tasks)


def to_pixels(dataset: Dataset, images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device) -> Pixels:
    """Copy the images and labels ``[n]`` of a data set to the device, and how it normalises them.

    Args:
        dataset: the data set, whose ``mean`` and ``std`` are known.
        images: uint8 ``[n, height, width]`` or ``[n, channels, height, width]``.
        labels: int64 ``[n]``.
        device: where they go.
    """
    count, *channels, height, width = images.shape
    pixels = torch.tensor(images).view(count, *(channels or [1]), height, width).to(device)
    mean, std = (of_channels(value, device) for value in (dataset.mean, dataset.std))
    return Pixels(pixels, torch.tensor(labels).to(device), mean, std)


def of_channels(value: PerChannel | None, device: torch.device) -> float | Tensor:
    """Return one number as it is, and numbers for each channel as a tensor ``[channels, 1, 1]``."""
    values = np.asarray(value, dtype=np.float64)
    return (
        float(values) if values.ndim == 0 else torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
    )


def split_validation(
    count: int, size: float, seed: int, validation_from: ValidationFrom = "random"
) -> tuple[Tensor, Tensor]:
    """Divide ``count`` training rows into (training, validation), each sorted.

    Args:
        count: number of rows.
        size: validation rows: a share below 1, or a number of rows.
        seed: seed of the run, from which a random division is drawn.
        validation_from: "random", or "end": the last rows are the validation rows, whatever the seed.

    Raises:
        ConfigurationError: if either part would be empty.
    """
    held_out = 0 if not math.isfinite(size) else round(size * count) if size < 1 else int(size)
    if not 0 < held_out < count:
        raise ConfigurationError(
            f"benchmark.validation={size} of {count} training samples leaves nothing to train or to validate on; "
            "give a share in (0, 1) or a number of samples"
        )
    if validation_from == "end":
        order = torch.arange(count).flip(0)
    else:
        order = torch.randperm(count, generator=generator(seed, "validation"))
    return order[held_out:].sort().values, order[:held_out].sort().values


def divide(
    train: Pixels, test: Pixels, validation: float, seed: int, validation_from: ValidationFrom = "random"
) -> list[tuple[Pixels, Tensor]]:
    """Return (images, rows) of the training, validation and test data; for arguments see :func:`split_validation`.

    Raises:
        ConfigurationError: see :func:`split_validation`.
    """
    device = train.images.device
    train_rows, valid_rows = split_validation(len(train.labels), validation, seed, validation_from)
    test_rows = torch.arange(len(test.labels), device=device)
    return [(train, train_rows.to(device)), (train, valid_rows.to(device)), (test, test_rows)]


def same_images(
    name: str,
    train: Pixels,
    test: Pixels,
    classes: int,
    views: Mapping[str, View | None],
    *,
    scenario: Scenario,
    validation: float,
    seed: int,
) -> TaskSequence:
    """Return a sequence whose tasks have the same images and labels, each with its own transformation.

    Args:
        name: name of the sequence.
        train, test: the images.
        classes: number of classes.
        views: name of each task, and its transformation of the images.
        scenario: "task" or "domain".
        validation, seed: see :func:`split_validation`.

    Raises:
        ConfigurationError: for no task, an empty split, or scenario "class" (tasks share their classes).
    """
    check_n_tasks(len(views))
    refuse_class_scenario(name, scenario)
    # Rows and labels are shared by all tasks, so that a task costs its view and nothing else.
    parts = [(source, rows, source.labels[rows]) for source, rows in divide(train, test, validation, seed)]
    tasks = [Task(task, classes, *(Split(*part, view) for part in parts)) for task, view in views.items()]
    return TaskSequence(name, scenario, tasks)
