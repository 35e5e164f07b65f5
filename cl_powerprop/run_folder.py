"""The files of one run: replaced whole, so that a reader never sees half of one, or tables to which rows are added."""

import contextlib
import csv
import errno
import io
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cl_powerprop.errors import FileError, RunFolderError, StorageError
from cl_powerprop.files import append, is_file, parts, sync_file, sync_folder, write_file
from cl_powerprop.privacy import redact, redact_all
from cl_powerprop.run_lock import is_lock

SCHEMA_VERSION = 1
COPY = "run_folder"  # a folder of this name holds a copy of a run's files, for a dashboard, and is no run of its own

CHECKPOINT = "checkpoint.safetensors"
PREVIOUS_CHECKPOINT = "checkpoint.previous.safetensors"
DAMAGED = {name: name.replace(".safetensors", ".damaged.safetensors") for name in (CHECKPOINT, PREVIOUS_CHECKPOINT)}
"""What a checkpoint that is damaged is called from then on."""
ROWS = "checkpoint.rows"  # a copy of the rows of all tables, for as long as there are checkpoints
RESERVE = ".reserve"
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or of a user's share of it, that is full."""

_RESERVED = 2**17  # bytes
_HYDRA_FILES = {"config.yaml", "hydra.yaml", "overrides.yaml"}


class RunFolder:
    """A folder that belongs to one run from its start. What Hydra was told to write there itself may lie in it.

    Raises:
        RunFolderError: if it holds a run already, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            occupied = not is_free(path)
        except OSError as error:
            raise RunFolderError(f"the run folder {path} cannot be written: {error.strerror}") from error
        if occupied:
            raise taken(path)
        tidy(path, is_complete=False)

    @classmethod
    def reopen(cls, path: Path) -> "RunFolder":
        """Return the folder of a run that was begun before, without what a kill left unfinished."""
        tidy(path, is_complete=False)
        folder = cls.__new__(cls)
        folder.path = path
        return folder

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Say in one line what is wrong if something inside cannot be written.

        Raises:
            StorageError: saying what to do.
        """
        try:
            yield
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            is_full = error.errno in FULL
            reason = "the disk is full" if is_full else error.strerror or str(error)
            after = "; make room, and the run can go on" if is_full else ""
            raise StorageError(f"the run folder {self.path} cannot be written: {reason}{after}") from error

    def write_text(self, name: str, text: str, *, sync: bool = True) -> None:
        """Write a file of the run, replacing an earlier version of it; keys and a user's paths are taken out.

        Args:
            name: of the file.
            text: its content.
            sync: wait until it is on the disk; needed for what cannot be made again from a checkpoint.

        Raises:
            StorageError: if it cannot be written.
        """
        self.write_bytes(name, redact(text).encode(), sync=sync)

    def write_bytes(self, name: str, content: bytes, *, sync: bool = True) -> None:
        """Write a file of the run as it is; arguments and errors are otherwise those of :meth:`write_text`."""
        with self.writing():
            write_file(self.path / name, content, sync=sync)

    def append(self, name: str, content: bytes, *, sync: bool = False) -> None:
        """Add to a file of the run. On a full disk, the previous checkpoint makes room.

        Raises:
            FileError: if there is something else in its place.
            StorageError: if it cannot be written.
        """
        with self.writing():
            try:
                append(self.path / name, content, sync=sync)
            except OSError as error:
                if error.errno not in FULL or not make_room(self.path):
                    raise
                append(self.path / name, content, sync=sync)

    def sync(self, *names: str) -> None:
        """Bring files that were written without being synced to the disk."""
        with self.writing():
            for name in names:
                with contextlib.suppress(FileNotFoundError, FileError):
                    sync_file(self.path / name)
            sync_folder(self.path)

    def remove(self, *names: str) -> None:
        """Remove files, of which some may be absent."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def write_json(self, name: str, content: dict[str, Any], *, sync: bool = True) -> None:
        """Write a JSON file; a number that is not finite becomes null."""
        self.write_text(name, json.dumps(finite(redact_all(content)), indent=2) + "\n", sync=sync)

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]], *, sync: bool = True) -> None:
        """Write a CSV file; None and NaN become empty fields."""
        self.write_text(name, csv_text([header, *rows]), sync=sync)

    def reserve_room(self) -> None:
        """Take some room on the disk, for :meth:`give_up_reserve` to give to the last words of a run."""
        self.write_bytes(RESERVE, os.urandom(_RESERVED))

    def give_up_reserve(self) -> None:
        """Free the room that :meth:`reserve_room` has taken."""
        self.remove(RESERVE)


class UnwrittenFolder(RunFolder):
    """The folder of a run that another process writes: this one writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_bytes(self, name: str, content: bytes, *, sync: bool = True) -> None:
        """Write nothing."""

    def append(self, name: str, content: bytes, *, sync: bool = False) -> None:
        """Write nothing."""

    def sync(self, *names: str) -> None:
        """Write nothing."""

    def remove(self, *names: str) -> None:
        """Remove nothing."""


