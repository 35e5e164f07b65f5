"""Files of a run folder, read and written so that neither a power cut nor a stranger's folder can do harm.

A file that is written replaces the one before at once, and both file and folder are synced to the disk: whatever
happens, a reader finds the whole old one or the whole new one. Nothing is written through a link, and no link, pipe or
device is read.
"""

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cl_powerprop.errors import FileError

_PART = ".part"  # what the names of files that are being written end with
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MORE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe would wait for its writer
_READABLE_BY_ALL = 0o666  # as far as the umask allows

LARGEST = 2**30  # bytes of a file that is read as a whole, unless a caller allows for more or less


def write_file(
    path: Path, content: Iterable[bytes | memoryview] | bytes, *, keep: Path | None = None, sync: bool = True
) -> None:
    """Write a file, replacing an earlier one of its name at once; an interrupted write leaves that as it was.

    Args:
        path: the file to write.
        content: all of it, or its pieces.
        keep: what the earlier one is called from then on; None to give it up.
        sync: wait until it is on the disk. Without, a power cut may cost the old and the new one: only for what can be
            made again.

    Raises:
        OSError: if it cannot be written, as on a full disk.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_PART}")
    try:
        with open(os.open(part, _NEW, _READABLE_BY_ALL), "wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if keep is not None:
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, keep)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    if sync:
        sync_folder(path.parent)


def append(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Add bytes at the end of a file, which is made if there is none; a failed call leaves it as it was.

    Args:
        path: the file.
        content: what to add.
        sync: wait until it is on the disk.

    Raises:
        FileError: if it is a link, a folder, a pipe or a device, or has another name elsewhere too.
        OSError: if it cannot be written, as on a full disk.
    """
    try:
        descriptor = os.open(path, _MORE, _READABLE_BY_ALL)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise FileError(f"{path.name} is not a file") from error
        raise
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            raise FileError(f"{path.name} is not a file of its own")
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
            if sync:
                os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, about.st_size)
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Bring a file that was written without being synced to the disk."""
    with open_file(path, sys.maxsize) as descriptor:
        os.fsync(descriptor)


def sync_folder(path: Path) -> None:
    """Bring the names of a folder's files to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def parts(folder: Path) -> list[Path]:
    """Return what interrupted writes have left in a folder."""
    return [entry for entry in folder.iterdir() if entry.name.endswith(_PART) and not entry.is_dir()]


@contextlib.contextmanager
def open_file(path: Path, most: int = LARGEST, follow: bool = False) -> Iterator[int]:
    """Open a file to read it, and yield its descriptor.

    Args:
        path: the file.
        most: bytes that it may have.
        follow: a symbolic link is followed, as users have them among data.

    Raises:
        FileError: if it is a link, a folder, a pipe or a device, or larger than that.
        OSError: if it is absent, or cannot be read.
    """
    try:
        if not follow and stat.S_ISLNK(os.lstat(path).st_mode):
            raise FileError(f"{path.name} is a symbolic link, which is not followed")
        descriptor = os.open(path, _OLD & ~os.O_NOFOLLOW if follow else _OLD)
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise FileError(f"{path.name} is not a file")
        if about.st_size > most:
            raise FileError(f"{path.name} is too large: {about.st_size:,} bytes, of at most {most:,}")
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(path: Path, most: int = LARGEST, follow: bool = False) -> bytes:
    """Return the content of a file; arguments and errors are those of :func:`open_file`."""
    with open_file(path, most, follow) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return file.read(os.fstat(descriptor).st_size)


def is_file(path: Path) -> bool:
    """Return whether there is a file of this name, and no link, folder, pipe or device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
