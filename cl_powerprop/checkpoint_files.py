"""The files of a run's checkpoints: the last two, each with a checksum over all of its bytes.

Both are safetensors files. Their metadata begin with the SHA-256 of the file in which these 64 digits are zeros.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cl_powerprop.files import is_file, open_file, write_file
from cl_powerprop.memory import machine_memory
from cl_powerprop.saving import serialized
from cl_powerprop.tensor_header import LENGTH, read_header

FILE = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
FORMAT = 4
"""Of both. Files of formats 1 to 3 have no checksum; they can still be read."""

_DIGITS = 64
_ZEROS = "0" * _DIGITS
_BEFORE = b'{"__metadata__": {"sha256": "'  # begins the header
_START = LENGTH + len(_BEFORE)  # of the checksum
_FULL = (errno.ENOSPC, errno.EDQUOT)


def write(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a checkpoint; the last one becomes the previous one, and the previous one is given up.

    At any moment, also after a power cut, there is at least one whole checkpoint, once there has been one.

    Args:
        folder: of the run.
        tensors: on any device, by name.
        metadata: text by name.

    Raises:
        OSError: if it cannot be written, as on a full disk.
    """
    length, header, body = serialized(tensors, {"sha256": _ZEROS, "format": str(FORMAT), **metadata})
    digest = hashlib.sha256(length)
    digest.update(header)
    digest.update(body)
    start = len(_BEFORE)
    header = b"".join([header[:start], digest.hexdigest().encode(), header[start + _DIGITS :]])
    last, previous = folder / FILE, folder / PREVIOUS
    try:
        write_file(last, [length, header, body], keep=previous)
    except OSError as error:
        if error.errno not in _FULL or not (is_file(last) and is_file(previous)):
            raise
        previous.unlink()  # the newest one is worth more than two older ones
        write_file(last, [length, header, body], keep=previous)


def read(folder: Path, tell: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return tensors, on the CPU, and metadata of the last checkpoint that is whole; None if there is none.

    Args:
        folder: of the run.
        tell: called with one line for each file that is damaged.
    """
    found = [name for name in (FILE, PREVIOUS) if os.path.lexists(folder / name)]
    for name in found:
        try:
            return _read(folder / name)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError, SafetensorError) as error:
            goes_on = "; the run goes on from the checkpoint before" if name == FILE and PREVIOUS in found else ""
            tell(f"{folder / name} is damaged: {' '.join(str(error).split())}{goes_on}")
    return None


def exists(folder: Path) -> bool:
    """Return whether a folder has a file of a checkpoint, damaged or not."""
    return is_file(folder / FILE) or is_file(folder / PREVIOUS)


def remove(folder: Path) -> None:
    """Remove all checkpoints of a run that is complete."""
    for name in (PREVIOUS, FILE):
        (folder / name).unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with open_file(path, machine_memory()) as descriptor, open(descriptor, "rb", closefd=False) as file:
        metadata = read_header(descriptor).metadata
        content = file.read(os.fstat(descriptor).st_size)
    if content[LENGTH:_START] == _BEFORE:
        _check(content)
    elif "format" in metadata:
        raise ValueError("it has lost its checksum")
    return safetensors.torch.load(content), metadata


def _check(content: bytes) -> None:
    end = _START + _DIGITS
    digest = hashlib.sha256(content[:_START])
    digest.update(_ZEROS.encode())
    digest.update(memoryview(content)[end:])
    if digest.hexdigest().encode() != content[_START:end]:
        raise ValueError("its content does not have its checksum")
