"""A run that was begun in a folder before: whether a config goes on with it, and from where."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cl_powerprop.checkpoint import Checkpoint, differences, read_checkpoint, written_config
from cl_powerprop.checkpoint_files import exists
from cl_powerprop.config import BEGINNING, RunConfig
from cl_powerprop.documents import read_json
from cl_powerprop.errors import ConfigurationError, FileError, RunFolderError
from cl_powerprop.files import is_file, read_file
from cl_powerprop.interrupts import Interrupted
from cl_powerprop.record import STATUSES
from cl_powerprop.run_folder import DAMAGED, SCHEMA_VERSION, is_free, leftovers, taken, tidy
from cl_powerprop.run_lock import NAME as LOCK
from cl_powerprop.run_lock import RunLock
from cl_powerprop.shown import shell_word
from cl_powerprop.stored_config import LARGEST, NAME, load_config

_SUFFIXES = {".json", ".csv", ".yaml", ".safetensors", ".rows"}  # of the files of a run
_LAST = "weights.csv"  # is written as a run ends, before its checkpoints are removed


@dataclass(frozen=True)
class Begun:
    """A run that was begun.

    Attributes:
        folder: of the run.
        record: the content of its `run.json`; empty if that cannot be read.
    """

    folder: Path
    record: Mapping[str, Any]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.record.get("status") == "complete"

    def checkpoint(self, tell: Callable[[str], None], *, sets_aside: bool = False) -> Checkpoint | None:
        """Return where the run stands; None if it has no checkpoint, or none that is whole.

        Args:
            tell: called with one line for each checkpoint that is damaged.
            sets_aside: rename these: the run goes on without them.

        Raises:
            RunFolderError: if a checkpoint cannot be read just now; if the run has ended, and only its `run.json` is
                damaged; or if it was begun by another version.
        """
        if (version := self.record.get("schema_version", SCHEMA_VERSION)) != SCHEMA_VERSION:
            raise RunFolderError(
                f"{self.folder} has schema version {version!r}; this cl-powerprop has {SCHEMA_VERSION}"
            )
        checkpoint = read_checkpoint(self.folder, tell, sets_aside=sets_aside)
        if checkpoint is None and not self.record and os.path.lexists(self.folder / _LAST):
            again = f"cl-powerprop repeat {shell_word(str(self.folder))}"
            raise RunFolderError(
                f"{self.folder} holds a run that has ended, but its run.json is damaged, and cannot be made again; put "
                f"a copy of it back, or make the same run in a new folder: {again}"
            )
        return checkpoint

    def tidy(self) -> None:
        """Remove what a kill in the last moments of a complete run has left, if the folder can be written."""
        with contextlib.suppress(OSError, RunFolderError):
            left = leftovers(self.folder, is_complete=True) or os.path.lexists(self.folder / LOCK)
            if self.is_complete and left:  # the lock's own file goes as it is given back
                with RunLock(self.folder).hold():
                    tidy(self.folder, is_complete=True)

    def config(self, tell: Callable[[str], None]) -> RunConfig:
        """Return the run's config: that of its checkpoint, and that of its file without one.

        Args:
            tell: called with one line if the file is damaged, or says otherwise than the checkpoint.

        Raises:
            RunFolderError: if there is no checkpoint, and the file cannot be read; see also :meth:`checkpoint`.
        """
        damaged: list[str] = []
        checkpoint = self.checkpoint(damaged.append)  # the run reads it again, and tells
        if checkpoint is None:
            try:
                return load_config(self.folder)
            except ConfigurationError as error:
                file = self.folder / NAME
                reason = str(error) if str(file) in str(error) else f"{file} cannot be used: {error}"
                fix = f"mend it, or call the command that began the run again, with run_dir={self.folder}"
                raise RunFolderError("; ".join([*damaged, reason, fix])) from error
        written = replace(written_config(checkpoint, self.folder), run_dir=str(self.folder))
        try:
            filed = load_config(self.folder)
        except ConfigurationError as error:
            tell(f"{error}; it is written anew from the checkpoint")
            return written
        if changed := differences(written, filed):
            tell(f"{self.folder / NAME} has changed since the run began: {', '.join(changed)}; it is written anew")
        written.data.root = filed.data.root
        free = {key: getattr(filed, key) for key in ("logger", "progress", "references_dir", "checkpoint")}
        return replace(written, **free)

    def check_same(self, config: RunConfig, checkpoint: Checkpoint | None) -> None:
        """Refuse to go on with other settings.

        Raises:
            RunFolderError: naming each with both values.
        """
        try:
            before = load_config(self.folder) if checkpoint is None else written_config(checkpoint, self.folder)
        except ConfigurationError as error:
            if not self.is_complete:
                return  # nothing was finished
            raise RunFolderError(f"{taken(self.folder)}; what it holds cannot be compared: {error}") from error
        if changed := differences(before, config):
            raise RunFolderError(
                f"{self.folder} holds a run with other settings: {', '.join(changed)}; choose another run_dir"
            )


def begun_in(folder: Path) -> Begun | None:
    """Return the run that was begun in a folder; None if the folder is free.

    Raises:
        RunFolderError: if it holds something else, or cannot be read.
    """
    record = folder / "run.json"
    try:
        if any(os.path.lexists(folder / name) for name in ("run.json", *DAMAGED, *DAMAGED.values())):
            _refuse_folders(folder)
            return Begun(folder, _read(record))
        if is_free(folder):
            return None
        if is_free(folder, {NAME}) and _is_ours(folder / NAME):  # of a run that was killed as it began
            return Begun(folder, {})
    except RunFolderError:
        raise
    except OSError as error:
        raise RunFolderError(f"the run folder {folder} cannot be read: {error.strerror}") from error
    raise taken(folder)


def _refuse_folders(folder: Path) -> None:
    """Refuse a folder in the place of a file of a run, which could be neither read nor replaced."""
    with contextlib.suppress(FileNotFoundError):
        for entry in folder.iterdir():
            if entry.suffix in _SUFFIXES and not entry.is_symlink() and entry.is_dir():
                raise RunFolderError(f"{entry} is a folder, where a run has a file of that name; remove it")


def describe(checkpoint: Checkpoint | None) -> str:
    """Say where a run goes on."""
    if checkpoint is None:
        return "starting again, for there is no checkpoint that can be read"
    before, epochs = checkpoint.results["run"], checkpoint.task.get("epochs")
    within = f" and {epochs} epochs of the next" if epochs else ""
    return f"going on after {before['trained_tasks']} of {before['n_tasks']} tasks{within}"


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a `run.json`; nothing if it is absent, damaged, or no file.

    Raises:
        RunFolderError: if it cannot be read just now.
    """
    try:
        content = read_json(file)
    except (FileNotFoundError, FileError, ValueError):
        return {}
    except OSError as error:
        raise RunFolderError(f"{file} cannot be read: {error.strerror}; mend that, and the run can go on") from error
    is_whole = isinstance(content, dict) and content.get("status") in STATUSES
    return content if is_whole else {}


