"""Tasks as views on one set of tensors: no task ever holds a copy of the data."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cl_powerprop.data.dataset import Dataset, Images
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.seeding import generator

Scenario = Literal["task", "domain", "class"]


@dataclass(frozen=True)
class Pixels:
    """All pictures of a data set on the device, uint8 ``[n, channels, height, width]``, and how to normalise them."""

    images: Tensor
    labels: Tensor
    mean: float
    std: float


@dataclass(frozen=True)
class Split:
    """A view on :class:`Pixels`: some rows, perhaps with permuted pixels and other labels.

    Attributes:
        rows: int64 ``[n]`` on the device, the pictures of this split.
        permutation: int64 ``[pixels]``, or None: pixel i of the result is pixel ``permutation[i]`` of the picture.
        labels: int64 ``[n]``, the label of each row within its task (or of the whole sequence, by scenario).
    """

    source: Pixels
    rows: Tensor
    labels: Tensor
    permutation: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width)."""
        return tuple(self.source.images.shape[1:])

    def images(self, which: Tensor | slice = slice(None)) -> Tensor:
        """Return float32 ``[k, channels, height, width]`` for some positions of this split, all by default."""
        pixels = self.source.images.index_select(0, self.rows[which]).flatten(1)
        if self.permutation is not None:
            pixels = _permute_pixels(pixels, self.permutation)
        normalised = pixels.float().div_(255.0).sub_(self.source.mean).div_(self.source.std)
        return normalised.view(-1, *self.shape)

    def subset(self, which: Tensor) -> "Split":
        """Return the samples at some positions as a split of their own."""
        which = which.to(self.rows.device)
        return replace(self, rows=self.rows[which], labels=self.labels[which])

    def fingerprint(self) -> str:
        """Return a hash of the very samples and labels, to prove that two runs see the same data."""
        digest = hashlib.sha256(self.images().cpu().numpy().tobytes())
        digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()


def _permute_pixels(pixels: Tensor, permutation: Tensor) -> Tensor:
    if pixels.is_cpu:  # numpy does this five times as fast as torch
        return torch.from_numpy(np.take(pixels.numpy(), permutation.numpy(), axis=1))
    return pixels.index_select(1, permutation)


@dataclass(frozen=True)
class Task:
    """One task: its name, how many classes it has, and its three splits."""

    name: str
    classes: int
    train: Split
    valid: Split
    test: Split


@dataclass(frozen=True)
class TaskSequence:
    """The tasks of a benchmark in the order they are learned."""

    name: str
    scenario: Scenario
    tasks: Sequence[Task]
    sample_shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample_shape", self.tasks[0].train.shape)

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def classes(self) -> tuple[int, ...]:
        """How many classes each task has."""
        return tuple(task.classes for task in self.tasks)


def to_pixels(dataset: Dataset, images: Images, device: torch.device) -> tuple[Pixels, Pixels]:
    """Put a data set's pictures on the device, once: (training, test)."""

    def move(pictures: object, labels: object) -> Pixels:
        tensor = torch.tensor(pictures).to(device)
        if tensor.ndim == 3:
            tensor = tensor.unsqueeze(1)
        return Pixels(tensor, torch.tensor(labels).to(device), dataset.mean, dataset.std)

    return move(images.train_images, images.train_labels), move(images.test_images, images.test_labels)


def split_validation(count: int, size: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide ``count`` training rows at random into (training, validation), each sorted.

    Args:
        count: rows there are.
        size: validation rows: a share below 1, or a number of rows.
        seed: of the run; the division depends on nothing else.

    Raises:
        ConfigurationError: if either part would be empty.
    """
    held_out = 0 if not math.isfinite(size) else round(size * count) if size < 1 else int(size)
    if not 0 < held_out < count:
        raise ConfigurationError(
            f"benchmark.validation={size} of {count} training samples leaves nothing to train or to validate on; "
            "give a share in (0, 1) or a number of samples"
        )
    order = torch.randperm(count, generator=generator(seed, "validation"))
    return order[held_out:].sort().values, order[:held_out].sort().values


def check_n_tasks(n_tasks: int) -> int:
    """Return ``n_tasks``.

    Raises:
        ConfigurationError: if it is below 1.
    """
    if n_tasks < 1:
        raise ConfigurationError(f"benchmark.n_tasks must be at least 1, not {n_tasks}")
    return n_tasks
