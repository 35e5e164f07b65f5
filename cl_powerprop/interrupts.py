"""SIGTERM, SIGINT and SIGUSR1: a run that is told to stop writes a checkpoint first.

Work that can be saved runs inside :func:`deferred`: a signal is kept until :func:`check` is called at the next moment
at which a checkpoint can be written. Anywhere else it stops the program at once.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_PATIENCE = 8.0  # seconds until a signal stops the program wherever it is


class Interrupted(BaseException):
    """A signal has told the program to stop.

    Like `KeyboardInterrupt` it is no `Exception`: whoever handles errors should let it pass.

    Attributes:
        signal: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.signal = number

    @property
    def exit_code(self) -> int:
        """What the program ends with, as shells have it."""
        return 128 + self.signal


class _State:
    """What has arrived, and whether it waits."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self.depth = 0
        self.saving = False
        self.timer: threading.Timer | None = None


_state = _State()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Turn the signals into :class:`Interrupted` inside; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.signal(number, _handle) for number in SIGNALS}
    _state.requested = None
    try:
        yield
    finally:
        _forget_timer()
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(number: int, _: FrameType | None) -> None:
    if _state.saving:
        _state.requested = _state.requested or number
        return
    if _state.depth == 0 or _state.requested is not None:  # the second one, or time is up
        _forget_timer()
        raise Interrupted(_state.requested or number)
    _state.requested = number
    _state.timer = threading.Timer(_PATIENCE, signal.pthread_kill, (threading.main_thread().ident, number))
    _state.timer.daemon = True
    _state.timer.start()


def _forget_timer() -> None:
    timer, _state.timer = _state.timer, None
    if timer is not None:
        timer.cancel()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Keep a signal that arrives inside until :func:`check` is called; after 8 seconds it waits no longer."""
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1
    if not _state.depth:
        check()


def requested() -> bool:
    """Return whether a signal has arrived that waits for :func:`check`. It costs nothing to ask at every step."""
    return _state.requested is not None


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
