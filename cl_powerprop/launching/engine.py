"""What runs the calls of a multirun's jobs: processes here, SLURM or Ray; and the loop that gives it the calls."""

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cl_powerprop import interrupts

_LOOK = 0.2  # seconds between two looks for a signal
PATIENCE = 11.0
"""Seconds that calls have to end after a signal; a run stops by itself within 8."""


class Engine(Protocol):
    """Makes calls elsewhere."""

    @property
    def retries(self) -> int:
        """How often a call is made again that has died."""

    def check(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ConfigurationError: naming the option.
        """

    def room(self, running: int) -> int:
        """Return how many calls it may be given, beside those that are running."""

    def start(self, function: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> list["Future[Any]"]:
        """Begin to call a function with each of some arguments."""

    def look(self) -> None:
        """Find out which calls have ended, if the futures do not learn it otherwise."""

    def how_it_died(self, error: BaseException) -> str | None:
        """Say what a call has died of, "its process was killed by SIGKILL"; None for an error of the function's own."""

    def end(self, running: Collection["Future[Any]"]) -> None:
        """End the calls that are running still, and all that was begun for them."""


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
        error: what it raised.
        died: what it has died of each time, without having raised anything.
    """

    index: int
    result: Any = None
    error: BaseException | None = None
    died: str | None = None


@dataclass(frozen=True)
class _Attempt:
    """A call that is made, for the first time or again."""

    index: int
    call: Call
    before: int = 0


def outcomes(
    engine: Engine, function: Callable[..., Any], calls: Iterable[Call], tell: Callable[[str], None]
) -> Iterator[Outcome]:
    """Make all calls, and yield how each has ended, in the order in which they end.

    The next calls are asked for when the engine has room for them, and every outcome before has been dealt with: what
    they are may depend on them.

    If the iteration is left early, or a signal has arrived, no call begins any more. What has not ended 11 seconds
    after the signal is ended.

    Args:
        engine: makes the calls.
        function: of a module, called with the arguments of a call and the number of calls before.
        calls: to make; an iterator of them may take its time to decide on each.
        tell: called with one line for each call that has died, and is made again.

    Raises:
        Interrupted: if a signal has arrived, once the calls have ended.
    """
    numbered = enumerate(calls)
    again: list[_Attempt] = []
    running: dict[Future[Any], _Attempt] = {}
    try:
        while True:
            begun = list(itertools.islice(_attempts(again, numbered), engine.room(len(running))))
            if begun:
                futures = engine.start(function, [(*each.call.arguments, each.before) for each in begun])
                running |= dict(zip(futures, begun, strict=True))
            if not running:
                return
            engine.look()
            for future in wait(running, timeout=_LOOK, return_when=FIRST_COMPLETED).done:
                attempt = running.pop(future)
                error = future.exception()
                if interrupts.requested():
                    break
                died = engine.how_it_died(error) if error else None
                if died is not None and attempt.before < engine.retries:
                    tell(f"{attempt.call.name}: {died}; it is tried again")
                    again.append(replace(attempt, before=attempt.before + 1))
                else:
                    yield Outcome(attempt.index, None if error else future.result(), error, died)
            if interrupts.requested():
                deadline = time.monotonic() + PATIENCE
                while time.monotonic() < deadline and wait(running, timeout=_LOOK).not_done:
                    engine.look()
                interrupts.check()
    finally:
        engine.end([future for future in running if not future.done()])


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
