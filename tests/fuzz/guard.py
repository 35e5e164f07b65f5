"""Watches what a reader does with a hostile file: nothing may be executed, no secret read, nothing outside written.

Audit hooks cannot be taken away again, so there is one for the process, which looks only while a case is watched.
"""

import contextlib
import functools
import gc
import importlib.metadata
import io
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SECONDS = 5.0  # of the processor's time that a case may take
HANGS = 20  # seconds in which a case that waits for something does nothing, before it is ended
MEMORY = 2**29  # bytes by which a case may make the largest use of memory grow
ADDRESSES = 2**31  # bytes of addresses that a case may ask for beyond those in use
LONGEST = 1500  # characters of a line, with a path in it
SECRET = "hunter2-do-not-tell"
PAYLOAD = "fuzz_payload"  # a module that must not be imported

_IDLE = 0.01  # seconds of the processor's time that what waits takes at most

_STARTS = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("os.startfile", "os.kill", "os.killpg", "signal.pthread_kill", "webbrowser.open", "pickle.find_class"),
    *("ctypes.dlopen", "code.__new__", "urllib.Request", "socket.connect", "socket.bind", "socket.sendto"),
)
_CHANGES = {  # events that change files, and how many paths their arguments begin with
    **{"os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1, "os.chmod": 1, "os.chown": 1},
    **{"os.utime": 1, "os.setxattr": 1, "os.removexattr": 1, "os.chflags": 1},
}
_LINKS = ("os.link", "os.symlink")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HARMLESS = ("/dev/null", "/proc/self/", "/dev/tty")


class TooSlow(BaseException):
    """A case that takes too long; no reader may catch it."""


@dataclass
class Place:
    """Where cases take place.

    Attributes:
        inside: all that a case may write to.
        outside: what it may neither read nor write.
    """

    inside: Path
    outside: Path
    number: int = 0

    @property
    def secret(self) -> Path:
        """A file whose content must be told to nobody."""
        return self.outside / "secret"

    @property
    def startup(self) -> Path:
        """A file that a shell would execute, which must not be written."""
        return self.outside / "startup"

    def refill(self) -> None:
        """Make what lies outside what it was."""
        shutil.rmtree(self.outside, ignore_errors=True)
        self.outside.mkdir()
        self.secret.write_text(f"password: {SECRET}\n")
        self.startup.write_text("# as it was\n")

    def outside_is_whole(self) -> bool:
        return (
            sorted(entry.name for entry in self.outside.iterdir()) == ["secret", "startup"]
            and self.secret.read_text() == f"password: {SECRET}\n"
            and self.startup.read_text() == "# as it was\n"
        )


@dataclass
class _Watch:
    """What a case may do, and what it did that it may not."""

    inside: str
    outside: str
    follows: bool
    address: tuple[str, int] | None
    found: list[str] = field(default_factory=list)


_OPTIONAL = {"olefile"}  # what installed packages try to import, and do without

_watch: _Watch | None = None
_is_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    global _watch
    watch = _watch
    if watch is None:
        return
    if event == "open" or event in _CHANGES or event in _LINKS or event == "import" or event in _STARTS:
        _watch = None  # what follows is no part of the case
        try:
            if (wrong := _look(watch, event, arguments)) is not None:
                watch.found.append(wrong)
        finally:
            _watch = watch


def _look(watch: _Watch, event: str, arguments: tuple[Any, ...]) -> str | None:
    if event == "import":
        root = str(arguments[0]).partition(".")[0]
        return None if root in _installed() else f"imports {arguments[0]}"
    if event in _STARTS:
        is_expected = watch.address is not None and (
            (event == "socket.connect" and arguments[1] == watch.address)
            or (event == "urllib.Request" and f"//{watch.address[0]}:{watch.address[1]}/" in str(arguments[0]))
        )
        return None if is_expected else f"{event} {arguments!r}"
    if event == "open":
        return _opened(watch, *arguments)
    if event in _LINKS:
        paths, folder = arguments[1:2], arguments[-1]
    else:
        paths, folder = arguments[: _CHANGES[event]], arguments[-1] if event != "os.truncate" else -1
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            where = _place(path, folder if isinstance(folder, int) else -1)
            if not _is_in(where, watch.inside):
                return f"{event} of {where}"
    return None


@functools.cache
def _installed() -> frozenset[str]:
    """Return the modules that may be imported when they are first needed."""
    known = {name.partition(".")[0] for name in sys.modules}
    return frozenset({*known, *_OPTIONAL, *sys.stdlib_module_names, *importlib.metadata.packages_distributions()})


def _opened(watch: _Watch, path: Any, mode: str | None, flags: int) -> str | None:
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    where = _place(path, -1)
    if not flags & (os.O_NOFOLLOW | os.O_EXCL):
        where = os.path.realpath(where)
    if flags & _WRITING or set(mode or "") & set("wax+"):
        return None if _is_in(where, watch.inside) or where.startswith(_HARMLESS) else f"writes to {where}"
    return f"reads {where}" if _is_in(where, watch.outside) and not watch.follows else None


def _place(path: Any, folder: int) -> str:
    """Return where a path is, without following its last part if that is a link."""
    text = os.fsdecode(path)
    if folder >= 0 and not os.path.isabs(text):
        with contextlib.suppress(OSError):
            text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
    parent, name = os.path.split(os.path.abspath(text))
    return os.path.join(os.path.realpath(parent), name)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)


