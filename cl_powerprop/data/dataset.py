"""What every data set offers. Imports no torch, so that `data status` answers at once."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA_ROOT_VARIABLE = "CL_POWERPROP_DATA"

Progress = Callable[[str, int, int], None]  # (file, bytes so far, bytes in all)


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return ``root``, else $CL_POWERPROP_DATA, else ~/.cache/cl-powerprop."""
    return Path(root or os.environ.get(DATA_ROOT_VARIABLE) or "~/.cache/cl-powerprop").expanduser()


@dataclass(frozen=True)
class Images:
    """Pictures and labels: uint8 ``[n, height, width]`` and int64 ``[n]``, for training and for testing."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


class Dataset(ABC):
    """One data set.

    Attributes:
        name: as in ``data=<name>``.
        mean, std: of the training pixels, as a share of 255; pictures are normalised by them.
    """

    name: str
    classes: int
    mean: float
    std: float

    @abstractmethod
    def status(self, root: Path) -> str:
        """Say in one line where the data is, or what is missing."""

    @abstractmethod
    def read(self, root: Path) -> Images:
        """Return the whole data set, checked.

        Raises:
            DataError: if a file is missing, truncated or altered.
        """

    @abstractmethod
    def download(self, root: Path, progress: Progress | None = None) -> None:
        """Fetch what is missing or damaged into ``root``; every file is checked before it gets its name.

        Raises:
            DataError: if no source answers, or what it sends is not the file that was expected.
        """
