"""The files of a run's checkpoints: the last two, each a safetensors file with a checksum over all of its bytes."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cl_powerprop.checksum import KEY, ZEROS, check_checksum, with_checksum
from cl_powerprop.errors import FileError, RunFolderError
from cl_powerprop.files import open_file, write_file
from cl_powerprop.memory import machine_memory
from cl_powerprop.run_folder import CHECKPOINT, DAMAGED, FULL, PREVIOUS_CHECKPOINT, make_room
from cl_powerprop.saving import serialized
from cl_powerprop.shown import as_line
from cl_powerprop.tensor_header import read_header

FILE, PREVIOUS = CHECKPOINT, PREVIOUS_CHECKPOINT
FORMAT = 4
"""Of both. Files of formats 1 to 3 have no checksum; they can still be read."""

T = TypeVar("T")
Tensors = dict[str, Tensor]
Metadata = dict[str, str]

_OUT_OF_REACH = (OSError, FileError, MemoryError)  # says nothing about the content
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    RecursionError,
    SafetensorError,
    TypeError,
    ValueError,
)
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
        _set_aside(last)  # else it would take the place of a whole one
    try:
        write_file(last, content, keep=folder / PREVIOUS)
    except OSError as error:
        if error.errno not in FULL or not make_room(folder):  # the newest one is worth more than two older ones
            raise
        write_file(last, content, keep=folder / PREVIOUS)
    _written.add(last)


def _as_it_is(tensors: Tensors, metadata: Metadata) -> tuple[Tensors, Metadata]:
    return tensors, metadata


def read(
    folder: Path,
    tell: Callable[[str], None],
    parse: Callable[[Tensors, Metadata], T] = _as_it_is,  # type: ignore[assignment]
    *,
    sets_aside: bool = False,
) -> T | None:
    """Return what the last checkpoint that is whole holds; None if there is none.

    Args:
        folder: of the run.
        tell: called with one line for each file that is damaged.
        parse: makes what is returned of the tensors, on the CPU, and the metadata, by name.
        sets_aside: rename files that are damaged, so that nothing takes their place.

    Raises:
        RunFolderError: if a file cannot be read just now: it may be whole, and a run that began again would lose it.
    """
    damaged: dict[Path, str] = {}
    found = None
    for path in (folder / FILE, folder / PREVIOUS):
        try:
            found = parse(*_read(path))
            break
        except FileNotFoundError:
            continue
        except _OUT_OF_REACH as error:
            raise _refusal(path, error) from error
        except KeyError as error:
            damaged[path] = as_line(f"it has no {error}")
        except _DAMAGE as error:
            damaged[path] = as_line(str(error))
    for path, reason in damaged.items():
        line = f"{path} is damaged: {reason}"
        if sets_aside and (kept := _set_aside(path)) is not None:
            line += f"; it is called {kept.name} now"
        if found is not None:
            line += "; the run goes on from the checkpoint before"
        tell(line)
    return found


def _refusal(path: Path, error: Exception) -> RunFolderError:
    reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or "there is too little memory"
    return RunFolderError(
        f"{path} cannot be read: {reason}; mend that, and the run goes on from there, or remove it to go on without it"
    )


def _set_aside(path: Path) -> Path | None:
    """Rename a file that is damaged, and return what it is called now; None if that was not possible."""
    kept = path.with_name(DAMAGED[path.name])
    try:
        os.replace(path, kept)
    except OSError:
        return None
    return kept


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except (*_OUT_OF_REACH, *_DAMAGE):
        return False
    return True


def exists(folder: Path) -> bool:
    """Return whether a folder has a checkpoint, damaged or not, or something in its place."""
    return any(os.path.lexists(folder / name) for name in (FILE, PREVIOUS))


def _read(path: Path) -> tuple[Tensors, Metadata]:
    with open_file(path, machine_memory()) as descriptor, open(descriptor, "rb", closefd=False) as file:
        metadata = read_header(descriptor).metadata
        if not check_checksum(descriptor) and "format" in metadata:
            raise ValueError("it has lost its checksum")
        return safetensors.torch.load(file.read(os.fstat(descriptor).st_size)), metadata
