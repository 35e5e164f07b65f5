"""The interface of data sets. Imports no torch, so that `cl-powerprop data status` is quick."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.errors import ConfigurationError, DataError
from cl_powerprop.registry import T, door

if TYPE_CHECKING:
    import torch

    from cl_powerprop.data.pictures import Pictures
    from cl_powerprop.tasks import Pixels

DATA_ROOT_VARIABLE = "CL_POWERPROP_DATA"

DEFAULT_ROOT = "~/.cache/cl-powerprop"

Progress = Callable[[str, int, int], None]  # (file, done so far, total), in bytes or images

PerChannel = float | Sequence[float]
"""A number for each channel of the images, or one for all of them."""

_AT_A_TIME = 1000  # images that are counted together, to save memory


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the data: ``root``, else $CL_POWERPROP_DATA, else ~/.cache/cl-powerprop."""
    return Path(root or os.environ.get(DATA_ROOT_VARIABLE) or DEFAULT_ROOT).expanduser()


@dataclass(kw_only=True)
class DataConfig:
    """Options of every data set.

    Attributes:
        name: name of the data set.
        root: folder of the data; None: see :func:`data_root`.
        download: download the data if it is missing.
        normalize: normalise images by mean and standard deviation; without, pixels are in [0, 1].
    """

    name: str
    root: str | None = None
    download: bool = False
    normalize: bool = True

    def check(self) -> None:
        """Refuse impossible values, before anything is loaded.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """


