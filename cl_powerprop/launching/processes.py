"""The jobs of a multirun on this machine, each in a process of its own: one that dies costs its own job only.

Processes are forked from a server that has imported what they need, so that each begins within milliseconds. The server
is started once, and has neither threads nor data of the command's own.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

from pebble import ProcessExpired
from pebble.concurrent import process

from cl_powerprop.interrupts import Interrupted
from cl_powerprop.launching.engine import PATIENCE
from cl_powerprop.launching.settings import check_whole

_NAME = "cl-powerprop job"
_PRELOADED = "cl_powerprop.launching.preloaded"


@dataclass
class ProcessEngine:
    """Makes each call in a process of its own.

    Attributes:
        n_jobs: how many processes there are at most; -1 for one a core.
        retries: how often a call is made again whose process has died, or was told to stop alone.
        preload: modules that the server imports besides, if it was not started by an earlier command of this process.
    """

    n_jobs: int = 1
    retries: int = 1
    preload: Sequence[str] = field(default=(), init=False)

    def check(self) -> None:
        check_whole("n_jobs", self.n_jobs, 1, -1)
        check_whole("retries", self.retries, 0)

    def room(self, running: int) -> int:
        return (self.n_jobs if self.n_jobs != -1 else os.cpu_count() or 1) - running

    def start(self, function: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> list["Future[Any]"]:
        begin = process(name=_NAME, daemon=False, context=_context(self.preload))(_called)  # type: ignore[call-overload]
        return [begin(dict(os.environ), os.getcwd(), function, arguments) for arguments in calls]

    def look(self) -> None:
        """Do nothing: the futures learn it themselves."""

    def how_it_died(self, error: BaseException) -> str | None:
        return how_it_ended(error) if isinstance(error, ProcessExpired | Interrupted) else None

    def end(self, running: Collection["Future[Any]"]) -> None:
        if not running:
            return
        for child in _children():
            child.kill()
        wait(running, timeout=PATIENCE)


def tell(number: int) -> bool:
    """Pass a signal on to all processes of calls; return whether there are any."""
    children = _children()
    for child in children:
        with contextlib.suppress(OSError):
            os.kill(child.pid or 0, number)
    return bool(children)


def _children() -> list[Any]:
    return [child for child in multiprocessing.active_children() if child.name == _NAME]


def how_it_ended(error: BaseException) -> str:
    """Say what a process has ended by: "its process was killed by SIGKILL"."""
    if not isinstance(error, ProcessExpired):
        return str(error) or type(error).__name__
    code = error.exitcode
    if code is None or code >= 0:
        return f"its process ended by itself, with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    out_of_memory = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
    return f"its process was killed by {name}{out_of_memory}"


def _context(preload: Sequence[str]) -> Any:
    if sys.platform == "darwin":  # whose libraries do not survive a fork; each process imports for itself
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED, *preload])
    return context


def _called(environment: Mapping[str, str], folder: str, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Call a function in a process as the command left it; the server may have been started by an earlier one."""
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pebble's handler would stay when the job listens to signals
    threading.Thread(target=_end_with_command, daemon=True).start()
    try:
        return function(*arguments)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        command = multiprocessing.parent_process()
        if command is not None and not command.is_alive():
            os._exit(1)  # nobody takes the result any more


def _end_with_command() -> None:
    """Tell this process to stop when the command has died."""
    command = multiprocessing.parent_process()
    if command is not None:
        command.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os._exit(1)
