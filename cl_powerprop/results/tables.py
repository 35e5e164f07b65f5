"""The tables of a run that grow while it lasts: rows are added to their files, which are never rewritten.

A checkpoint has the length and the hash of each file, and not its rows. These are in one more file, a copy that is
written with the checkpoints, so that each of the two can be made again from the other.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from cl_powerprop.errors import FileError, RunFolderError
from cl_powerprop.files import read_file
from cl_powerprop.privacy import redact
from cl_powerprop.run_folder import ROWS, RunFolder, csv_text

CURVES, SPARSITY, CAPACITY, REUSE = NAMES = ("curves.csv", "sparsity.csv", "capacity.csv", "reuse.csv")

T = TypeVar("T")
_MOST = 2**40  # bytes of a file; it is compared with its length in the checkpoint
_DIGITS = 15  # of a number of bytes
log = logging.getLogger("cl_powerprop")


class Tables:
    """Adds rows to tables of a run folder.

    The copy is a row of pieces. Each begins with a line that has the name of the table and the number of bytes, which
    follow as they are in the table's file.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._new: dict[str, list[bytes]] = {}  # not in the files yet
        self._not_copied: dict[str, list[bytes]] = {}
        self._lengths: dict[str, int] = {}
        self._hashes: dict[str, Any] = {}
        self._is_copied = False

    def restart(self) -> None:
        """Remove what a run has left that begins again."""
        self._folder.remove(*NAMES, ROWS)

    def add(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add rows to a table; they are in its file after :meth:`flush`. A table without rows has no file.

        Args:
            name: one of :data:`NAMES`.
            header: the table's first row.
            rows: with as many values as that; None and NaN become empty fields.
        """
        text = csv_text(rows)
        if not text:
            return
        if name not in self._lengths and name not in self._new:
            text = csv_text([header]) + text
        self._new.setdefault(name, []).append(redact(text).encode())

    def flush(self) -> None:
        """Bring all rows into the files of their tables.

        Raises:
            StorageError: if they cannot be written. They are kept, and another call tries again.
        """
        for name in list(self._new):
            content = b"".join(self._new[name])
            self._folder.append(name, content)
            del self._new[name]
            self._not_copied.setdefault(name, []).append(content)
            self._count(name, content)

    def _count(self, name: str, content: bytes) -> None:
        self._lengths[name] = self._lengths.get(name, 0) + len(content)
        self._hashes.setdefault(name, hashlib.sha256()).update(content)

    def state_dict(self) -> dict[str, Any]:
        """Return length and SHA-256 of each file, after all rows and their copy are on the disk.

        Raises:
            StorageError: if they cannot be written.
        """
        self.flush()
        pieces = [_piece(name, b"".join(contents)) for name, contents in self._not_copied.items()]
        if pieces:
            self._folder.append(ROWS, b"".join(pieces), sync=True)
            self._not_copied.clear()
            self._is_copied = True
        return {name: [length, self._hashes[name].hexdigest()] for name, length in self._lengths.items()}

    def find(self, state: Mapping[str, Sequence[Any]]) -> dict[str, bytes]:
        """Return what each table had when :meth:`state_dict` returned a state: from its file, or from the copy.

        Raises:
            RunFolderError: if neither is what it was.
        """
        return {name: self._find(name, int(length), str(digest)) for name, (length, digest) in state.items()}

    def restore(self, contents: Mapping[str, bytes]) -> None:
        """Give the files the content that :meth:`find` returned; what came later is removed.

        Every file is made anew: nothing is written through a link in its place.

        Raises:
            StorageError: if they cannot be written.
        """
        self._folder.remove(*(name for name in NAMES if name not in contents))
        for name, content in contents.items():
            self._folder.write_bytes(name, content)
            self._count(name, content)
        self._folder.write_bytes(ROWS, b"".join(_piece(name, content) for name, content in contents.items()))
        self._is_copied = True

    def _find(self, name: str, length: int, digest: str) -> bytes:
        if name not in NAMES:
            raise RunFolderError(f"{self._folder.path} has no table {name!r}")
        for place, content in ((name, self._read(name)), (ROWS, b"".join(_pieces_of(self._read(ROWS), name)))):
            if len(content) >= length and hashlib.sha256(content[:length]).hexdigest() == digest:
                if place == ROWS:
                    log.warning("%s is damaged, and is made again from its copy", self._folder.path / name)
                return content[:length]
        raise RunFolderError(f"{self._folder.path / name} is damaged, and so is its copy in {ROWS}")

    def _read(self, name: str) -> bytes:
        with contextlib.suppress(OSError, FileError):
            return read_file(self._folder.path / name, _MOST)
        return b""

    def adopt(self, name: str, rows: int) -> list[Any]:
        """Return what :meth:`state_dict` would have said of the first rows of a file that an earlier version wrote.

        Raises:
            RunFolderError: if it has fewer.
        """
        lines = self._read(name).splitlines(keepends=True)[: rows + 1]
        if len(lines) <= rows:
            there = max(0, len(lines) - 1)
            raise RunFolderError(f"{self._folder.path / name} has {there} rows of the {rows} that it had")
        content = b"".join(lines)
        return [len(content), hashlib.sha256(content).hexdigest()]

    def finish(self) -> None:
        """Bring all files to the disk; one that was changed by others since the run began is made again.

        Raises:
            StorageError: if they cannot be written.
        """
        state = self.state_dict() if self._is_copied else None
        self.flush()
        for name, (length, digest) in (state or {}).items():
            content = self._read(name)
            if len(content) != length or hashlib.sha256(content).hexdigest() != digest:
                with contextlib.suppress(RunFolderError):
                    self._folder.write_bytes(name, self._find(name, length, digest))
        self._folder.sync(*self._lengths)


def read_rows(name: str, content: bytes, make: Callable[[dict[str, str]], T]) -> list[T]:
    """Return what is made of each row of a table.

    Raises:
        RunFolderError: if it is damaged.
    """
    try:
        return [make(row) for row in csv.DictReader(io.StringIO(content.decode(), newline=""))]
    except (LookupError, TypeError, ValueError, csv.Error) as error:
        raise RunFolderError(f"{name} cannot be read: {type(error).__name__}: {error}") from error


def _piece(name: str, content: bytes) -> bytes:
    return f"{name} {len(content)}\n".encode() + content


def _pieces_of(copy: bytes, name: str) -> Iterable[bytes]:
    """Yield the pieces of a table, as far as the copy can be read."""
    start = 0
    while (end := copy.find(b"\n", start)) >= 0:
        its_name, _, size = copy[start:end].decode(errors="replace").rpartition(" ")
        if not size.isdecimal() or len(size) > _DIGITS:
            return
        start = end + 1 + int(size)
        if its_name == name:
            yield copy[end + 1 : start]
