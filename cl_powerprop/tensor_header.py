"""The header of a safetensors file, checked before a tensor is made. Imports no torch."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cl_powerprop.documents import parse_json
from cl_powerprop.shown import as_line

LENGTH = 8  # bytes at the beginning of a safetensors file that say how long its header is

Check = Callable[[Any], bool]
"""Says whether a JSON value is possible."""

_LONGEST = 2**25  # bytes that a header may have
_MOST_TENSORS = 200_000
_METADATA = "__metadata__"
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64"), 64),
}


@dataclass(frozen=True)
class Entry:
    """What a header says of one tensor.

    Attributes:
        dtype: as safetensors calls it, such as "F32".
        shape: of the tensor.
        start, end: where its bytes are, from the beginning of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file holds: the entries of its tensors, and its metadata, by name."""

    entries: dict[str, Entry]
    metadata: dict[str, str]

    @property
    def nbytes(self) -> int:
        """Size of all tensors, in bytes."""
        return sum(entry.end - entry.start for entry in self.entries.values())


def read_header(descriptor: int) -> Header:
    """Return the header of a file, which is compared with the file's size; nothing else of the file is read.

    Raises:
        ValueError: saying what is wrong with it.
    """
    size = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, LENGTH, 0), "little")
    if not 0 < length <= min(size - LENGTH, _LONGEST):
        raise ValueError("it is no safetensors file, or its end is missing")
    content = parse_json(os.pread(descriptor, length, LENGTH))
    if not isinstance(content, dict):
        raise ValueError("its header is no list of tensors")
    metadata = content.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text")
    if len(content) > _MOST_TENSORS:
        raise ValueError(f"it has {len(content):,} tensors, of at most {_MOST_TENSORS:,}")
    start = LENGTH + length
    entries = {name: _entry(name, value, start) for name, value in content.items()}
    end = start
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != end:
            raise ValueError("its tensors overlap, or there are bytes between them")
        end = entry.end
    if end != size:
        raise ValueError(f"its tensors end at byte {end:,}, and the file has {size:,}")
    return Header(entries, metadata)


def _entry(name: str, value: Any, start: int) -> Entry:
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(first), int(last)], **others} if (
            dtype in _BITS and not others and all(type(side) is int and side >= 0 for side in shape)
        ):
            if 0 <= first <= last and 8 * (last - first) == math.prod(shape) * _BITS[dtype]:
                return Entry(dtype, tuple(shape), start + first, start + last)
    raise ValueError(f"the entry of tensor {shortened(name)} is impossible")


def shortened(text: object, most: int = 60) -> str:
    """Return what a file says as a message can show it."""
    return as_line(str(text), most)


def check_fields(what: str, value: Any, fields: Mapping[str, Check]) -> dict[str, Any]:
    """Return a JSON object that has exactly some fields, each with a possible value.

    Args:
        what: it is called in messages.
        value: the object.
        fields: the check of each field's value.

    Raises:
        ValueError: naming the field that is missing, unknown or impossible.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{what} is missing")
    if unknown := value.keys() - fields.keys():
        raise ValueError(f"{what} has an unknown field {shortened(min(unknown))}")
    for name, is_possible in fields.items():
        if name not in value:
            raise ValueError(f"{what} lacks {name}")
        if not is_possible(value[name]):
            raise ValueError(f"{what} has an impossible {name}: {shortened(value[name])}")
    return value


def is_whole(value: Any, least: int, most: int = 2**31 - 1) -> bool:
    """Return whether a JSON value is a whole number within bounds."""
    return type(value) is int and least <= value <= most
