"""Signals: kept until a checkpoint can be written, and deadly anywhere else."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from cl_powerprop import interrupts
from cl_powerprop.interrupts import SIGNALS, Interrupted, check, deferred, listening, requested, saving


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.001)  # Python handles it between two instructions of the main thread


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_the_program_at_once(number: int) -> None:
    with listening(), pytest.raises(Interrupted) as stopped:
        send(number)
    assert stopped.value.signal == number
    assert stopped.value.exit_code == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138}[number]


def test_work_that_can_be_saved_goes_on_to_the_next_moment() -> None:
    steps = []

    def work() -> None:
        with deferred():
            check()
            send(signal.SIGTERM)
            steps.append("finished")
            assert requested()
            check()
            steps.append("never")

    with listening(), pytest.raises(Interrupted):
        work()
    assert steps == ["finished"]


def test_a_signal_that_comes_too_late_for_what_is_done_stops_what_comes_next() -> None:
    with listening():
        with deferred(), deferred():
            send(signal.SIGUSR1)
        assert interrupts._state.timer is None, "nothing is waited for"
        with pytest.raises(Interrupted):
            check()


def test_signals_after_the_end_of_all_are_ignored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with listening(ends=True):
            pass
        for number in SIGNALS:
            send(number)
        assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_IGN] * len(SIGNALS)
        with pytest.raises(Interrupted), listening(ends=True):
            send(SIGNALS[0])
        assert signal.getsignal(SIGNALS[0]) == signal.SIG_IGN, "that of before"
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_program_that_does_not_listen_gets_what_python_has(number: int) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    expected = KeyboardInterrupt if number == signal.SIGINT else Interrupted
    with pytest.raises(expected, match="interrupted by"), interrupts.called():
        send(number)
    assert [signal.getsignal(each) for each in SIGNALS] == before
    with listening(), pytest.raises(Interrupted), interrupts.called():
        send(number)


def test_a_signal_that_comes_too_late_for_a_call_does_what_it_does_without_it() -> None:
    done = []

    def work() -> None:
        with interrupts.called(), deferred():
            send(signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    with listening():
        with interrupts.called(), deferred():
            send(signal.SIGTERM)
        with pytest.raises(Interrupted):
            check()


def test_nobody_listens_in_other_threads() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]

    def work() -> None:
        with interrupts.called():
            seen.append([signal.getsignal(each) for each in SIGNALS])

    seen: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_interrupt_that_nobody_catches_is_the_exit_code() -> None:
    code = "import signal; from cl_powerprop.interrupts import Interrupted; raise Interrupted(signal.SIGUSR1)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 138


def test_a_second_signal_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    monkeypatch.setattr(interrupts, "_TOGETHER", 0.0)

    def work() -> None:
        with deferred():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                send(number)
                steps.append(number)

    with listening(), pytest.raises(Interrupted) as stopped:
        work()
    assert steps == [signal.SIGTERM]
    assert stopped.value.signal == signal.SIGTERM


def test_a_signal_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with deferred():
            send(signal.SIGTERM)
            time.sleep(10)

    monkeypatch.setattr(interrupts, "_PATIENCE", 0.05)
    start = time.monotonic()
    with listening(), pytest.raises(Interrupted):
        work()
    assert time.monotonic() - start < 5


def test_nothing_interrupts_the_writing_of_a_checkpoint() -> None:
    written = []

    def work() -> None:
        with deferred():
            with saving():
                for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                    send(number)
                written.append(True)
            check()
            written.append(False)

    with listening(), pytest.raises(Interrupted):
        work()
    assert written == [True]


def test_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with listening():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_signals_that_arrive_together_are_one() -> None:
    def work() -> None:
        with deferred():
            for _ in range(3):
                send(signal.SIGTERM)
            check()

    with listening(), pytest.raises(Interrupted):
        work()


def test_a_signal_whose_exception_was_lost_stops_the_program_at_the_next_moment() -> None:
    with listening():
        with contextlib.suppress(Interrupted):  # as in a finalizer
            send(signal.SIGTERM)
        with pytest.raises(Interrupted):
            check()


def test_a_handler_of_the_users_own_stays() -> None:
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(True))
    try:
        with listening():
            send(signal.SIGUSR1)
            assert seen
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_other_processes_end_first() -> None:
    told = []

    def tell(number: int) -> bool:
        told.append(number)
        return True

    def work(tell: Callable[[int], bool]) -> None:
        with interrupts.telling(tell):
            send(signal.SIGTERM)
            told.append(0)

    with listening():
        work(tell)
        with pytest.raises(Interrupted):
            check()
    assert told == [signal.SIGTERM, 0]
    with listening(), pytest.raises(Interrupted):
        work(lambda _: False)
    assert len(told) == 2


def test_an_interrupt_travels_between_processes() -> None:
    stopped = pickle.loads(pickle.dumps(Interrupted(signal.SIGUSR1)))
    assert (stopped.signal, str(stopped)) == (signal.SIGUSR1, "interrupted by SIGUSR1")


def test_a_signal_is_forgotten_with_what_it_has_stopped() -> None:
    with listening(), deferred():
        signal.raise_signal(signal.SIGTERM)
    assert not requested(), "the next run of the process is another one"
