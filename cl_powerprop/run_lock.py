"""Only one process at a time writes a run folder.

The process holds a lock of the kernel (`flock`) for as long as its run lasts; when it dies, the lock is free at once.
The locked file says who holds it. Where the file system has no such locks, as some of NFS, files that only one process
can make stand for it; a holder on the same machine is then looked up among its processes, and one elsewhere is taken
for dead when its file shows no sign of life for a while.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from cl_powerprop.errors import InUseError, RunFolderError
from cl_powerprop.record import now

NAME = ".run.lock"

_BEAT = 10.0  # seconds between two signs of life
_PATIENCE = 35.0  # seconds without one, after which a holder on another machine is dead
_LOOK = 0.1  # seconds between two looks
_MOMENT = 2.0  # seconds until a new holder has said who it is
_LONGEST = 1000  # bytes of a file that says who holds the lock
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_held: set[int] = set()  # descriptors


def is_lock(name: str) -> bool:
    """Return whether a file of a run folder is a lock's."""
    return name == NAME or name.startswith(f"{NAME}.")


def _forget() -> None:
    """Let go of all locks in a forked process, which would keep those of a dead parent."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)


def _boot() -> str:
    """Return what tells this machine since it was started from all others, or at least its name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def _space() -> str:
    """Return which numbers of processes are meant: containers on one machine have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(process: int) -> str:
    """Return when a process was started, in ticks since the machine was; empty if there is none, or it is unknown."""
    try:
        about = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return about.rpartition(")")[2].split()[19]  # the name, in brackets, may have spaces


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock; its number alone could be another one's later, or in another container."""

    host: str = field(default_factory=platform.node)
    boot: str = field(default_factory=_boot)
    space: str = field(default_factory=_space)
    process: int = field(default_factory=os.getpid)
    started: str = field(default_factory=lambda: _started(os.getpid()))
    since: str = field(default_factory=now)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"

    def lives(self) -> bool | None:
        """Return whether the process is there; None if that cannot be known here."""
        here = Holder()
        if (self.boot, self.space) != (here.boot, here.space) or not here.started:
            return None
        return _started(self.process) == self.started


def _read(descriptor: int) -> Holder | None:
    """Return who has written a lock's file; None if nobody, or the lock was given back."""
    return _holder(os.pread(descriptor, _LONGEST, 0))


def _holder(content: bytes) -> Holder | None:
    try:
        written = json.loads(content)
        texts = {each.name: _printable(written[each.name]) for each in fields(Holder) if each.name != "process"}
        return Holder(**texts, process=int(written["process"]))
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None


def _printable(text: object) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def _write(descriptor: int, values: object) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(values).encode(), 0)