@contextlib.contextmanager
def place_of_cases(root: Path) -> Iterator[Place]:
    """Yield a place in which all that a process may write to lies, its home and temporary files too."""
    global _is_installed
    if not _is_installed:
        sys.addaudithook(_hook)
        _is_installed = True
    place = Place(root / "inside", root / "outside")
    place.inside.mkdir()
    place.refill()
    payload = root / "modules"
    payload.mkdir()
    (payload / f"{PAYLOAD}.py").write_text("def run(*arguments, **options):\n    pass\n")
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in (("HOME", "home"), ("TMPDIR", "tmp")):
            (place.inside / folder).mkdir()
            patch.setenv(name, str(place.inside / folder))
        patch.setattr(tempfile, "tempdir", None)
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setenv("FUZZ_SECRET", SECRET)
        patch.delenv("CL_POWERPROP_DATA", raising=False)
        patch.syspath_prepend(payload)
        yield place


@contextlib.contextmanager
def case(place: Place) -> Iterator[Path]:
    """Yield a new folder, which is the working folder inside."""
    place.number += 1
    folder = place.inside / f"case{place.number}"
    folder.mkdir()
    try:
        with contextlib.chdir(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def watched(
    place: Place,
    act: Callable[[], list[str]],
    *,
    errors: tuple[type[Exception], ...],
    follows: bool = False,
    address: tuple[str, int] | None = None,
    seconds: float | None = None,
) -> list[str]:
    """Call what reads a hostile file, and check all that it did.

    Args:
        place: of the case, which is the working folder.
        act: returns one line for each thing that it refused.
        errors: by which it may refuse all.
        follows: links are followed, as among a user's own data.
        address: of the only server that it may speak to.
        seconds: of the processor's time that it may take; None for ``SECONDS``.

    Returns:
        The lines.
    """
    global _watch
    _installed()
    watch = _Watch(os.path.realpath(place.inside), os.path.realpath(place.outside), follows, address)
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        _bounded(SECONDS if seconds is None else seconds),
    ):
        _watch = watch
        try:
            lines = act()
        except errors as error:
            lines = [str(error)]
        finally:
            _watch = None
    if not place.outside_is_whole():
        place.refill()
        watch.found.append("what lies outside was changed")
    assert not watch.found, watch.found
    for line in lines:
        assert line.strip(), "a line that says nothing"
        assert line.isprintable(), line
        assert len(line) <= LONGEST, line
    _check_secret(place, "\n".join([*lines, out.getvalue()]))
    return lines


def _check_secret(place: Place, said: str) -> None:
    assert SECRET not in said, said
    for folder, _, names in os.walk("."):
        for name in names:
            path = Path(folder, name)
            about = path.lstat()
            if path.is_file() and not path.is_symlink() and about.st_nlink == 1 and about.st_size < 2**24:
                assert SECRET.encode() not in path.read_bytes(), f"{path} tells the secret"


@contextlib.contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Bound time and memory of what is inside."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = used + ADDRESSES
    gc.freeze()  # what earlier tests have left would be gone through in each collection, and count as the case's time
    start = before = time.process_time()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def look(*_: object) -> None:
        nonlocal before
        now = time.process_time()  # on a busy machine, little is done in much time
        if now - before < _IDLE:
            raise TooSlow(f"it has waited for {HANGS} seconds")
        if now - start > 4 * seconds:
            raise TooSlow(f"it has worked for {now - start:.0f} seconds")
        before = now

    handler = signal.signal(signal.SIGALRM, look)
    begun, (remaining, _) = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, HANGS, HANGS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        gc.unfreeze()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if remaining:  # of pytest's own limit
            signal.setitimer(signal.ITIMER_REAL, max(1.0, remaining - (time.monotonic() - begun)))
    taken = time.process_time() - start
    assert taken < seconds, f"it took {taken:.1f} seconds"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown) * 1024
    assert grown < MEMORY, f"it took {grown / 2**20:.0f} MiB"
