"""The files of a run's checkpoints: the last two, each a safetensors file with a checksum over all of its bytes."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cl_powerprop.checksum import KEY, ZEROS, check_checksum, with_checksum
from cl_powerprop.files import is_file, open_file, write_file
from cl_powerprop.memory import machine_memory
from cl_powerprop.run_folder import CHECKPOINT, FULL, PREVIOUS_CHECKPOINT, make_room
from cl_powerprop.saving import serialized
from cl_powerprop.tensor_header import read_header

FILE, PREVIOUS = CHECKPOINT, PREVIOUS_CHECKPOINT
FORMAT = 4
"""Of both. Files of formats 1 to 3 have no checksum; they can still be read."""

_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError, SafetensorError)
_written: set[Path] = set()  # by this process: these are whole


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
    content = with_checksum(serialized(tensors, {KEY: ZEROS, "format": str(FORMAT), **metadata}))
    last = folder / FILE
    if last not in _written and not _is_whole(last):
        last.unlink(missing_ok=True)  # else it would take the place of a whole one
    try:
        write_file(last, content, keep=folder / PREVIOUS)
    except OSError as error:
        if error.errno not in FULL or not make_room(folder):  # the newest one is worth more than two older ones
            raise
        write_file(last, content, keep=folder / PREVIOUS)
    _written.add(last)


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
        except _DAMAGE as error:
            goes_on = "; the run goes on from the checkpoint before" if name == FILE and PREVIOUS in found else ""
            tell(f"{folder / name} is damaged: {' '.join(str(error).split())}{goes_on}")
    return None


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except _DAMAGE:
        return False
    return True


def exists(folder: Path) -> bool:
    """Return whether a folder has a file of a checkpoint, damaged or not."""
    return is_file(folder / FILE) or is_file(folder / PREVIOUS)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with open_file(path, machine_memory()) as descriptor, open(descriptor, "rb", closefd=False) as file:
        metadata = read_header(descriptor).metadata
        if not check_checksum(descriptor) and "format" in metadata:
            raise ValueError("it has lost its checksum")
        return safetensors.torch.load(file.read(os.fstat(descriptor).st_size)), metadata
