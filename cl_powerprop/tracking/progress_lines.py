"""The progress of a run where there is no terminal: one plain line for each task."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console

from cl_powerprop.output import duration, say


class ProgressLines:
    """Writes lines to stdout, each with the seconds since the last one and the time left.

    Args:
        enabled: write lines at all.
        title: of the run, where there are several: what each line begins with.
    """

    def __init__(self, enabled: bool, title: str = "") -> None:
        self._enabled = enabled
        self._title = f"{title}: " if title else ""
        self._work: list[float] = []
        self._begun = 0
        self._start = self._last = time.perf_counter()

    def start(self, work: Sequence[float], done: int = 0, spent: float = 0.0) -> None:
        """Begin to measure time.

        Args:
            work: of each part of the run, in any unit.
            done: how many parts were done before, in a run that is resumed.
            spent: seconds that it has spent on the next part.
        """
        self._work, self._begun = list(work), done
        self._start = self._last = time.perf_counter() - spent

    def write(self, said: str, done: int) -> None:
        """Write a line.

        Args:
            said: what it says, times apart.
            done: how many parts of the run are done.
        """
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        if self._enabled:
            left = self._left(now - self._start, done)
            estimate = f", {duration(left)} left" if left > 0 else ""
            say(" ".join(f"{self._title}{said}, {duration(seconds)}{estimate}".split()))  # a name may have line breaks

    def _left(self, seconds: float, done: int) -> float:
        """Return the seconds that remain, from what was done in these; 0 if that says nothing."""
        worked = sum(self._work[self._begun : done])
        return seconds * sum(self._work[done:]) / worked if worked else 0.0


def has_bar(console: Console) -> bool:
    """Return whether a live bar on this console is seen by whoever sees stdout, so that no lines are needed."""
    return sys.stdout is not None and sys.stdout.isatty() and console.is_terminal