def seed_folder(path: Path, seed: int) -> Path:
    """Return the run folder of a seed among several that are trained together."""
    return path / f"seed_{seed}"


def make_room(folder: Path) -> bool:
    """Remove the previous checkpoint of a run if there is a newer one, and return whether there was."""
    if not (is_file(folder / CHECKPOINT) and is_file(folder / PREVIOUS_CHECKPOINT)):
        return False
    (folder / PREVIOUS_CHECKPOINT).unlink()
    return True


def tidy(folder: Path, is_complete: bool) -> None:
    """Remove what a kill may have left in the folder of a run, which no other process writes.

    Args:
        folder: of the run.
        is_complete: nothing will go on from its checkpoints.
    """
    for path in leftovers(folder, is_complete):
        path.unlink(missing_ok=True)


def leftovers(folder: Path, is_complete: bool) -> list[Path]:
    """Return the files that :func:`tidy` would remove; a folder of such a name is not ours."""
    checkpoints = (*DAMAGED.values(), PREVIOUS_CHECKPOINT, CHECKPOINT, ROWS) if is_complete else ()
    names = (RESERVE, *checkpoints)
    named = [folder / name for name in names if os.path.lexists(folder / name)]
    return [*parts(folder), *(path for path in named if path.is_symlink() or not path.is_dir())]


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV; None and NaN become empty fields."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(["" if _is_nan(value) else value for value in row] for row in rows)
    return text.getvalue()


def is_free(path: Path, besides: Collection[str] = ()) -> bool:
    """Return whether a run can begin in a folder: it is absent, or holds nothing.

    Args:
        path: of the folder.
        besides: names of files that do not count. What Hydra writes does not either, nor what a killed run has left.

    Raises:
        OSError: if it cannot be read.
    """
    try:
        hidden = {entry.name for entry in leftovers(path, is_complete=False) if entry.name.startswith(".")}
        ours = hidden.union(besides)
        return all(entry.name in ours or is_lock(entry.name) or _is_of_hydra(entry) for entry in path.iterdir())
    except FileNotFoundError:
        return True


def taken(path: Path) -> RunFolderError:
    """Return the error for a folder that holds something."""
    return RunFolderError(f"the run folder {path} exists already and is never overwritten; choose another run_dir")


def _is_of_hydra(entry: Path) -> bool:
    """Whether Hydra has written this: the folder `hydra.output_subdir`, or the file of `hydra/job_logging`."""
    if not entry.is_dir():
        return entry.suffix == ".log"
    inside = {file.name for file in entry.rglob("*") if not file.is_dir()}
    return bool(inside) and inside <= _HYDRA_FILES


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def finite(value: Any) -> Any:
    """Return nested values with null for every number that is not finite, as JSON needs."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
