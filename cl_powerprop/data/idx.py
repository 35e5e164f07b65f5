"""Data sets in IDX files, the format of MNIST and its variants: torchvision's folder layout, files plain or gzipped."""

import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.data.dataset import ImageDataset, Images, Progress, doubt
from cl_powerprop.data.fetch import fetch, has_md5
from cl_powerprop.errors import DataError
from cl_powerprop.files import read_file, write_file

_OVERHEAD = 2**16  # bytes by which a gzipped file may be larger than its content, besides an eighth

PARTS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class IdxFile:
    """One IDX file: its name, the MD5 of the gzipped file on the mirrors and, if it is known, that of the plain file.

    The MD5 of the plain file is that of the content, however the file is compressed.
    """

    name: str
    gz_md5: str
    md5: str | None = None


def parse_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes.

    Raises:
        DataError: if ``content`` is not such a file, or not as long as its header says.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{name} is not an IDX file of unsigned bytes")
    dimensions = content[3]
    if len(content) < 4 + 4 * dimensions:
        raise DataError(f"{name} ends within its header: truncated?")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    offset = 4 + 4 * dimensions
    size = math.prod(shape)
    if len(content) - offset != size:
        raise DataError(f"{name} holds {len(content) - offset} bytes, its header says {size}: truncated?")
    try:
        return np.frombuffer(content, np.uint8, offset=offset).reshape(shape)
    except ValueError as error:  # it is empty, and numpy has no array of such sides
        raise DataError(f"{name} has a header of impossible sides") from error


def unpacked(gzipped: bytes, most: int) -> bytes:
    """Return the content of a gzipped file.

    Raises:
        OSError, EOFError, zlib.error: if it is damaged, or has more than ``most`` bytes.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(gzipped)) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"it unpacks to more than {most:,} bytes")
    return content


class IdxDataset(ImageDataset):
    """Four IDX files in ``<root>/<folder>/raw``.

    Attributes:
        folder: name of the folder, as in torchvision.
        files: one for each of :data:`PARTS`.
        mirrors: base URLs, to which the names of the gzipped files are appended.
        shapes: expected shapes ``[n, height, width]`` of training and test images.
    """

    folder: str
    files: Mapping[str, IdxFile]
    mirrors: tuple[str, ...]
    shapes: tuple[tuple[int, int, int], tuple[int, int, int]] = ((60_000, 28, 28), (10_000, 28, 28))

    def _folder(self, root: Path) -> Path:
        return root / self.folder / "raw"

    def _size(self, part: str) -> int:
        """Return how many bytes the plain file of one of :data:`PARTS` has."""
        count, *sides = self.shapes[part.startswith("test")]
        shape = [count, *sides] if part.endswith("images") else [count]
        return 4 + 4 * len(shape) + math.prod(shape)

    def _content(self, source: Path, part: str) -> bytes:
        """Return the content of a plain or gzipped file, of which no more is read or unpacked than it can have.

        Raises:
            OSError, EOFError, ValueError, zlib.error: if it cannot be read, or is damaged.
        """
        most = self._size(part)
        if source.suffix != ".gz":
            return read_file(source, most, follow=True)
        return unpacked(read_file(source, most + most // 8 + _OVERHEAD, follow=True), most)

    def status(self, root: Path) -> str:
        folder = self._folder(root)
        missing = [
            file.name
            for file in self.files.values()
            if not (folder / file.name).exists() and not (folder / f"{file.name}.gz").exists()
        ]
        if missing:
            return f"missing in {folder}: {', '.join(missing)}"
        return ", ".join(filter(None, (f"present in {folder}", doubt(self, root))))

    def unverified(self, root: Path) -> Sequence[str]:
        """Return the files of unknown content: neither is its checksum known, nor is the gzipped file a mirror's."""
        unknown = [file for file in self.files.values() if file.md5 is None]
        return [file.name for file in unknown if not self._is_of_a_mirror(self._folder(root) / f"{file.name}.gz", file)]

    @staticmethod
    def _is_of_a_mirror(gzipped: Path, file: IdxFile) -> bool:
        return has_md5(gzipped, file.gz_md5)

    def read(self, root: Path) -> Images:
        arrays = {part: self._checked(root, part) for part in PARTS}
        for part, shape in zip(("train", "test"), self.shapes, strict=True):
            images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
            if images.shape != shape or labels.shape != shape[:1] or labels.max(initial=0) >= self.classes:
                file = self._folder(root) / self.files[f"{part}_images"].name
                raise self._damaged(file, f"images {images.shape}, labels {labels.shape} up to {labels.max(initial=0)}")
        return Images(
            arrays["train_images"],
            arrays["train_labels"].astype(np.int64),
            arrays["test_images"],
            arrays["test_labels"].astype(np.int64),
        )

    def _checked(self, root: Path, part: str) -> NDArray[np.uint8]:
        file = self.files[part]
        path = self._folder(root) / file.name
        gzipped = path.with_name(f"{file.name}.gz")
        if not path.exists() and not gzipped.exists():
            raise DataError(
                f"data={self.name}: {path} was not found; `cl-powerprop data download {self.name}` fetches it "
                "(data.root or $CL_POWERPROP_DATA name another folder; data=mnist5k needs no download)"
            )
        # Without a checksum of the content, the gzipped file beside it can be one that is known, and is preferred.
        plain = path.exists() and (file.md5 is not None or not gzipped.exists())
        source = path if plain else gzipped
        try:
            content = self._content(source, part)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise self._damaged(source, str(error)) from error
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if file.md5 is not None and found != file.md5:
            raise self._damaged(source, f"the MD5 of its content is {found}, not {file.md5}")
        try:
            return parse_idx(content, file.name)
        except DataError as error:
            raise self._damaged(source, str(error)) from error

    def _has_its_content(self, gzipped: Path, part: str) -> bool:
        """Return whether a gzipped file, however it was compressed, holds the content that is known."""
        file = self.files[part]
        try:
            content = self._content(gzipped, part)
        except (OSError, EOFError, ValueError, zlib.error):
            return False
        return hashlib.md5(content, usedforsecurity=False).hexdigest() == file.md5

    def _damaged(self, path: Path, why: str) -> DataError:
        return DataError(
            f"{path} is truncated or altered ({why}); `cl-powerprop data download {self.name}` repairs it "
            "(data=mnist5k needs no download)"
        )

    def download(self, root: Path, progress: Progress | None = None) -> None:
        folder = self._folder(root)
        for part, file in self.files.items():
            path = folder / file.name
            gzipped = path.with_name(f"{file.name}.gz")
            if file.md5 is not None and has_md5(path, file.md5):
                continue
            if not (self._is_of_a_mirror(gzipped, file) or self._has_its_content(gzipped, part)):
                fetch([mirror + gzipped.name for mirror in self.mirrors], gzipped, file.gz_md5, progress)
            try:
                content = self._content(gzipped, part)
            except (OSError, EOFError, ValueError, zlib.error) as error:
                raise self._damaged(gzipped, str(error)) from error
            try:
                write_file(path, content)
            except OSError as error:
                raise DataError(f"{path} cannot be written: {error.strerror}") from error