class RunLock:
    """The right to write a run folder.

    Args:
        folder: of the run; it is made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock inside.

        Raises:
            RunFolderError: naming who holds it already, or if the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path, descriptor = self._take()
        except RunFolderError:
            raise
        except OSError as error:
            raise RunFolderError(f"the run folder {self._folder} cannot be written: {error.strerror}") from error
        _held.add(descriptor)
        process, over = os.getpid(), threading.Event()
        sign = threading.Thread(target=_show_life, args=(descriptor, over), daemon=True)
        sign.start()
        try:
            yield
        finally:
            if os.getpid() == process:  # a forked process has let go of it
                over.set()
                sign.join()
                _held.discard(descriptor)
                self._give_back(path, descriptor)

    def _take(self) -> tuple[Path, int]:
        """Return the lock's file and its descriptor."""
        path = self._folder / NAME
        while True:
            descriptor = _open(path, os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _wait_for_holder(descriptor)
                os.close(descriptor)
                raise self._refusal(holder) from None
            except OSError:  # the file system has no locks
                os.close(descriptor)
                return self._take_file()
            # The file may be gone, or another one: whoever held it removes it. A holder elsewhere may be alive where
            # locks are only the machine's own.
            holder = _read(descriptor) if _is_at(descriptor, path) else None
            if holder is not None and holder.boot != Holder().boot and _shows_life(path):
                os.close(descriptor)
                raise self._refusal(holder)
            if _is_at(descriptor, path):
                with contextlib.suppress(OSError):  # on a full disk it holds all the same
                    _write(descriptor, asdict(Holder()))
                return path, descriptor
            os.close(descriptor)

    def _take_file(self) -> tuple[Path, int]:
        """Make the next one of a row of numbered files, the last of which is the holder's.

        Nobody removes the last one, so that two processes that find it forsaken cannot both take its place.
        """
        while True:
            number, last = self._last()
            if last.exists():
                holder, is_empty = _look(last)
                lives = holder.lives() if holder is not None else (None if is_empty and number else False)
                if lives is None and _shows_life(last):
                    lives, holder = True, _look(last)[0]  # it has said by now who it is
                if lives:
                    raise self._refusal(holder)
            path = self._folder / f"{NAME}.{number + 1}"
            try:
                descriptor = _open(path, os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                continue
            _write(descriptor, asdict(Holder()))
            if self._last()[1] == path:
                for earlier in self._files():
                    if earlier != path:
                        earlier.unlink(missing_ok=True)
                return path, descriptor
            os.close(descriptor)  # another one was faster by more than one file
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if is_lock(path.name)]

    def _last(self) -> tuple[int, Path]:
        """Return the highest number of a lock's file, and the file; that without a number counts as 0."""
        numbered = {int(path.suffix[1:]): path for path in self._files() if path.suffix[1:].isdecimal()}
        return max(numbered.items(), default=(0, self._folder / NAME))

    def _give_back(self, path: Path, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            if path.name != NAME:
                _write(descriptor, {})
            elif _is_at(descriptor, path):
                path.unlink()  # before it is unlocked: afterwards it may be another process's
        os.close(descriptor)

    def _refusal(self, holder: Holder | None) -> RunFolderError:
        who = "another process" if holder is None else str(holder)
        return InUseError(f"{self._folder} is being written by {who}; wait for it to end, or choose another run_dir")


def holder_of(folder: Path) -> Holder | None:
    """Return who writes a run folder just now, as far as that can be seen without waiting; None for nobody."""
    try:
        path = RunLock(folder)._last()[1]
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        holder, silent = _read(descriptor), time.time() - os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
    lives = holder is not None and holder.lives()
    return holder if lives or (lives is None and silent < _PATIENCE) else None


def _open(path: Path, flags: int = 0) -> int:
    """Open a lock's file, and never anything else under its name."""
    while True:
        try:
            descriptor = os.open(path, _OPEN | flags, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise RunFolderError(f"{path} is a symbolic link; remove it") from error
            if error.errno == errno.EISDIR:
                raise RunFolderError(f"{path} is a folder; remove it") from error
            raise
        about = os.fstat(descriptor)
        if stat.S_ISREG(about.st_mode) and about.st_nlink <= 1:
            return descriptor
        os.close(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise RunFolderError(f"{path} is not a file; remove it")
        path.unlink(missing_ok=True)  # a name of a file that is somewhere else too


def _look(path: Path) -> tuple[Holder | None, bool]:
    """Return who has written a lock's file, and whether the file is empty."""
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return None, False
    try:
        content = os.pread(descriptor, _LONGEST, 0)  # once: it may be written at any moment
        return _holder(content), not content
    finally:
        os.close(descriptor)


def _wait_for_holder(descriptor: int) -> Holder | None:
    """Return who holds a lock, which it says just after it took it."""
    end = time.monotonic() + _MOMENT
    while ((holder := _read(descriptor)) is None or holder.lives() is False) and time.monotonic() < end:
        time.sleep(_LOOK)
    return holder


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _show_life(descriptor: int, over: threading.Event) -> None:
    while not over.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _shows_life(path: Path) -> bool:
    """Watch a lock's file for a while, and return whether its holder has touched or removed it."""

    def look() -> tuple[int, int, int]:
        descriptor = _open(path)  # NFS asks the server anew when a file is opened
        try:
            about = os.fstat(descriptor)
            return about.st_ino, about.st_size, about.st_mtime_ns
        finally:
            os.close(descriptor)

    end = time.monotonic() + _PATIENCE
    try:
        first = look()
        while time.monotonic() < end:
            time.sleep(_LOOK)
            if look() != first:
                return True
    except FileNotFoundError:
        pass
    return False
