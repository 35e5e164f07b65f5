"""Task splits as Avalanche datasets, and loaders that feed them from tensors on the device."""

from collections.abc import Iterator
from typing import Any

import torch
from avalanche.benchmarks.utils.data import AvalancheDataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cl_powerprop.sequences import Split


class SplitDataset(Dataset[tuple[Tensor, int]]):
    """One split as a map-style dataset: what plugins that index samples (replay, joint training) read."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.split.images(torch.tensor([index]))[0], int(self.split.labels[index])


def find_split(dataset: AvalancheDataset[Any]) -> Split | None:
    """Return the split behind an Avalanche dataset, or None if it is (or was mixed from) anything else."""
    data: Any = dataset._flat_data
    while not isinstance(data, SplitDataset):
        parts = getattr(data, "_datasets", None)
        if not parts or len(parts) != 1 or getattr(data, "_indices", None) is not None:
            return None
        data = parts[0]
    return data.split


class TensorLoader:
    """Batches ``[images, labels, task ids]`` of one split, gathered on the device with one index a batch.

    The split is normalised once, when the loader is made, and dropped with it: only the task at hand takes memory.

    Args:
        split: what to load.
        task: the task id that goes with every sample.
        batch_size: samples a batch; the last one may be smaller.
        shuffle: draws the order of each epoch; None keeps the order of the split.
    """

    def __init__(self, split: Split, task: int, batch_size: int, shuffle: torch.Generator | None = None) -> None:
        self.images = split.images()
        self.labels = split.labels
        self.batch_size = batch_size
        self.shuffle = shuffle
        self._task_ids = torch.full((batch_size,), task, device=self.labels.device)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[list[Tensor]]:
        count = len(self.labels)
        if self.shuffle is None:
            for start in range(0, count, self.batch_size):
                labels = self.labels[start : start + self.batch_size]
                yield [self.images[start : start + self.batch_size], labels, self._task_ids[: len(labels)]]
            return
        order = torch.randperm(count, generator=self.shuffle).to(self.labels.device)
        for rows in order.split(self.batch_size):
            labels = self.labels.index_select(0, rows)
            yield [self.images.index_select(0, rows), labels, self._task_ids[: len(labels)]]


def evaluation_batches(
    dataset: AvalancheDataset[Any], task: int, batch_size: int, device: torch.device
) -> Iterator[list[Tensor]]:
    """Yield the batches of any Avalanche dataset in order, on the device: from tensors where it can be."""
    dataset = dataset.eval()
    split = find_split(dataset)
    if split is not None:
        yield from TensorLoader(split, task, batch_size)
        return
    collate = getattr(dataset, "collate_fn", None)
    for batch in DataLoader(dataset, batch_size=batch_size, collate_fn=collate):
        yield [part.to(device) for part in batch]
