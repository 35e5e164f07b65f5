"""Where the time of a run goes."""

import contextlib
import time
from collections.abc import Iterator

from cl_powerprop.record import Seconds


class Timer:
    """Adds the time that passes to the parts of a run.

    Args:
        seconds: what it adds to; the total grows all the time.
    """

    def __init__(self, seconds: Seconds) -> None:
        self._seconds = seconds
        self._part: str | None = None
        self._mark = time.perf_counter()

    def lap(self) -> None:
        """Add the time since the last call."""
        moment = time.perf_counter()
        passed, self._mark = moment - self._mark, moment
        self._seconds.total += passed
        if self._part is not None:
            setattr(self._seconds, self._part, getattr(self._seconds, self._part) + passed)

    @contextlib.contextmanager
    def count(self, part: str) -> Iterator[None]:
        """Count what happens inside as one part, and not as the part around it."""
        self.lap()
        outer, self._part = self._part, part
        try:
            yield
        finally:
            self.lap()
            self._part = outer