def _is_ours(config: Path) -> bool:
    """Return whether a config may be one of ours, perhaps cut off by a power cut, and not a user's own."""
    try:
        text = read_file(config, LARGEST)
    except (OSError, FileError):
        return False
    return text.startswith(BEGINNING.encode()[: len(text)]) or not text.strip(b"\0")


@contextlib.contextmanager
def saying_where(folder: Path) -> Iterator[None]:
    """Let an interrupt of the run inside say how it goes on."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        stop.add_note(_what_next(folder))
        raise


def _what_next(folder: Path) -> str:
    if not is_file(folder / NAME):
        return "nothing was begun yet"
    with contextlib.suppress(RunFolderError):
        if _read(folder / "run.json").get("status") == "complete":
            return f"the run in {_where(folder)} is complete"
    goes_on = "goes on from its last checkpoint" if exists(folder) else "begins again, for there is no checkpoint"
    return f"{resume_command(folder)} {goes_on}, and so does the same command with this run_dir"


def resume_command(folder: Path) -> str:
    """Return the command that goes on with what was begun at or below a folder."""
    where = _where(folder)
    return f"cl-powerprop resume {'-- ' if where.startswith('-') else ''}{shell_word(where)}"


def _where(folder: Path) -> str:
    return os.path.relpath(folder) if folder.absolute().is_relative_to(Path.cwd()) else str(folder)
