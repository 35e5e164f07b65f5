"""Read files that were pickled by Python 2, such as CIFAR's, without importing or calling what they name.

A pickle names the functions that rebuild its objects. Here the three names by which numpy's arrays are written stand
for classes of this file, which keep what they are given; any other name is refused.
"""

import io
import math
import pickle
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.errors import DataError


def read_pickled(content: bytes) -> dict[bytes, Any]:
    """Return the dictionary in a pickle of numbers, byte strings, lists, dictionaries and arrays of bytes.

    Texts of Python 2 are returned as bytes, and arrays as :class:`PickledArray`.

    Raises:
        DataError: for anything else.
    """
    try:
        found = _Reader(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise any
        raise DataError(f"it is no pickle of arrays ({error or type(error).__name__})") from error
    if not isinstance(found, dict):
        raise DataError(f"it holds {type(found).__name__}, not a dictionary")
    return found


class _ArrayType:
    """Stands for ``numpy.ndarray``, which a pickled array names and nothing creates."""


class _DType:
    """Stands for ``numpy.dtype``; only unsigned bytes are read."""

    def __init__(self, code: bytes, *_: int) -> None:
        if code != b"u1":
            raise ValueError(f"it has an array of {code!r}, not of unsigned bytes")

    def __setstate__(self, state: object) -> None:
        """Accept byte order and alignment, which do not matter to bytes."""


class PickledArray:
    """Stands for ``numpy.core.multiarray._reconstruct``: an array of unsigned bytes, made from its pickled state."""

    def __init__(self, *_: object) -> None:
        self._shape: tuple[int, ...] = (0,)
        self._content = b""
        self._order: Any = "C"

    def __setstate__(self, state: tuple[int, tuple[int, ...], _DType, bool, bytes]) -> None:
        _, shape, _, fortran, content = state
        if min(shape) < 0 or math.prod(shape) != len(content):
            raise ValueError(f"it has an array of shape {shape} in {len(content)} bytes")
        self._shape, self._content, self._order = shape, content, "F" if fortran else "C"

    def array(self) -> NDArray[np.uint8]:
        """Return the array."""
        return np.frombuffer(self._content, np.uint8).reshape(self._shape, order=self._order)


class _Reader(pickle.Unpickler):
    NAMES: ClassVar[dict[tuple[str, str], type]] = {
        ("numpy.core.multiarray", "_reconstruct"): PickledArray,
        ("numpy", "ndarray"): _ArrayType,
        ("numpy", "dtype"): _DType,
    }

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in self.NAMES:
            raise ValueError(f"it names {module}.{name}")
        return self.NAMES[module, name]
