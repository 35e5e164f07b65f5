"""The processes in which the jobs of a multirun run, and how a signal to the command reaches them."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cl_powerprop.interrupts import Interrupted, listening

_STOPPED = "stopped"
_AT_WORK = ".at_work"


@dataclass(frozen=True)
class Workers:
    """The processes of the jobs, as far as they run on this machine; some jobs may run in the command's own.

    Attributes:
        folder: in which they note that they are at work; a job on another machine does not see it.
        command: the command's process.
    """

    folder: Path
    command: int

    def are_elsewhere(self) -> bool:
        """Return whether this process is one of them, and not the command's own."""
        return (
            os.getpid() != self.command or not self.folder.exists()
        )  # a process of another machine may have its number

    def are_told(self) -> bool:
        """Return whether the command has passed on a signal."""
        return (self.folder / _STOPPED).exists()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Listen to signals while a job runs inside.

        Raises:
            Interrupted: if a signal came before the job began.
        """
        if not self.are_elsewhere():
            yield
            return
        note = self.folder / f"{os.getpid()}{_AT_WORK}"
        # A process that waits for its next job holds nothing that a signal could save.
        with listening(ends=True):
            with contextlib.suppress(OSError):
                note.touch()
            try:
                if self.are_told():
                    raise Interrupted(int((self.folder / _STOPPED).read_text() or signal.SIGTERM))
                yield
            finally:
                with contextlib.suppress(OSError):
                    note.unlink(missing_ok=True)

    def tell(self, number: int) -> bool:
        """Pass a signal on to those at work, and let none begin another job; return whether there are any."""
        (self.folder / _STOPPED).write_text(str(number))  # before looking: a job that begins now sees it
        notes = list(self.folder.glob(f"*{_AT_WORK}"))
        for note in notes:
            with contextlib.suppress(OSError):
                os.kill(int(note.stem), number)
        return bool(notes)
