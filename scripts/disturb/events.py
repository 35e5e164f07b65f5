"""What a run does, counted inside its own process, so that it can be stopped at any moment of it, always the same.

An event is a string: "step" (of an optimizer), "epoch", "task", "search" (a mask is proposed) or "evaluation"; or an
operation on a file of the case's folder, as in "rename run/run.json". It is counted before it happens. Operations are
counted apart from the others, because there are more of them if a checkpoint is due after so many seconds.
"""

import builtins
import io
import mmap
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any

from .power import Disk

_AUDITED = {"os.rename": "rename", "os.remove": "unlink", "os.mkdir": "mkdir", "os.truncate": "truncate"}
_AUDITED |= {"os.link": "link", "os.rmdir": "rmdir"}
_OPERATIONS = ("open", "write", "fsync", *_AUDITED.values())
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NUMBER, _NUMBERS = Struct("d"), ("steps", "signalled", "begin", "release")


@dataclass(frozen=True)
class Stop:
    """When and how a run is stopped.

    Attributes:
        event: before which of its events other than operations on files, from 0; None for another moment.
        operation: before which operation on a file, from 0.
        seconds: after how many seconds of CPU time.
        signal: that it gets.
        torn: a write that is the operation has written half of its bytes.
        power: the seed of a power cut: what was not synced is lost, or was not renamed; None for none.
    """

    event: int | None = None
    operation: int | None = None
    seconds: float | None = None
    signal: int = signal.SIGKILL
    torn: bool = False
    power: int | None = None


def is_operation(event: str) -> bool:
    """Return whether an event is an operation on a file."""
    return event.split()[0] in _OPERATIONS


class Board:
    """A few numbers that a process and the one that started it share, and that outlive a SIGKILL.

    Attributes:
        steps: optimizer steps so far.
        signalled: when the signal was sent, in seconds of the monotonic clock; 0 before.
        begin: not 0 once the process may begin.
        release: not 0 once a process that waits at its second step may go on.
    """

    def __init__(self) -> None:
        object.__setattr__(self, "_memory", mmap.mmap(-1, _NUMBER.size * len(_NUMBERS)))

    def __getattr__(self, name: str) -> Any:
        return _NUMBER.unpack_from(self._memory, _NUMBERS.index(name) * _NUMBER.size)[0]

    def __setattr__(self, name: str, value: float) -> None:
        _NUMBER.pack_into(self._memory, _NUMBERS.index(name) * _NUMBER.size, value)


