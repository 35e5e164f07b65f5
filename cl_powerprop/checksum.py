"""A checksum in a safetensors file, over every byte of it.

The file's metadata come first, and begin with the SHA-256 of the file in which these 64 digits are zeros.
"""

import hashlib
import os
from collections.abc import Iterable

KEY = "sha256"
ZEROS = "0" * 64
"""What stands in the metadata under :data:`KEY` until the checksum is known."""

_BEFORE = b'{"__metadata__": {"sha256": "'  # begins the header
_START = 8 + len(_BEFORE)  # of the digits, behind the length of the header
_END = _START + len(ZEROS)
_AT_A_TIME = 2**22  # bytes


def with_checksum(pieces: Iterable[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return the content of a file with its checksum in place of the zeros.

    Args:
        pieces: of the content: the length of the header, the header, and whatever follows.
    """
    length, header, *body = pieces
    digest = hashlib.sha256()
    for piece in (length, header, *body):
        digest.update(piece)
    start, end = _START - len(length), _END - len(length)
    return [length, b"".join([header[:start], digest.hexdigest().encode(), header[end:]]), *body]


def check_checksum(descriptor: int) -> bool:
    """Return whether a file has a checksum.

    Raises:
        ValueError: if its content does not have it.
    """
    head = os.pread(descriptor, _END, 0)
    if head[8:_START] != _BEFORE:
        return False
    digest = hashlib.sha256(head[:_START] + ZEROS.encode())
    place = _END
    while part := os.pread(descriptor, _AT_A_TIME, place):
        digest.update(part)
        place += len(part)
    if digest.hexdigest().encode() != head[_START:]:
        raise ValueError("its content does not have its checksum")
    return True
