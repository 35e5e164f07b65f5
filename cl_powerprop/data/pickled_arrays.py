"""Read files that were pickled by Python 2, such as CIFAR's, without unpickling them.

A pickle is a program that builds objects. Here its instructions are read as data: those that build numbers, texts,
lists, dictionaries and numpy's arrays of bytes are followed, and nothing is ever imported or called; any other
instruction, and any other name, is refused.
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.errors import DataError
from cl_powerprop.shown import as_line

_NAMES = ("numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype")
_MESSAGE = 200  # characters of a reason that are shown


def read_pickled(content: bytes) -> dict[bytes, Any]:
    """Return the dictionary in a pickle of numbers, byte strings, lists, dictionaries and arrays of bytes.

    Texts of Python 2 are returned as bytes, and arrays as :class:`PickledArray`.

    Raises:
        DataError: for anything else.
    """
    try:
        found = _Reader().read(content)
    except Exception as error:  # a damaged pickle can lead to any
        reason = as_line(str(error), _MESSAGE) or type(error).__name__
        raise DataError(f"it is no pickle of arrays ({reason})") from error
    if not isinstance(found, dict):
        raise DataError(f"it holds {type(found).__name__}, not a dictionary")
    return found


@dataclass
class _Name:
    """Stands for what a pickle names, which nothing imports."""

    name: str


@dataclass
class _DType:
    """Stands for numpy's type of an array, by its code, such as b"u1"."""

    code: bytes


@dataclass
class PickledArray:
    """An array of unsigned bytes, by its pickled state: (version, shape, type, is in Fortran's order, content)."""

    state: Any = None

    def array(self) -> NDArray[np.uint8]:
        """Return the array.

        Raises:
            ValueError, TypeError: if its state is no array's.
        """
        _, shape, _, fortran, content = self.state
        flat = np.frombuffer(content, np.uint8)
        return flat.reshape(shape, order="F") if fortran else flat.reshape(shape)


class _Mark:
    """Stands where the items of a list, a tuple or a dictionary begin."""


class _Reader:
    """Follows the instructions of a pickle of protocol 0 to 2."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._kept: dict[int, Any] = {}

    def read(self, content: bytes) -> Any:
        """Return what the pickle stands for."""
        argument: Any
        for instruction, argument, _ in pickletools.genops(content):
            name = instruction.name
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _LITERALS:
                self._stack.append(argument.encode("latin-1") if isinstance(argument, str) else argument)
            elif name in _PUTS:
                self._kept[argument] = self._stack[-1]
            elif name in _GETS:
                self._stack.append(self._kept[argument])
            elif name in _STEPS:
                _STEPS[name](self)
            elif name == "GLOBAL":
                if argument not in _NAMES:
                    raise ValueError(f"it names {argument.replace(' ', '.')}")
                self._stack.append(_Name(argument))
            elif name == "STOP":
                return self._stack.pop()
            elif name != "PROTO":
                raise ValueError(f"it has the instruction {name}")
        raise ValueError("it ends too early")

    def _pop(self, count: int) -> list[Any]:
        if not 0 < count <= len(self._stack):
            raise ValueError("it takes more than there is")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(item := self._stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def _tuple(self, items: list[Any]) -> None:
        self._stack.append(tuple(items))

    def _extend(self, items: list[Any]) -> None:
        self._of(list).extend(items)

    def _update(self, items: list[Any]) -> None:
        self._of(dict).update(zip(items[::2], items[1::2], strict=True))

    def _of(self, kind: type) -> Any:
        """Return what is on top of the stack, which must be of a kind."""
        if type(self._stack[-1]) is not kind:
            raise ValueError(f"it adds items to {type(self._stack[-1]).__name__}")
        return self._stack[-1]

    def _reduce(self) -> None:
        """Stand in for the result of a call, which is not made."""
        called, arguments = self._pop(2)
        match called, arguments:
            case _Name("numpy.core.multiarray _reconstruct"), (_Name("numpy ndarray"), *_):
                self._stack.append(PickledArray())
            case _Name("numpy dtype"), (bytes(code), *_):
                self._stack.append(_DType(code))
            case _:
                raise ValueError("it calls something else than numpy's array and dtype")

    def _build(self) -> None:
        (state,) = self._pop(1)
        match self._stack[-1], state:
            case PickledArray() as made, (int(), tuple(shape), _DType(code), bool(), bytes(content)):
                if code != b"u1":
                    raise ValueError(f"it has an array of {code!r}, not of unsigned bytes")
                if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) != len(content):
                    raise ValueError(f"it has an array of shape {shape} in {len(content)} bytes")
                made.state = state
            case _DType(), tuple():
                pass  # byte order and alignment, which do not matter to bytes
            case _:
                raise ValueError("it has a state that is no array's")


_CONSTANTS: dict[str, Callable[[], Any]] = {
    **{"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "MARK": _Mark},
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
}
_LITERALS = ("BININT", "BININT1", "BININT2", "INT", "LONG1", "BINFLOAT", "SHORT_BINSTRING", "BINSTRING")
_PUTS = ("BINPUT", "LONG_BINPUT", "PUT")
_GETS = ("BINGET", "LONG_BINGET", "GET")
_STEPS: dict[str, Callable[[_Reader], None]] = {
    "TUPLE1": lambda reader: reader._tuple(reader._pop(1)),
    "TUPLE2": lambda reader: reader._tuple(reader._pop(2)),
    "TUPLE3": lambda reader: reader._tuple(reader._pop(3)),
    "TUPLE": lambda reader: reader._tuple(reader._pop_to_mark()),
    "APPEND": lambda reader: reader._extend(reader._pop(1)),
    "APPENDS": lambda reader: reader._extend(reader._pop_to_mark()),
    "SETITEM": lambda reader: reader._update(reader._pop(2)),
    "SETITEMS": lambda reader: reader._update(reader._pop_to_mark()),
    "REDUCE": _Reader._reduce,
    "BUILD": _Reader._build,
}