class Watch:
    """Counts the events of this process from :meth:`begin` on, and stops it at one of them.

    Args:
        folder: of the case; operations on files below it count, as far as they are the main thread's.
        within: names in it that count, such as "run".
        board: where the counts are kept.
        stop: where to stop; None for nowhere.
        waits: whether the process waits at its second step until it is released.
    """

    def __init__(
        self, folder: Path, within: Sequence[str], board: Board, stop: Stop | None = None, waits: bool = False
    ) -> None:
        self.trace: list[str] = []
        self._folder = os.path.realpath(folder)
        self._roots = tuple(os.path.join(self._folder, name) for name in within)
        self._board = board
        self._stop = stop
        self._waits = waits
        power = stop is not None and stop.power is not None
        self._disk = Disk(Path(self._folder) / f"lost-{os.getpid()}") if power else None
        self._thread = threading.get_ident()
        self._inside = False
        self._counts = [0, 0]  # of events of training, and of operations on files

    def begin(self) -> None:
        """Watch from now on, until the process ends; return when the board says that it may begin."""
        self._watch_training()
        self._watch_files()
        sys.addaudithook(self._audit)
        while not self._board.begin:
            time.sleep(0.0001)

    def event(self, name: str) -> bool:
        """Count an event, and stop if it is the one; return whether only half of a write is to be done, then stop."""
        if threading.get_ident() != self._thread or self._inside:
            return False
        stop, is_file = self._stop, is_operation(name)
        self.trace.append(name)
        self._counts[is_file] += 1
        if stop is None or self._counts[is_file] - 1 != (stop.operation if is_file else stop.event):
            return False
        if stop.torn and name.startswith("write "):
            return True
        self.stop()
        return False

    def stop(self) -> None:
        """Send the signal to this process."""
        assert self._stop is not None
        if self._disk is not None:
            self._inside = True
            self._disk.cut_power(random.Random(self._stop.power), self._roots)
        self._board.signalled = time.monotonic()
        os.kill(os.getpid(), self._stop.signal)

    def _watch_training(self) -> None:
        from avalanche.training.templates.base_sgd import BaseSGDTemplate
        from torch.optim.optimizer import register_optimizer_step_post_hook

        from cl_powerprop.sparsity import MaskAllocator

        register_optimizer_step_post_hook(self._step)
        self._before(BaseSGDTemplate, "_after_training_epoch", "epoch")
        self._before(BaseSGDTemplate, "_before_training_exp", "task")
        self._before(BaseSGDTemplate, "_before_eval_exp", "evaluation")
        self._before(MaskAllocator, "propose", "search")

    def _before(self, owner: type, method: str, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, method)

        def watched(*args: Any, **options: Any) -> Any:
            self.event(name)
            return original(*args, **options)

        setattr(owner, method, watched)

    def _step(self, *_: Any) -> None:
        self._board.steps += 1
        self.event("step")
        while self._waits and self._board.steps == 2 and not self._board.release:
            time.sleep(0.001)

    def _audit(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "open":
            file, flags = args[0], args[2]
            writes = not isinstance(file, int) and isinstance(flags, int) and flags & _WRITING
            if writes and (path := self._path(file)):
                self.event(f"open {path}")
                if self._disk is not None and flags & os.O_CREAT:
                    self._disk.create(os.path.abspath(os.fsdecode(file)))
        elif name in _AUDITED and (path := self._path(args[1 if name in ("os.rename", "os.link") else 0])):
            self.event(f"{_AUDITED[name]} {path}")
            if name == "os.rename" and self._disk is not None:
                self._inside = True
                self._disk.rename(os.path.abspath(os.fspath(args[0])), os.path.abspath(os.fspath(args[1])))
                self._inside = False

    def _path(self, file: Any) -> str | None:
        """Return the path of a file, or of a descriptor, relative to the case's folder; None if it does not count."""
        if self._inside or threading.get_ident() != self._thread:
            return None
        if isinstance(file, int):
            try:
                path = os.readlink(f"/proc/self/fd/{file}")
            except OSError:
                return None
        else:
            path = os.path.abspath(os.fsdecode(file))
        if not any(path == root or path.startswith(root + os.sep) for root in self._roots):
            return None
        return os.path.relpath(path, self._folder)

    def _watch_files(self) -> None:
        opened, write, sync = io.open, os.write, os.fsync
        watch = self

        class WatchedFile(io.FileIO):
            def write(self, data: Any) -> int:
                return int(watch._write(self.fileno(), memoryview(data).cast("B"), super().write))

            def truncate(self, size: int | None = None) -> int:
                watch.event(f"truncate {watch._path(self.fileno())}")
                return super().truncate(size)

        def open_watched(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if not set(mode) & set("wax+") or watch._path(file) is None:
                return opened(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = WatchedFile(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            if "b" in mode and buffering == 0:
                return raw
            buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline, buffering == 1)

        def write_watched(descriptor: int, data: Any) -> int:
            if self._path(descriptor) is None:
                return write(descriptor, data)
            return self._write(descriptor, memoryview(data).cast("B"), lambda part: write(descriptor, part))

        def sync_watched(file: Any) -> None:
            descriptor = file if isinstance(file, int) else file.fileno()
            if path := self._path(descriptor):
                self.event(f"fsync {path}")
            sync(descriptor)
            if self._disk is not None:
                self._disk.sync(descriptor)

        builtins.open = io.open = open_watched  # pathlib uses the second
        os.write, os.fsync, os.fdatasync = write_watched, sync_watched, sync_watched  # type: ignore[assignment]

    def _write(self, descriptor: int, data: memoryview, write: Callable[[memoryview], int]) -> int:
        path = self._path(descriptor)
        if path is None:
            return write(data)
        if self._disk is not None:
            self._disk.write(descriptor)
        if self.event(f"write {path}"):
            write(data[: len(data) // 2])
            self.stop()
        return write(data)
