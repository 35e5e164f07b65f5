"""What every data set offers. Imports no torch, so that `data status` answers at once."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA_ROOT_VARIABLE = "CL_POWERPROP_DATA"

DEFAULT_ROOT = "~/.cache/cl-powerprop"

Progress = Callable[[str, int, int], None]  # (file, done so far, in all): bytes, or pictures


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return ``root``, else $CL_POWERPROP_DATA, else ~/.cache/cl-powerprop."""
    return Path(root or os.environ.get(DATA_ROOT_VARIABLE) or DEFAULT_ROOT).expanduser()


@dataclass(frozen=True)
class Images:
    """Pictures and labels: uint8 ``[n, height, width]`` and int64 ``[n]``, for training and for testing."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


class Dataset(ABC):
    """One data set: where it is, whether it is whole, and how to fetch it.

    Attributes:
        name: as in ``data=<name>``.
        mean, std: of the training pixels, as a share of 255; pictures are normalised by them.
    """

    name: str
    mean: float
    std: float

    @abstractmethod
    def status(self, root: Path) -> str:
        """Say in one line where the data is, or what is missing."""

    @abstractmethod
    def verify(self, root: Path, progress: Progress | None = None) -> str:
        """Read and check everything, and say in one line what there is.

        Raises:
            DataError: if a file is missing, truncated or altered.
        """

    @abstractmethod
    def download(self, root: Path, progress: Progress | None = None) -> None:
        """Fetch what is missing or damaged into ``root``; every file is checked before it gets its name.

        Raises:
            DataError: if no source answers, or what it sends is not the file that was expected.
        """


class ImageDataset(Dataset):
    """Pictures of some classes, divided into training and test data by whoever published them.

    Attributes:
        classes: how many classes there are.
    """

    classes: int

    @abstractmethod
    def read(self, root: Path) -> Images:
        """Return the whole data set, checked.

        Raises:
            DataError: if a file is missing, truncated or altered.
        """

    def verify(self, root: Path, progress: Progress | None = None) -> str:
        images = self.read(root)
        return f"{len(images.train_labels):,} training and {len(images.test_labels):,} test pictures"


def every_fifth(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return where every fifth sample of each class is: test data of a set that comes undivided."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[4::5]] = True
    return chosen
