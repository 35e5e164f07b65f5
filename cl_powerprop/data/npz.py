"""Reading the arrays of an .npz file, without pickle: an array's header is known before any memory is taken for it."""

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.files import open_file

_LARGEST = 2**40  # bytes of a file, of which no more is read than its arrays have
_MOST_MEMBERS = 1000
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class ArrayHeader:
    """What an array's header says of it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class NpzFile:
    """An open .npz file.

    Args:
        content: the zip file that it is.

    Attributes:
        names: of its arrays.
    """

    def __init__(self, content: zipfile.ZipFile) -> None:
        if len(content.namelist()) > _MOST_MEMBERS:
            raise ValueError(f"it has more than {_MOST_MEMBERS} members")
        self._content = content
        self.names = [name.removesuffix(".npy") for name in content.namelist()]

    def header(self, name: str) -> ArrayHeader:
        """Return what an array's header says.

        Raises:
            KeyError: if there is no such array.
            ValueError: if the header is damaged.
        """
        with self._open(name) as file:
            return _header(file, name)

    def read(self, name: str) -> NDArray[Any]:
        """Return an array whose :meth:`header` is possible.

        Raises:
            ValueError: if it is not as large as the header says, or holds objects.
        """
        with self._open(name) as file:
            header, start = _header(file, name), file.tell()
        size, there = math.prod(header.shape) * header.dtype.itemsize, self._content.getinfo(f"{name}.npy").file_size
        if start + size != there and not header.dtype.hasobject:
            raise ValueError(f"{name} has {there - start:,} bytes, its header says {size:,}: truncated?")
        with self._open(name) as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array

    def _open(self, name: str) -> IO[bytes]:
        return self._content.open(f"{name}.npy")


def _header(file: IO[bytes], name: str) -> ArrayHeader:
    try:
        version = np.lib.format.read_magic(file)
        shape, _, dtype = _READERS[version](file)
    except Exception as error:  # it is parsed as Python, whose parsers have errors of many kinds
        raise ValueError(f"{name} has no header that numpy writes") from error
    return ArrayHeader(shape, dtype)


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open an .npz file; what is wrong with it, here and in the body, is a ValueError.

    Raises:
        ValueError: if it is no file, or damaged.
        OSError: if it is not there, or cannot be read.
        KeyError: for an array that it lacks.
    """
    try:
        with (
            open_file(path, _LARGEST, follow=True) as descriptor,
            open(descriptor, "rb", closefd=False) as file,
            zipfile.ZipFile(file) as content,
        ):
            yield NpzFile(content)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, MemoryError, struct.error) as error:
        raise ValueError(str(error) or type(error).__name__) from error
