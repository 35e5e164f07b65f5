"""Members take turns in their order, meet by equal keys, and leave without stopping the others."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from cl_powerprop.training.lockstep import Ended, Lockstep


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """A deadlock fails the test, and no thread outlives it."""
    before, threads = signal.signal(signal.SIGALRM, _too_long), set(threading.enumerate())
    signal.alarm(20)
    try:
        yield
        assert set(threading.enumerate()) <= threads
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _too_long(*_: object) -> None:
    raise TimeoutError("the members wait for each other")


def run(*functions: Callable[[Lockstep], Any], keep: Any = None) -> list[Ended]:
    """Call each with the lockstep that they are in."""
    lockstep = Lockstep(keep)
    return lockstep.run([lambda function=function: function(lockstep) for function in functions])


def results(ended: Sequence[Ended]) -> list[Any]:
    assert [one.error for one in ended] == [None] * len(ended)
    return [one.result for one in ended]


def test_members_take_turns_in_their_order() -> None:
    seen = []

    def member(number: int) -> Callable[[Lockstep], int]:
        def function(lockstep: Lockstep) -> int:
            for turn in range(3):
                seen.append((turn, number))
                lockstep.meet("turn", number, lambda items: items)
            return number

        return function

    assert results(run(*map(member, range(5)))) == [0, 1, 2, 3, 4]
    assert seen == [(turn, number) for turn in range(3) for number in range(5)]


def test_only_one_runs_at_a_time() -> None:
    running, together = [0], []

    def function(lockstep: Lockstep) -> None:
        for _ in range(3):
            running[0] += 1
            time.sleep(0.002)
            together.append(running[0])
            running[0] -= 1
            lockstep.meet("turn", None, lambda items: items)

    results(run(*[function] * 4))
    assert set(together) == {1}


def test_equal_keys_are_done_at_once_in_the_order_of_the_members() -> None:
    groups = []

    def work(items: list[int]) -> list[int]:
        groups.append(items)
        return [number * 10 for number in items]

    def member(number: int) -> Callable[[Lockstep], list[int]]:
        return lambda lockstep: [
            lockstep.meet(number % 2, number, work),
            lockstep.meet(("all", 1.5), number, work),
            lockstep.meet(number, number, work),
        ]

    assert results(run(*map(member, range(5)))) == [[number * 10] * 3 for number in range(5)]
    assert groups == [[0, 2, 4], [1, 3], [0, 1, 2, 3, 4], [0], [1], [2], [3], [4]]


def test_one_without_an_equal_does_its_work_in_its_own_thread() -> None:
    def function(lockstep: Lockstep) -> bool:
        here = threading.current_thread()
        return lockstep.meet(here, here, lambda items: [items == [threading.current_thread()]])

    assert results(run(function, function, function)) == [True, True, True]


def test_one_that_ends_leaves_and_one_that_comes_late_joins() -> None:
    sizes: list[int] = []

    def work(items: list[int]) -> list[None]:
        sizes.append(len(items))
        return [None] * len(items)

    def member(meetings: int) -> Callable[[Lockstep], None]:
        def function(lockstep: Lockstep) -> None:
            for _ in range(meetings):
                lockstep.meet("epoch", 0, work)

        return function

    results(run(*map(member, [3, 0, 1, 5])))
    assert sizes == [3, 2, 2, 1, 1]


def test_one_that_fails_does_not_stop_the_others() -> None:
    def fails(lockstep: Lockstep) -> None:
        lockstep.meet("a", 0, lambda items: items)
        raise ValueError("diverged")

    def goes_on(lockstep: Lockstep) -> list[int]:
        return [lockstep.meet("a", 1, lambda items: items), lockstep.meet("b", 2, lambda items: items)]

    first, failed, last = run(goes_on, fails, goes_on)
    assert first == last == Ended([1, 2])
    assert isinstance(failed.error, ValueError)


def test_what_work_raises_is_raised_in_its_members_and_in_no_others() -> None:
    def work(items: list[str]) -> list[str]:
        if items[0] == "bad":
            raise ValueError("of the work")
        return items

    def member(key: str) -> Callable[[Lockstep], str]:
        def function(lockstep: Lockstep) -> str:
            try:
                lockstep.meet(key, key, work)
            except ValueError as error:
                error.add_note(f"noted by {threading.current_thread().name}")
                return "; ".join([str(error), *(["noted"] * len(error.__notes__))])
            return lockstep.meet("after", key, work)

        return function

    assert results(run(*map(member, ["good", "bad", "bad", "good"]))) == [
        "good",
        "of the work; noted",
        "of the work; noted",
        "good",
    ]


def test_an_error_that_cannot_be_copied_is_raised_as_it_is() -> None:
    class OddError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    def work(items: list[int]) -> list[int]:
        raise OddError(1, 2)

    ended = run(*[lambda lockstep: lockstep.meet("a", 0, work)] * 3)
    assert [type(one.error) for one in ended] == [OddError] * 3


@pytest.mark.parametrize("returned", [[], [1], [1, 2, 3]])
def test_a_wrong_number_of_results_is_an_error(returned: list[int]) -> None:
    ended = run(*[lambda lockstep: lockstep.meet("a", 0, lambda _: returned)] * 2)
    assert all("results for 2 items" in str(one.error) for one in ended)


def test_a_meeting_within_the_work_of_one_works_and_of_several_is_refused() -> None:
    def nested(lockstep: Lockstep) -> Callable[[list[Any]], list[Any]]:
        return lambda items: [lockstep.meet("inner", item, lambda inner: inner) for item in items]

    assert results(run(*[lambda lockstep, key=key: lockstep.meet(key, key, nested(lockstep)) for key in "ab"])) == [
        "a",
        "b",
    ]
    ended = run(*[lambda lockstep: lockstep.meet("same", 1, nested(lockstep))] * 2)
    assert any("cannot meet within it" in str(one.error) for one in ended)


def test_state_of_the_process_belongs_to_each_member() -> None:
    state = ["outside"]

    def keep() -> Callable[[], None]:
        kept = state[0]

        def restore() -> None:
            state[0] = kept

        return restore

    def member(name: str) -> Callable[[Lockstep], list[str]]:
        def function(lockstep: Lockstep) -> list[str]:
            seen = [state[0]]
            for turn in range(2):
                state[0] = f"{name}{turn}"
                lockstep.meet("turn", None, lambda items: items)
                seen.append(state[0])
            return seen

        return function

    assert results(run(member("a"), member("b"), keep=keep)) == [["outside", "a0", "a1"], ["outside", "b0", "b1"]]
    assert state == ["outside"]


def test_what_cannot_be_kept_fails_the_member_that_gives_its_turn_away() -> None:
    def keep() -> Callable[[], None]:
        if threading.current_thread() is not threading.main_thread():
            raise OSError("no state")
        return lambda: None

    ended = run(lambda lockstep: lockstep.meet("a", 0, lambda items: items), lambda _: 1, keep=keep)
    assert isinstance(ended[0].error, OSError)
    assert ended[1].result == 1


def test_a_meeting_of_one_without_a_lockstep_thread_is_an_error() -> None:
    with pytest.raises(KeyError):
        Lockstep().meet("a", 0, lambda items: items)


def test_no_members_is_no_work() -> None:
    assert Lockstep().run([]) == []


class _Signal(SystemExit):
    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number

    def __reduce__(self) -> tuple[type["_Signal"], tuple[int]]:
        return type(self), (self.number,)


@pytest.mark.parametrize("stuck", [False, True])
def test_a_signal_stops_those_that_wait_and_the_one_that_runs(stuck: bool) -> None:
    stopped = {}

    def member(name: str, busy: bool) -> Callable[[Lockstep], None]:
        def function(lockstep: Lockstep) -> None:
            try:
                while True:
                    if busy:
                        os.kill(os.getpid(), signal.SIGUSR2)
                        while stuck:
                            time.sleep(0.001)
                    lockstep.meet("a", 0, lambda items: items)
            except _Signal as error:
                stopped[name] = error.number
                raise

        return function

    def handle(number: int, _: object) -> None:
        raise _Signal(number)

    before = signal.signal(signal.SIGUSR2, handle)
    try:
        with pytest.raises(_Signal) as raised:
            run(member("a", False), member("b", True), member("c", False))
    finally:
        signal.signal(signal.SIGUSR2, before)
    number = raised.value.number
    assert stopped.items() >= {"a": number, "b": number}.items()
    assert set(stopped.values()) == {number}


def test_a_thousand_members_meet() -> None:
    def function(lockstep: Lockstep) -> int:
        return sum(lockstep.meet("a", 1, lambda items: [len(items)] * len(items)) for _ in range(3))

    assert results(run(*[function] * 1000)) == [3000] * 1000
