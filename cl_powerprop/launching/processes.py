"""Calls of a function, each in a process of its own: one that dies costs its own call, which is made again.

Processes are forked from a server that has imported what they need, so that each begins within milliseconds. The server
is started once, and has neither threads nor data of the command's own.
"""

import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class _Attempt:
    """A call that is made, for the first time or again."""

    index: int
    call: Call
    before: int = 0


def outcomes(
    function: Callable[..., Any],
    calls: Iterable[Call],
    at_a_time: int,
    retries: int,
    tell: Callable[[str], None],
    preload: Sequence[str] = (),
) -> Iterator[Outcome]:
    """Make all calls, and yield how each has ended, in the order in which they end.

    The next call is asked for when a process is free for it, and every outcome before has been dealt with: what it is
    may depend on them.

    If the iteration is left early, or a signal has arrived, no call begins any more. Processes that have not ended 11
    seconds after the signal are killed.

    Args:
        function: of a module, called with the arguments of a call and the number of calls before.
        calls: to make; an iterator of them may take its time to decide on each.
        at_a_time: how many processes there are at most.
        retries: how often a call is made again whose process has died, or was told to stop alone.
        tell: called with one line for each such death.
        preload: modules that the server imports besides, if it was not started by an earlier command of this process.

    Raises:
        Interrupted: if a signal has arrived, once the processes have ended.
    """
    start = process(name=_NAME, daemon=False, context=_context(preload))(_called)  # type: ignore[call-overload]
    numbered = enumerate(calls)
    again: list[_Attempt] = []
    running: dict[Future[Any], _Attempt] = {}
    try:
        while True:
            for attempt in itertools.islice(_attempts(again, numbered), at_a_time - len(running)):
                call = attempt.call
                future = start(dict(os.environ), os.getcwd(), function, (*call.arguments, attempt.before))
                running[future] = attempt
            if not running:
                return
            for future in wait(running, timeout=_LOOK, return_when=FIRST_COMPLETED).done:
                attempt = running.pop(future)
                error = future.exception()
                if interrupts.requested():
                    break
                if attempt.before < retries and isinstance(error, ProcessExpired | Interrupted):
                    tell(f"{attempt.call.name}: {how_it_ended(error)}; it is tried again")
                    again.append(replace(attempt, before=attempt.before + 1))
                else:
                    yield Outcome(attempt.index, None if error else future.result(), error)
            if interrupts.requested():
                wait(running, timeout=_PATIENCE)
                interrupts.check()
    finally:
        _kill(running)


def _attempts(again: list[_Attempt], numbered: Iterator[tuple[int, Call]]) -> Iterator[_Attempt]:
    """Yield what is to be made next: first what is made again."""
    while True:
        interrupts.check()
        if again:
            yield again.pop(0)
        elif (item := next(numbered, None)) is not None:
            interrupts.check()  # the signal may have come while the call was decided on
            yield _Attempt(*item)
        else:
            return


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
        command = multiprocessing.parent_process()
        if command is not None and not command.is_alive():
            os._exit(1)  # nobody takes the result any more


def _end_with_command() -> None:
    """Tell this process to stop when the command has died."""
    command = multiprocessing.parent_process()
    if command is not None:
        command.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE)
        os._exit(1)
