"""Pictures in files, one folder a class: where they are, and how they are decoded, scaled and cut. Imports no torch."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cl_powerprop.errors import DataError
from cl_powerprop.files import open_file
from cl_powerprop.tensor_header import shortened

ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
CHANNELS = 3

_LARGEST = 2**30  # bytes of a file
_MOST_PIXELS = 89_478_485  # above which Pillow warns of decompression bombs; here they are refused
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Box = tuple[int, int, int, int]  # left, upper, right and lower edge, in pixels

_MESSAGE = 200  # characters of a decoder's error that are shown
_NAMED = 3  # classes that a message names


@dataclass(frozen=True)
class Pictures:
    """Pictures of some classes, and how they become images of one size.

    Attributes:
        folder: holds a folder for each class.
        names: of the files, below ``folder``, as bytes ``[n]``: processes share an array, which they cannot do with a
            list of a million strings.
        labels: int64 ``[n]``, index of the class in the order of names.
        classes: names of the classes.
        size: side of the images, in pixels.
        resize: length to which the short side of a picture is scaled before its centre is cut out.
        workers: processes, or threads, that decode them.
    """

    folder: Path
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    size: int
    resize: int
    workers: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape that all images together have: (n, channels, height, width)."""
        return len(self), CHANNELS, self.size, self.size

    def open(self, index: int) -> Image.Image:
        """Return a picture, decoded, in RGB.

        Raises:
            DataError: naming the file, if it cannot be decoded.
        """
        path = self.folder / os.fsdecode(self.names[index])
        try:
            with (
                open_file(path, _LARGEST, follow=True) as descriptor,
                open(descriptor, "rb", closefd=False) as file,
                Image.open(file, formats=FORMATS) as picture,
            ):
                _check_size(*picture.size)
                _check_size(*self._scaled(*picture.size))
                if picture.mode == "F" or picture.mode.startswith("I"):  # which Pillow would cut off at 255
                    raise ValueError("it has more than 8 bits a channel; convert it to 8")
                return picture.convert("RGB")
        except Exception as error:  # every decoder has errors of its own
            reason = "it has no known format" if isinstance(error, UnidentifiedImageError) else str(error)
            raise DataError(f"{path} cannot be read as a picture: {shortened(reason, _MESSAGE)}") from error

    def centre(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Return the centre of a picture, as for validation and tests: uint8 ``[channels, size, size]``."""
        scaled = self._scaled(*picture.size)
        left, upper = (round((side - self.size) / 2) for side in scaled)
        picture = picture.resize(scaled, Image.Resampling.BILINEAR)
        return _to_array(picture.crop((left, upper, left + self.size, upper + self.size)))

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Return the size to which a picture is scaled before its centre is cut out."""
        short = min(width, height)
        return width * self.resize // short, height * self.resize // short

    def cut(self, picture: Image.Image, box: Box) -> NDArray[np.uint8]:
        """Return a part of a picture, scaled: uint8 ``[channels, size, size]``."""
        return _to_array(picture.crop(box).resize((self.size, self.size), Image.Resampling.BILINEAR))

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return the centres of some pictures: uint8 ``[k, channels, size, size]``.

        Raises:
            DataError: naming the first file that cannot be decoded.
        """
        images = np.empty((len(indices), *self.shape[1:]), dtype=np.uint8)

        def place(position: int) -> None:
            images[position] = self.centre(self.open(indices[position]))

        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            for _ in pool.map(place, range(len(indices))):  # raises the first error
                pass
        return images


def _check_size(width: int, height: int) -> None:
    """Refuse a picture that takes too much memory once it is decoded, or scaled.

    Raises:
        ValueError: naming its size.
    """
    if width * height > _MOST_PIXELS or min(width, height) < 1:
        raise ValueError(f"{width:,} x {height:,} pixels; it may have {_MOST_PIXELS:,} at most")


def _to_array(picture: Image.Image) -> NDArray[np.uint8]:
    return np.array(picture, dtype=np.uint8).transpose(2, 0, 1)


def find_pictures(folder: Path, **options: int) -> Pictures:
    """Return the pictures of a folder that holds a folder for each class; classes and files are sorted by name.

    Names that begin with a dot are left out, and files that are no pictures by their ending.

    Args:
        folder: the folder.
        options: size, resize and workers of :class:`Pictures`.

    Raises:
        DataError: if there is no class, or a class without a picture.
    """
    try:
        classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error
    if not classes:
        raise DataError(f"{folder} has no classes: it must hold a folder for each class, with its pictures")
    names: list[bytes] = []
    counts = []
    for name in classes:
        found = sorted(_files(folder, name))
        names += found
        counts.append(len(found))
    if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise DataError(f"{folder} has no picture of {_some(empty)}; pictures end in {', '.join(sorted(ENDINGS))}")
    labels = np.repeat(np.arange(len(classes)), counts)
    return Pictures(folder, np.array(names), labels, tuple(classes), **options)


def _files(folder: Path, name: str) -> Iterator[bytes]:
    """Yield the pictures of a class, at any depth, as paths below ``folder``."""
    top = os.path.realpath(folder / name)
    for place, folders, files in os.walk(folder / name, followlinks=True):
        real = os.path.realpath(place)
        if real != top and f"{top}{os.sep}".startswith(f"{real}{os.sep}"):  # a link to a folder above
            folders.clear()
            continue
        folders[:] = [each for each in folders if each[0] != "."]
        for file in files:
            if file[0] != "." and os.path.splitext(file)[1].lower() in ENDINGS:
                yield os.fsencode(os.path.relpath(os.path.join(place, file), folder))


def check_same_classes(one: Pictures, other: Pictures) -> None:
    """Refuse two splits of which one has a class that the other lacks.

    Raises:
        DataError: naming the classes.
    """
    for here, there in ((one, other), (other, one)):
        if lone := sorted(set(here.classes) - set(there.classes)):
            raise DataError(f"{there.folder} has no folder for {_some(lone)}, of which {here.folder} has pictures")


def _some(classes: Sequence[str]) -> str:
    named = ", ".join(classes[:_NAMED])
    more = len(classes) - _NAMED
    return f"the class{'es' if len(classes) > 1 else ''} {named}" + (f" and {more} more" if more > 0 else "")
