"""Calls of a function, each in a process of its own: one that dies costs its own call, which is made again.

Processes are forked from a server that has imported what they need, so that each begins within milliseconds. The server
is started once, and has neither threads nor data of the command's own.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

from pebble import ProcessExpired
from pebble.concurrent import process

from cl_powerprop import interrupts
from cl_powerprop.interrupts import Interrupted

_NAME = "cl-powerprop job"
_LOOK = 0.2  # seconds between two looks for a signal
_PATIENCE = 11.0  # seconds that processes have to end after a signal; a run stops by itself within 8
_PRELOADED = "cl_powerprop.launching.preloaded"


@dataclass(frozen=True)
class Call:
    """A call to make.

    Attributes:
        arguments: of the function, which is also given how many times it was called with them before.
        name: what messages call it.
    """

    arguments: Sequence[Any]
    name: str


@dataclass(frozen=True)
class Outcome:
    """How a call has ended.

    Attributes:
        index: of the call.
        result: what it returned.
        error: what it raised; a :class:`ProcessExpired` if its process has died each time.
    """

    index: int
    result: Any = None
    error: BaseException | None = None


def outcomes(
    function: Callable[..., Any],
    calls: Sequence[Call],
    at_a_time: int,
    retries: int,
    tell: Callable[[str], None],
) -> Iterator[Outcome]:
    """Make all calls, and yield how each has ended, in the order in which they end.

    If the iteration is left early, or a signal has arrived, no call begins any more. Processes that have not ended 11
    seconds after the signal are killed.

    Args:
        function: of a module, called with the arguments of a call and the number of calls before.
        calls: to make.
        at_a_time: how many processes there are at most.
        retries: how often a call is made again whose process has died, or was told to stop alone.
        tell: called with one line for each such death.

    Raises:
        Interrupted: if a signal has arrived, once the processes have ended.
    """
    start = process(name=_NAME, daemon=False, context=_context())(_called)  # type: ignore[call-overload]
    waiting = deque((index, 0) for index in range(len(calls)))
    running: dict[Future[Any], tuple[int, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                interrupts.check()
                index, before = waiting.popleft()
                call = calls[index]
                future = start(dict(os.environ), os.getcwd(), function, (*call.arguments, before))
                running[future] = (index, before)
            for future in wait(running, timeout=_LOOK, return_when=FIRST_COMPLETED).done:
                index, before = running.pop(future)
                error = future.exception()
                if interrupts.requested():
                    break
                if before < retries and isinstance(error, ProcessExpired | Interrupted):
                    tell(f"{calls[index].name}: {how_it_ended(error)}; it is tried again")
                    waiting.appendleft((index, before + 1))
                else:
                    yield Outcome(index, None if error else future.result(), error)
            if interrupts.requested():
                wait(running, timeout=_PATIENCE)
                interrupts.check()
    finally:
        _kill(running)


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


def _context() -> Any:
    if sys.platform == "darwin":  # whose libraries do not survive a fork; each process imports for itself
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED])
    return context


def _kill(running: Mapping[Future[Any], Any]) -> None:
    """End all processes that are left, at once."""
    if not running:
        return
    for child in multiprocessing.active_children():
        if child.name == _NAME:
            child.kill()
    wait(running, timeout=_PATIENCE)


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


def _end_with_command() -> None:
    """Tell this process to stop when the command has died."""
    command = multiprocessing.parent_process()
    if command is not None:
        command.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE)
        os._exit(1)
