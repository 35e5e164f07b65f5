"""Pictures that are read whenever they are needed, as Avalanche data sets, and a loader whose workers read them."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from avalanche.benchmarks.utils.data import AvalancheDataset, _FlatDataWithTransform
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import RandomResizedCrop

from cl_powerprop.data.pictures import Pictures
from cl_powerprop.errors import DataError
from cl_powerprop.tasks import Split
from cl_powerprop.training.augment import ASPECT
from cl_powerprop.training.batches import WHOLE, Resumable, Share, count_batches, divide
from cl_powerprop.training.tensor_data import Transform

_SEEDS = 2**63 - 1


class PictureDataset(Dataset[tuple[Image, int]]):
    """The pictures of a split, decoded and otherwise as they are, with their labels.

    Args:
        samples: the split.
        pictures: the files of all pictures that its rows count.
    """

    def __init__(self, samples: Split, pictures: Pictures) -> None:
        self.samples = samples
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        return self.pictures.open(int(self.samples.rows[index])), int(self.samples.labels[index])


class Prepare:
    """Makes of a picture what the network gets: float32 ``[channels, size, size]``.

    Random numbers are drawn from torch's global generator.

    Args:
        samples: the split, which says how its images are transformed and normalised.
        pictures: say how pictures are scaled and cut.
        crop: the least area of a random crop, as a share of the picture; 1 for the centre.
        transform: what else is done to an image, as a batch of one.
    """

    def __init__(
        self, samples: Split, pictures: Pictures, crop: float = 1.0, transform: Transform | None = None
    ) -> None:
        self.samples = samples
        self.pictures = pictures
        self.crop = crop
        self.transform = transform

    def __call__(self, picture: Image) -> Tensor:
        if self.crop < 1.0:
            top, left, height, width = RandomResizedCrop.get_params(picture, [self.crop, 1.0], [1 / ASPECT, ASPECT])
            pixels = self.pictures.cut(picture, (left, top, left + width, top + height))
        else:
            pixels = self.pictures.centre(picture)
        images = self.samples.prepared(torch.from_numpy(pixels).unsqueeze(0))
        return (images if self.transform is None else self.transform(images, torch.default_generator))[0]


def streamed(
    samples: Split, pictures: Pictures, crop: float = 1.0, transform: Transform | None = None
) -> _FlatDataWithTransform[Any]:
    """Return a split whose images are read from files, with Avalanche's transforms for training and evaluation.

    Arguments are those of :class:`Prepare`; crop and transform are for training.
    """
    transforms = {"train": Prepare(samples, pictures, crop, transform), "eval": Prepare(samples, pictures)}
    return _FlatDataWithTransform([PictureDataset(samples, pictures)], transform_groups=TransformGroups(transforms))


Visit = tuple[int, int]  # the index of a sample, and the seed of the random numbers that it is loaded with


class _Seeded(Dataset[Any]):
    """The samples of a data set, each with random numbers of its own: which worker loads it makes no difference.

    A sample that cannot be loaded is given as its error, for a worker would wrap it in a traceback.
    """

    def __init__(self, dataset: AvalancheDataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, visit: Visit) -> Any:
        index, seed = visit
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                return self.dataset[index]
            except DataError as error:
                return error


class _Visits(Resumable):
    """The batches of each epoch, as lists of visits.

    Args:
        count: number of samples.
        size: samples per batch.
        order: generator of the order of each epoch; None for the order of the samples.
        seed: of the generator that draws the seeds.
        join_lone: see :func:`count_batches`.
        share: the part of every batch that is visited.
    """

    def __init__(
        self, count: int, size: int, order: torch.Generator | None, seed: int, join_lone: bool, share: Share
    ) -> None:
        self.count = count
        self.size = size
        self.order = order
        self.draws = torch.Generator().manual_seed(seed)
        self.join_lone = join_lone
        self.share = share

    def __len__(self) -> int:
        return count_batches(self.count, self.size, self.join_lone)

    def __iter__(self) -> Iterator[list[Visit]]:
        indices = torch.arange(self.count) if self.order is None else torch.randperm(self.count, generator=self.order)
        seeds = torch.randint(_SEEDS, (self.count,), generator=self.draws)
        for part in self.left(divide(self.count, self.size, self.join_lone)):
            own = self.share.of(part)
            yield list(zip(indices[own].tolist(), seeds[own].tolist(), strict=True))


class _Collate:
    """Makes a batch of samples, or gives the first error among them."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        return next((sample for sample in samples if isinstance(sample, DataError)), None) or self.collate(samples)


class StreamLoader(Resumable):
    """Batches ``[images, labels, task ids]`` of any Avalanche data set, which worker processes load; on the CPU.

    Args:
        dataset: the data set.
        batch_size: samples per batch; the last batch may be smaller.
        workers: number of processes; 0 loads in this one.
        order: CPU generator that draws the order of each epoch; None keeps the order of the samples.
        seed: of the random numbers with which samples are loaded; they do not depend on the number of workers.
        pin_memory: put batches where a GPU copies them from fastest.
        join_lone: see :func:`~cl_powerprop.training.batches.count_batches`.
        share: the part of every batch that is loaded.
    """

    def __init__(
        self,
        dataset: AvalancheDataset[Any],
        batch_size: int,
        workers: int,
        *,
        order: torch.Generator | None = None,
        seed: int = 0,
        pin_memory: bool = False,
        join_lone: bool = True,
        share: Share = WHOLE,
    ) -> None:
        self.share = share
        self._visits = _Visits(len(dataset), batch_size, order, seed, join_lone, share)
        self._loader = DataLoader(
            _Seeded(dataset),
            batch_sampler=self._visits,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_Collate(getattr(dataset, "collate_fn", default_collate)),
            pin_memory=pin_memory,
            generator=torch.Generator(),  # which no sample sees: the global one must not move
        )

    @property
    def generators(self) -> dict[str, torch.Generator]:
        """What it draws from, by name."""
        order = self._visits.order
        return {"transform": self._visits.draws} | ({} if order is None else {"order": order})

    def __len__(self) -> int:
        return len(self._visits)

    def __iter__(self) -> Iterator[list[Tensor]]:
        """Yield the batches.

        Raises:
            DataError: naming a file that cannot be read.
        """
        self._visits.first, self.first = self.first, 0
        for batch in self._loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch
