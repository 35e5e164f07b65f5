"""SIGTERM, SIGINT and SIGUSR1: a run that is told to stop writes a checkpoint first.

Work that can be saved runs inside :func:`deferred`: a signal is kept until :func:`check` is called at the next moment
at which a checkpoint can be written. Anywhere else it stops the program at once.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

log = logging.getLogger("cl_powerprop")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_PATIENCE = 8.0  # seconds until a signal stops the program wherever it is
_PATIENCE_WITH_OTHERS = 60.0  # seconds that processes that were told to stop have for it
_TOGETHER = 1.0  # seconds within which signals count as one: a cluster, a shell and a parent process may all send it


class Interrupted(SystemExit):
    """A signal has told the program to stop.

    Like `KeyboardInterrupt` it is no `Exception`: whoever handles errors should let it pass. If nobody handles it, the
    program ends with its exit code.

    Attributes:
        signal: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.signal = number
        self.code = self.exit_code

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:
        return type(self), (self.signal,)

    @property
    def exit_code(self) -> int:
        """What the program ends with, as shells have it."""
        return 128 + self.signal


class _State:
    """What has arrived, and whether it waits."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self.moment = -_TOGETHER
        self.listeners = 0
        self.depth = 0
        self.saving = False
        self.timer: threading.Timer | None = None
        self.tell: Callable[[int], bool] | None = None


_state = _State()


@contextlib.contextmanager
def listening(ends: bool = False) -> Iterator[None]:
    """Turn the signals into :class:`Interrupted` inside; only the main thread can.

    A handler of the user's own stays.

    Args:
        ends: nothing that a signal could save comes after it: if all went well, signals are ignored from then on, and
            the exit code tells of what was done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = (None, signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler in ours}
    if not _state.listeners:
        _state.requested = None
    _state.listeners += 1
    for number in before:
        signal.signal(number, _handle)
    went_well = False
    try:
        yield
        went_well = True
    finally:
        _state.listeners -= 1
        if not _state.listeners:
            _state.requested = None  # it was for what has ended
        _forget_timer()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ends and went_well else handler)


@contextlib.contextmanager
def called() -> Iterator[None]:
    """Listen to signals for a call from a program that does not; SIGINT ends it as Python has it.

    A signal that comes too late to stop the call does afterwards what it would have done without it.

    Raises:
        KeyboardInterrupt: for SIGINT, if the program does not listen itself.
        Interrupted: for the other signals.
    """
    is_alone = not _state.listeners
    try:
        with listening():
            yield
            late = requested()
    except Interrupted as stop:
        if not is_alone:
            raise
        said = "; ".join([str(stop), *getattr(stop, "__notes__", ())])
        if stop.signal == signal.SIGINT:
            raise KeyboardInterrupt(said) from None
        log.warning(said)  # the program ends without a word
        raise
    if is_alone and late:
        signal.raise_signal(late)


@contextlib.contextmanager
def telling(tell: Callable[[int], bool]) -> Iterator[None]:
    """Let other processes that work for this one end first when a signal arrives inside.

    Args:
        tell: passes the signal on to them; returns whether there are any. If so, what happens inside goes on until they
            have ended, for a minute at most.

    Raises:
        Interrupted: in place of an error inside, if a signal has arrived.
    """
    _state.tell = tell
    try:
        yield
    except Exception:  # of processes that the signal has ended
        check()
        raise
    finally:
        _state.tell = None
        _forget_timer()


def _handle(number: int, _: FrameType | None) -> None:
    first = _state.requested is None
    if not first and time.monotonic() - _state.moment < _TOGETHER:
        return
    _state.requested = _state.requested or number
    if first:
        _state.moment = time.monotonic()
    if _state.saving:
        return
    if first and _state.depth:
        _wait(_PATIENCE)
    elif first and _state.tell is not None and _state.tell(number):
        _wait(_PATIENCE_WITH_OTHERS)
    else:  # nothing waits, it is the second one, or time is up
        _forget_timer()
        raise Interrupted(_state.requested)


def _wait(seconds: float) -> None:
    """Send the signal to this process again after a time."""

    def insist(number: int) -> None:
        _state.moment = -_TOGETHER
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    _state.timer = threading.Timer(seconds, insist, (_state.requested,))
    _state.timer.daemon = True
    _state.timer.start()


def _forget_timer() -> None:
    timer, _state.timer = _state.timer, None
    if timer is not None:
        timer.cancel()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Keep a signal that arrives inside until :func:`check` is called; after 8 seconds it waits no longer.

    What has ended all the same has ended: the signal then waits for the next call.
    """
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1
        if not _state.depth:
            _forget_timer()


def requested() -> int:
    """Return the signal that waits for :func:`check`, 0 for none. It costs nothing to ask at every step."""
    return _state.requested or 0


def request(number: int) -> None:
    """Let a signal that another process has got wait for :func:`check` here too."""
    if _state.requested is None:
        _state.requested, _state.moment = number, time.monotonic()


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """Let nothing but SIGKILL interrupt what is inside: a checkpoint is being written."""
    before, _state.saving = _state.saving, True
    try:
        yield
    finally:
        _state.saving = before


def check() -> None:
    """Stop here if a signal has arrived.

    Raises:
        Interrupted: if one has.
    """
    if _state.requested is not None:
        _forget_timer()
        raise Interrupted(_state.requested)
