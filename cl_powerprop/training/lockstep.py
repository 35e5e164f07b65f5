"""Several runs in one process that take turns, and meet where their work can be done at once.

Each of them is ordinary code in a thread of its own, but only one thread runs at a time, in a fixed order: they are
coroutines rather than parallel threads. Nothing that they share needs a lock, and all happens in the same order
whenever it is repeated.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

log = logging.getLogger("cl_powerprop")

Item = TypeVar("Item")
Done = TypeVar("Done")
Work = Callable[[list[Any]], Sequence[Any]]
Restore = Callable[[], None]
_PATIENCE = 10.0  # seconds that a member which is stopped has for it


@dataclass(frozen=True)
class Ended:
    """How a member has ended.

    Attributes:
        result: what its function returned; None if it failed.
        error: what it raised, if anything.
    """

    result: Any = None
    error: BaseException | None = None


class Lockstep:
    """Calls functions that take turns and meet: the *members*.

    Args:
        keep: called whenever a member gives its turn away; returns what puts back, before its next turn, the state of
            the process that is the member's own, such as that of random generators. None if there is no such state.
    """

    def __init__(self, keep: Callable[[], Restore] | None = None) -> None:
        self._keep = keep or (lambda: _nothing)
        self._members: dict[threading.Thread, _Member] = {}
        self._told: set[str] = set()

    def tell(self, message: str) -> None:
        """Log a message once, whichever member says it first."""
        if message not in self._told:
            self._told.add(message)
            log.warning(message)

    def run(self, functions: Sequence[Callable[[], Any]]) -> list[Ended]:
        """Call each function in a thread of its own; return how each has ended, in their order.

        One that fails leaves, as does one that returns; the others go on without it.

        Raises:
            BaseException: what interrupts the wait for them, such as a signal. Those that have not ended are stopped
                by it too, wherever they are.
        """
        base = self._keep()
        members = [_Member(function, self._keep, base) for function in functions]
        self._members = {member.thread: member for member in members}
        try:
            while live := [member for member in members if member.ended is None]:
                behind = _furthest_behind(live)
                _gather(behind)
                for member in behind:
                    member.turn()
        except BaseException as error:
            for member in members:
                member.stop(error)
            raise
        finally:
            base()
        return [member.ended for member in members if member.ended is not None]

    def meet(
        self,
        key: Hashable,
        item: Item,
        work: Callable[[list[Item]], Sequence[Done]],
        position: tuple[int, ...] = (),
    ) -> Done:
        """Wait until every member that has not ended is at a meeting; return what is done there for this one.

        Args:
            key: members with equal keys are a group.
            item: what this member brings.
            position: how far this member is; while others are further behind, it waits for them to come up.
            work: called as ``work(items)`` for each group, with the items in the order of its members; returns as many
                results. It is the first member's `work` that is called, in that member's thread; a member without an
                equal therefore does its work as if it were alone.

        Raises:
            BaseException: what `work` has raised, in all members of the group.
        """
        return self._members[threading.current_thread()].meet(key, item, work, position)  # type: ignore[no-any-return]


class _Group:
    """Those that are at one meeting with equal keys."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._is_begun = False
        self._done: Sequence[Any] = ()
        self._error: BaseException | None = None

    def join(self, item: Any) -> int:
        """Return the place of a new member."""
        self._items.append(item)
        return len(self._items) - 1

    def result(self, place: int, work: Work) -> Any:
        """Return what is done for the member of that place; the first one to ask does it for all."""
        if not self._is_begun:
            self._is_begun = True
            self._do(work)
        elif self._error is not None:
            raise _another(self._error)
        if place >= len(self._done):
            raise RuntimeError("members that do their work together cannot meet within it")
        return self._done[place]

    def _do(self, work: Work) -> None:
        items, self._items = self._items, []  # what they bring may be large
        try:
            done = work(items)
            if len(done) != len(items):
                raise RuntimeError(f"the work of a meeting returned {len(done)} results for {len(items)} items")
        except BaseException as error:
            self._error = _another(error)
            raise
        self._done = done


class _Member:
    """A function, its thread, and where it is."""

    def __init__(self, function: Callable[[], Any], keep: Callable[[], Restore], restore: Restore) -> None:
        self.ended: Ended | None = None
        self.brings: tuple[Hashable, Any] | None = None  # to the meeting that it is at
        self.position: tuple[int, ...] = ()
        self.group = _Group()
        self.place = 0
        self.thread = threading.Thread(target=self._run, args=[function], daemon=True)
        self._keep, self._restore = keep, restore
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._waits = False
        self._stopped_by: BaseException | None = None

    def turn(self) -> None:
        """Let it run until it is at a meeting or has ended; called by the thread that runs all."""
        self._restore()
        if self.thread.ident is None:
            self.thread.start()
        else:
            self._go.release()
        self._back.acquire()
        if self.ended is not None:
            self.thread.join()

    def stop(self, error: BaseException) -> None:
        """Raise an error in it, if it has not ended, and wait for its end for some seconds."""
        if self.ended is not None or self.thread.ident is None:
            return
        self._stopped_by = error
        if not self._waits:
            number, raised = ctypes.c_ulong(self.thread.ident), ctypes.py_object(_class_raising(error))
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, raised)
        self._go.release()
        self.thread.join(_PATIENCE)

    def meet(self, key: Hashable, item: Any, work: Work, position: tuple[int, ...]) -> Any:
        """See :meth:`Lockstep.meet`."""
        self.brings, self.position = (key, item), position
        self._restore = self._keep()
        self._waits = True
        self._back.release()
        self._go.acquire()
        self._waits = False
        if self._stopped_by is not None:
            raise _another(self._stopped_by)
        return self.group.result(self.place, work)

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self.ended = Ended(result=function())
        except BaseException as error:
            self.ended = Ended(error=error)
        finally:
            self._back.release()


def _furthest_behind(members: Sequence[_Member]) -> list[_Member]:
    """Return the members that go on: those that have not begun, else those at the meetings of the least position."""
    new = [member for member in members if member.brings is None]
    least = min(member.position for member in members)
    return new or [member for member in members if member.position == least]


def _gather(members: Sequence[_Member]) -> None:
    """Make groups of the members that are at a meeting."""
    groups: dict[Hashable, _Group] = {}
    for member in members:
        if member.brings is not None:
            key, item = member.brings
            member.brings = None
            member.group = groups.setdefault(key, _Group())
            member.place = member.group.join(item)


def _another(error: BaseException) -> BaseException:
    """Return a copy of an error, if it can be copied: what one thread notes on it is not for the others."""
    with contextlib.suppress(Exception):
        copied = copy.copy(error)
        if type(copied) is type(error):
            vars(copied).update({name: copy.copy(value) for name, value in vars(error).items()})  # its notes too
            return copied.with_traceback(error.__traceback__)
    return error


def _class_raising(error: BaseException) -> type[BaseException]:
    """Return a class whose instances are copies of an error: what is raised in another thread is given as a class."""
    arguments = error.__reduce__()[1]
    kind = type(error)
    return type(kind.__name__, (kind,), {"__init__": lambda self: kind.__init__(self, *arguments)})


def _nothing() -> None:
    pass
