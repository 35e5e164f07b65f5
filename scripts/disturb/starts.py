"""Starts of the command: a child forked from this process, which has all libraries loaded, or a process of its own."""

import atexit
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .events import Board, Stop, Watch

WITHIN = ("run", "references")  # what counts in a case's folder
_LIMIT = 120.0  # seconds that a start may take
_POLL = 0.001


@dataclass(frozen=True)
class Ended:
    """How a start of the command ended.

    Attributes:
        code: exit code; negative for the signal that killed it.
        steps: optimizer steps.
        cpu: seconds of CPU time.
        seconds: from the signal that it got to its end; None without one.
        stdout: what it printed.
        stderr: likewise.
        in_time: false if it had to be killed, for it did not end.
    """

    code: int
    steps: int
    cpu: float = 0.0
    seconds: float | None = None
    stdout: str = ""
    stderr: str = ""
    in_time: bool = True

    @property
    def last_lines(self) -> str:
        """The last lines that it printed, errors last."""
        lines = [line for text in (self.stdout, self.stderr) for line in text.splitlines() if line.strip()]
        return "\n".join(lines[-4:])


def preload() -> None:
    """Import what the command imports, so that a forked child need not. No thread may be started here."""
    import torch
    import wandb  # noqa: F401

    import cl_powerprop.analysis.runs
    import cl_powerprop.analysis.summary
    import cl_powerprop.cli
    import cl_powerprop.experiment
    import cl_powerprop.hydra_run
    import cl_powerprop.resume  # noqa: F401

    torch.set_num_threads(1)


class Start:
    """A start of the command that goes on beside this process.

    Args:
        words: after `cl-powerprop`.
        folder: of the case; the command works in it, and what it prints goes to files there.
        stop: where it is stopped.
        separate: it is a process of its own, as a user starts it, and not a forked child. Its steps and events are not
            known, so it can be stopped by the clock alone, and what follows has no effect.
        trace: a file for its events.
        waits: whether it waits at its second step until its board releases it.
        held: whether it does not begin until its board says so.
        name: of the files for what it prints.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        stop: Stop | None = None,
        *,
        separate: bool = False,
        trace: Path | None = None,
        waits: bool = False,
        held: bool = False,
        name: str = "start",
    ) -> None:
        self.board = Board()
        self.board.begin = not held
        self._printed = [folder / f"{name}.{stream}" for stream in ("out", "err")]
        self._stop = stop
        self._begun = time.monotonic()
        self._ended = 0.0
        self._code: int | None = None
        self._cpu = 0.0
        self._in_time = True
        if separate:
            self.process = _start_process(words, folder, self._printed)
            return
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if not self.process:
            _be_command(words, folder, self._printed, Watch(folder, WITHIN, self.board, stop, waits), trace)

    def poll(self) -> bool:
        """Return whether it has ended; send the signal that is due by the clock."""
        if self._code is not None:
            return True
        process, status, usage = os.wait4(self.process, os.WNOHANG)
        if process:
            self._ended = time.monotonic()
            self._code, self._cpu = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            with contextlib.suppress(ProcessLookupError):  # what it has started, such as W&B's service
                os.killpg(self.process, signal.SIGKILL)
            return True
        if time.monotonic() - self._begun > _LIMIT:
            self._in_time = False
            os.kill(self.process, signal.SIGKILL)
        due = None if self._stop is None or self.board.signalled else self._stop.seconds
        if self._stop is not None and due is not None and _cpu_seconds(self.process) >= due:
            self.board.signalled = time.monotonic()
            os.kill(self.process, self._stop.signal)
        return False

    def wait(self) -> Ended:
        """Wait for its end."""
        while not self.poll():
            time.sleep(_POLL)
        assert self._code is not None
        out, err = (file.read_text(encoding="utf-8", errors="replace") for file in self._printed)
        seconds = self._ended - self.board.signalled if self.board.signalled else None
        return Ended(self._code, int(self.board.steps), self._cpu, seconds, out, err, self._in_time)


def start(
    words: Sequence[str], folder: Path, stop: Stop | None = None, *, separate: bool = False, trace: Path | None = None
) -> Ended:
    """Start the command and wait for its end; see :class:`Start`."""
    return Start(words, folder, stop, separate=separate, trace=trace).wait()


def _start_process(words: Sequence[str], folder: Path, printed: Sequence[Path]) -> int:
    with printed[0].open("wb") as out, printed[1].open("wb") as err:
        command = [sys.executable, "-m", "cl_powerprop", *words]
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, start_new_session=True)
    process.returncode = 0  # it is not this object that waits for it
    return process.pid


def _cpu_seconds(process: int) -> float:
    """Return the CPU time of a process; the id of its clock follows from its own (clock_getcpuclockid)."""
    try:
        return time.clock_gettime((~process << 3) | 2)
    except OSError:
        return 0.0


def _be_command(words: Sequence[str], folder: Path, printed: Sequence[Path], watch: Watch, trace: Path | None) -> None:
    """Be the command, in a forked child, and end."""
    code = 1
    try:
        os.setsid()
        atexit._clear()  # what the parent removes at its end is not this child's
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        for file, descriptor in zip(printed, (1, 2), strict=True):
            opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(opened, descriptor)
            os.close(opened)
        random.seed()
        watch.begin()
        from cl_powerprop.cli import main

        try:
            main(words)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        if trace is not None:
            trace.write_text(json.dumps(watch.trace), encoding="utf-8")
        atexit._run_exitfuncs()
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