@dataclass(frozen=True)
class Images:
    """Training and test data.

    Images are uint8 ``[n, height, width]`` or, in colour, ``[n, channels, height, width]``; labels int64 ``[n]``.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    def sha256(self) -> str:
        """Return the SHA-256 of all images and labels, in hexadecimal; it does not depend on how they are stored."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes())
        return digest.hexdigest()

    @property
    def classes(self) -> int:
        """How many classes there are, if labels count from 0."""
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel of the training pixels, scaled to [0, 1].

        The standard deviation of a channel that is the same everywhere counts as 1.
        """
        images = self.train_images
        channels = 1 if images.ndim == 3 else images.shape[1]
        counts = np.zeros((channels, 256))  # of each pixel value
        for first in range(0, len(images), _AT_A_TIME):
            part = images[first : first + _AT_A_TIME].reshape(-1, channels, *images.shape[-2:])
            counts += [np.bincount(part[:, channel].ravel(), minlength=256) for channel in range(channels)]
        shares, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255.0
        mean = shares @ values
        std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
        return tuple(mean.tolist()), tuple(np.where(std > 0.0, std, 1.0).tolist())

    def pixels(self, dataset: Dataset, device: torch.device) -> tuple[Pixels, Pixels]:
        """Return training and test images on a device, and how they are normalised."""
        from cl_powerprop.tasks import to_pixels

        if dataset.mean is None:
            dataset.mean, dataset.std = self.mean_and_std()
        train = to_pixels(dataset, self.train_images, self.train_labels, device)
        return train, to_pixels(dataset, self.test_images, self.test_labels, device)


@dataclass(frozen=True)
class StreamedImages:
    """Training and test data in files, which are read whenever they are needed.

    Attributes:
        train, test: where the pictures are; they have the same classes.
    """

    train: Pictures
    test: Pictures

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.train.classes)

    def pixels(self, dataset: Dataset, device: torch.device) -> tuple[Pixels, Pixels]:
        """Return training and test images; they stay on the CPU, where they are decoded."""
        from cl_powerprop.streaming import stream_pixels

        return stream_pixels(dataset, self.train), stream_pixels(dataset, self.test)


@dataclass(frozen=True)
class Drawings:
    """All drawings, sorted by alphabet, character and drawer.

    Attributes:
        images: uint8 ``[n, size, size]``; ink is 255, the background 0.
        alphabet: int64 ``[n]``, index into ``alphabets``.
        character: int64 ``[n]``, counted over all alphabets.
        drawer: int64 ``[n]``, 0 to 19: who drew it; within an alphabet, each number is one person.
        alphabets: names of the alphabets, in order.
    """

    images: NDArray[np.uint8]
    alphabet: NDArray[np.int64]
    character: NDArray[np.int64]
    drawer: NDArray[np.int64]
    alphabets: tuple[str, ...]


_LACKING = {  # what a user is told of a data set that does not offer this
    "images": "is for benchmark=omniglot, omniglot_rotation and single; choose other data, such as mnist5k",
    "drawings": "does not say who drew an image; this benchmark needs data=omniglot, not {0}",
}


class Dataset(ABC):
    """One data set: where its files are, whether they are complete, and how to download and read them.

    Attributes:
        name: as in ``data=<name>``.
        classes: number of classes; labels count from 0. None: see :attr:`Images.classes`.
        mean, std: of the training pixels, scaled to [0, 1]; images are normalised by them. None: see
            :meth:`Images.mean_and_std`.
    """

    name: str
    classes: int | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None

    @abstractmethod
    def status(self, root: Path) -> str:
        """Return one line that says where the data is, or what is missing."""

    @abstractmethod
    def verify(self, root: Path, progress: Progress | None = None) -> str:
        """Read and check everything, and return one line that describes it.

        Raises:
            DataError: if a file is missing, truncated or altered.
        """

    def unverified(self, root: Path) -> Sequence[str]:
        """Return what has no checksum that its content is compared with; nothing if all of the data has one."""
        return ["its content"]

    @abstractmethod
    def download(self, root: Path, progress: Progress | None = None) -> None:
        """Download missing or damaged files into ``root``; a file gets its final name only after it was checked.

        Raises:
            DataError: if no source sends a file with the expected checksum, or ``root`` cannot be written.
        """

    def images(self, root: Path, config: DataConfig) -> Images | StreamedImages:
        """Return training and test images, for task sequences that are made from labelled images.

        Raises:
            ConfigurationError: if the data set does not offer them.
            DataError: if a file is missing, truncated or altered.
        """
        raise self._lacking("images")

    def drawings(self, root: Path, config: DataConfig) -> Drawings:
        """Return drawings and who drew them, for task sequences that are split by drawer.

        Raises:
            ConfigurationError: if the data set does not offer them.
            DataError: if a file is missing, truncated or altered.
        """
        raise self._lacking("drawings")

    def check_offers(self, what: str) -> None:
        """Refuse a data set that does not offer "images" or "drawings"; nothing is read.

        Raises:
            ConfigurationError: saying what the data set is for.
        """
        if not self.offers(what):
            raise self._lacking(what)

    def offers(self, what: str) -> bool:
        """Return whether the data set has "images" or "drawings"; nothing is read."""
        return getattr(type(self), what) is not getattr(Dataset, what)

    def _lacking(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"data={self.name} " + _LACKING[what].format(self.name))


class ImageDataset(Dataset):
    """A data set of labelled images, divided into training and test data.

    Attributes:
        sha256: of the images, as :meth:`Images.sha256` gives it; None if it is not known: they are not verified then.
    """

    sha256: str | None = None

    @abstractmethod
    def read(self, root: Path) -> Images:
        """Return the whole data set, checked.

        Raises:
            DataError: if a file is missing, truncated or altered.
        """

    def images(self, root: Path, config: DataConfig) -> Images:
        return self._compared(self.read(root))

    def _compared(self, images: Images) -> Images:
        found = None if self.sha256 is None else images.sha256()
        if found != self.sha256:
            raise DataError(f"the images of data={self.name} are altered: their SHA-256 is {found}, not {self.sha256}")
        return images

    def unverified(self, root: Path) -> Sequence[str]:
        return super().unverified(root) if self.sha256 is None else []

    def verify(self, root: Path, progress: Progress | None = None) -> str:
        images = self._compared(self.read(root))
        return f"{len(images.train_labels):,} training and {len(images.test_labels):,} test images"


def doubt(dataset: Dataset, root: Path) -> str:
    """Say that some of the data is not verified, and what; "" if all of it is."""
    unverified = dataset.unverified(root)
    return f"not verified: no checksum is known of {', '.join(unverified)}" if unverified else ""


def register_dataset(name: str, config: type | None = None, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a class derived from :class:`Dataset` the choice ``data=NAME``; it is created without arguments.

    Arguments and errors are those of :func:`register_strategy`; the config is :class:`DataConfig` or derived from it.
    """
    return door("data", name, config or DataConfig, DataConfig, aliases)


def every_fifth(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the boolean mask ``[n]`` of every fifth sample of each class: test data, if a data set has none."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[4::5]] = True
    return chosen
