"""Calls in processes of their own, each of which can die alone."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection, get_context, parent_process
from types import TracebackType
from typing import Any

_PATIENCE = 12.0  # seconds that processes have to end after a signal
_SECONDS_A_LOOK = 0.5


class Processes:
    """Processes by number, forked from one that has imported what all of them need.

    Args:
        preload: modules to import there.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self._running: dict[int, Any] = {}
        self._deadline: float | None = None

    def __len__(self) -> int:
        return len(self._running)

    def start(self, number: int, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function in a new process; it is to call :func:`end_with_parent`."""
        process = self._context.Process(target=function, args=arguments)
        process.start()
        self._running[number] = process

    def wait(self) -> dict[int, int]:
        """Wait until some have ended, and return their exit codes by number: below 0, that of a signal."""
        while self._running:
            connection.wait([process.sentinel for process in self._running.values()], _SECONDS_A_LOOK)
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._kill()
            ended = {number: each for number, each in self._running.items() if not each.is_alive()}
            if ended:
                for number in ended:
                    del self._running[number]
                return {number: each.exitcode for number, each in ended.items()}
        return {}

    def tell(self, number: int) -> bool:
        """Pass a signal on; what has not ended 12 seconds later is killed. Return whether there are any processes."""
        self._deadline = self._deadline or time.monotonic() + _PATIENCE
        for process in self._running.values():
            with contextlib.suppress(OSError):
                os.kill(process.pid, number)
        return bool(self._running)

    def _kill(self) -> None:
        for process in self._running.values():
            process.kill()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._kill()
        for process in self._running.values():
            process.join()


def end_with_parent() -> None:
    """Send this process SIGTERM when the one that has started it is gone."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
