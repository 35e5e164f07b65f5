"""The processes of calls, without Hydra and training."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pebble import ProcessExpired

from cl_powerprop.failures import Failure, Failures
from cl_powerprop.launching.engine import Call, outcomes
from cl_powerprop.launching.processes import ProcessEngine, how_it_ended


def call(what: str, folder: str, before: int) -> tuple[str, int]:
    Path(folder, f"{what}-{before}").touch()
    if what == "dies" or (what == "dies once" and not before):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "leaves":
        os._exit(3)
    if what == "raises":
        raise ValueError("of its own")
    if what == "stops":
        sys.exit(5)
    return what, before


pytestmark = pytest.mark.slow  # the server of processes imports torch once


def test_each_ends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ["fine", "dies", "dies once", "leaves", "raises", "stops", "fine"]
    told: list[str] = []
    calls = [Call((kind, str(tmp_path)), f"{index} {kind}") for index, kind in enumerate(kinds)]
    found = {outcome.index: outcome for outcome in outcomes(ProcessEngine(3, 1), call, calls, told.append)}
    assert sorted(found) == list(range(len(kinds)))
    assert [found[index].result for index in (0, 2, 6)] == [("fine", 0), ("dies once", 1), ("fine", 0)]
    errors = {index: outcome.error for index, outcome in found.items() if outcome.error}
    assert {index: type(error) for index, error in errors.items()} == {
        **{1: ProcessExpired, 3: ProcessExpired, 4: ValueError, 5: SystemExit}
    }
    assert how_it_ended(errors[1]) == "its process was killed by SIGKILL, as the system does when memory runs out"
    assert how_it_ended(errors[3]) == "its process ended by itself, with code 3"
    assert {index: found[index].died for index in errors} == {
        **{1: how_it_ended(errors[1]), 3: how_it_ended(errors[3]), 4: None, 5: None}
    }
    assert sorted(line.partition(":")[0] for line in told) == ["1 dies", "2 dies once", "3 leaves"]
    assert {path.name for path in tmp_path.glob("*-1")} == {"dies-1", "dies once-1", "leaves-1"}, "a mistake is final"


def test_the_next_call_is_asked_for_when_a_process_is_free(tmp_path: Path) -> None:
    ended: list[int] = []
    asked: list[int] = []

    def calls() -> Iterator[Call]:
        for index in range(6):
            assert index - len(ended) < 2, "asked for before there was room"
            asked.append(index)
            yield Call(("dies once" if index == 1 else "fine", str(tmp_path / str(index))), str(index))

    for index in range(6):
        (tmp_path / str(index)).mkdir()
    for outcome in outcomes(ProcessEngine(2, 1), call, calls(), lambda _: None):
        assert outcome.error is None
        ended.append(outcome.index)
    assert asked == sorted(ended) == list(range(6))


def test_a_process_has_the_environment_and_folder_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_NOW", "1")
    monkeypatch.chdir(tmp_path)
    (outcome,) = outcomes(ProcessEngine(1, 0), where, [Call((), "where")], pytest.fail)
    assert outcome.result == ("1", str(tmp_path))


def where(before: int) -> tuple[str | None, str]:
    return os.environ.get("OF_NOW"), os.getcwd()


def test_no_call_begins_once_nobody_asks(tmp_path: Path) -> None:
    calls = [Call(("fine", str(tmp_path)), str(index)) for index in range(50)]
    running = outcomes(ProcessEngine(1, 0), call, calls, pytest.fail)
    next(running)
    running.close()  # type: ignore[attr-defined]
    begun = len(list(tmp_path.iterdir()))
    assert begun <= 2
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == begun


def test_the_server_can_be_forked() -> None:
    """A process that was forked after CUDA was looked at, or from one with threads, may fail or hang."""
    code = (
        "import sys, threading, torch\n"
        "def refuse(*_): sys.exit('CUDA')\n"
        "for name in ('is_available', 'device_count', 'init', '_lazy_init'): setattr(torch.cuda, name, refuse)\n"
        "import importlib, cl_powerprop.launching.preloaded\n"
        "from cl_powerprop.tuning.trial import PRELOAD\n"
        "for module in PRELOAD: importlib.import_module(module)\n"
        "sys.exit(threading.active_count() - 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_reasons_are_told_once_with_their_jobs(tmp_path: Path) -> None:
    failures = Failures(tmp_path)
    for number in range(5):
        failures.add(number, Failure("no data", 2, job=f"job {number}"))
    failures.add(9, Failure("diverged", 1, job="job 9: epn, seed 1"))
    assert [failure.message for failure in failures.told()] == [
        *("job 0; job 1; job 2 and 2 more: no data", "job 9: epn, seed 1: diverged")
    ]
    assert failures.of(7) is None
    alone = Failures(tmp_path / "alone")
    alone.folder.mkdir()
    alone.add(0, Failure.of(ValueError("x")))
    (failure,) = alone.told()
    assert failure.message == "x"
    assert "ValueError: x" in failure.trace
