"""A run that is told to stop: it says how it goes on, ends with the signal's code, and the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cl_powerprop.checkpoint import read_checkpoint
from cl_powerprop.experiment import run
from cl_powerprop.interrupts import SIGNALS, Interrupted
from cl_powerprop.results.results import Results

from .conftest import Command, tree

pytestmark = pytest.mark.slow

# So long that a signal comes in time, and quick to finish for who goes on.
WORDS = (
    "data=digits",
    "strategy=naive",
    "benchmark.n_tasks=2",
    "train.epochs=20",
    "model.hidden=[20]",
    "progress=false",
    "checkpoint.max_share=1",  # the first one early
)


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cl_powerprop", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_until(process: subprocess.Popen[str], file: Path) -> None:
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def listens(process: subprocess.Popen[str]) -> bool:
    """Return whether it has a handler of SIGTERM."""
    caught = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "SigCgt" in line)
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def stop(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Exit code, and what it said on stderr."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def status(folder: str | Path) -> Any:
    return json.loads(Path(folder, "run.json").read_text())["status"]


def matrix(folder: str | Path) -> bytes:
    return tree(Path(folder))["accuracy_matrix.csv"]


@pytest.mark.parametrize(
    "number", [SIGNALS[0], *(pytest.param(each, marks=pytest.mark.thorough) for each in SIGNALS[1:])]
)
def test_a_signal_in_training(number: int, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    process = start("run", *WORDS, "run_dir=my run")
    wait_until(process, Path("my run/checkpoint.safetensors"))
    code, errors = stop(process, number)
    assert code == 128 + number
    (line,) = errors.splitlines()
    assert f"interrupted by {signal.Signals(number).name}; cl-powerprop resume 'my run' goes on" in line
    assert status("my run") == "interrupted"
    assert command("run", *WORDS, "run_dir=my run") == 0
    assert "my run: going on after" in capsys.readouterr().out
    assert command("run", *WORDS, "run_dir=whole") == 0
    assert matrix("my run") == matrix("whole")


@pytest.mark.parametrize("seconds", [0.3, *(pytest.param(each, marks=pytest.mark.thorough) for each in (1, 2)), 3])
def test_a_signal_at_the_start(seconds: float, command: Command) -> None:
    process = start("run", *WORDS, "train.epochs=1", "references=[joint]", "run_dir=run")
    begun = time.monotonic()
    while not listens(process):  # on a slow machine Python itself takes longer to start
        time.sleep(0.01)
    time.sleep(max(0.0, begun + seconds - time.monotonic()))
    code, errors = stop(process, signal.SIGTERM)
    assert code == 143
    assert "Traceback" not in errors
    assert command("run", *WORDS, "train.epochs=1", "references=[joint]", "run_dir=run") == 0


def test_the_jobs_of_a_multirun_stop_and_go_on(command: Command) -> None:
    words = ("-m", *WORDS, "seed=0,1,2", "run_dir=sweep", "hydra.launcher.n_jobs=2")
    process = start("run", *words)
    for job in ("0", "1"):
        wait_until(process, Path("sweep", job, "checkpoint.safetensors"))
    code, errors = stop(process, signal.SIGTERM)
    assert code == 143
    assert errors.splitlines()[-1].startswith("cl-powerprop: error: interrupted by SIGTERM; the same command goes on")
    assert {status(f"sweep/{job}") for job in (0, 1)} == {"interrupted"}
    assert not Path("sweep/2/run.json").exists()
    again = start("run", *words)
    printed, errors = again.communicate()
    assert again.returncode == 0, errors
    assert "going on after" in printed
    assert [status(f"sweep/{job}") for job in range(3)] == ["complete"] * 3
    assert command("run", *WORDS, "seed=1", "run_dir=whole") == 0
    assert matrix("sweep/1") == matrix("whole")


@pytest.mark.thorough
def test_a_serial_multirun_stops_as_a_whole(command: Command) -> None:
    words = ("-m", *WORDS, "seed=0,1,2", "run_dir=sweep", "hydra/launcher=basic")
    process = start("run", *words)
    wait_until(process, Path("sweep/0/checkpoint.safetensors"))
    code, errors = stop(process, signal.SIGUSR1)
    assert code == 138
    *finished, stopped = sorted(Path("sweep").iterdir())
    assert f"cl-powerprop resume {stopped} goes on" in errors
    assert status(stopped) == "interrupted"
    assert {status(job) for job in finished} <= {"complete"}
    assert len(finished) < 2
    assert command("run", *words) == 0


@pytest.mark.parametrize(
    "words",
    [("resume", "run"), pytest.param(("repeat", "first", "run_dir=run"), marks=pytest.mark.thorough)],
    ids=["resume", "repeat"],
)
def test_the_other_commands_stop_too(words: Sequence[str], command: Command) -> None:
    process = start("run", *WORDS, "run_dir=run")
    wait_until(process, Path("run/checkpoint.safetensors"))
    assert stop(process, signal.SIGTERM)[0] == 143
    if words[0] == "repeat":
        Path("run").rename("first")
    before = Path("run/run.json").stat().st_mtime_ns if words[0] == "resume" else 0
    process = start(*words)
    while not Path("run/run.json").exists() or Path("run/run.json").stat().st_mtime_ns == before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    code, errors = stop(process, signal.SIGTERM)
    assert code == 143
    assert "cl-powerprop resume run goes on" in errors
    assert status("run") == "interrupted"
    assert command(*words) == 0
    assert status("run") == "complete"


def send_once_there(number: int, file: Path) -> None:
    """Send this process a signal as soon as there is a file."""

    def send() -> None:
        while not file.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_call_from_python_stops_too(number: int, caplog: pytest.LogCaptureFixture) -> None:
    handlers = [signal.getsignal(each) for each in SIGNALS]
    send_once_there(number, Path("run/checkpoint.safetensors"))
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Interrupted) as stopped:
        run(WORDS, "run")
    said = "; ".join([str(stopped.value), *getattr(stopped.value, "__notes__", ())])
    name = signal.Signals(number).name
    assert said.startswith(f"interrupted by {name}; cl-powerprop resume run goes on from its last checkpoint")
    assert (said in caplog.text) == (number != signal.SIGINT), "Python shows an exception, but not that of an exit"
    assert status("run") == "interrupted"
    assert [signal.getsignal(each) for each in SIGNALS] == handlers
    begun = read_checkpoint(Path("run"), pytest.fail)
    assert begun is not None
    resumed = run(WORDS, "run")
    assert resumed.record["status"] == "complete"
    assert resumed.record["resumed"]


def test_in_another_thread_it_just_works() -> None:
    handlers = [signal.getsignal(each) for each in SIGNALS]
    words = (*WORDS, "train.epochs=1", "benchmark.n_tasks=1")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, words, "run").result().record["status"] == "complete"
    assert [signal.getsignal(each) for each in SIGNALS] == handlers


def test_a_strategy_that_keeps_no_state_is_not_said_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop.strategies.naive import Naive

    monkeypatch.setattr(Naive, "resumable", False)
    send_once_there(signal.SIGTERM, Path("run/run.json"))
    with pytest.raises(Interrupted) as stopped:
        run(WORDS, "run")
    (note,) = stopped.value.__notes__
    assert note.startswith("cl-powerprop resume run begins again, for there is no checkpoint, and so does the same")
    assert status("run") == "interrupted"


def test_a_signal_at_the_last_moment_finds_a_complete_run() -> None:
    process = start("run", *WORDS, "train.epochs=1", "run_dir=run")
    wait_until(process, Path("run/run.json"))
    while status("run") != "complete":
        time.sleep(0.002)
    code, errors = stop(process, signal.SIGTERM)
    assert (code, errors) == (0, "")


def test_a_signal_after_a_run_stops_the_next_one(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*WORDS, "train.epochs=1", "benchmark.n_tasks=1")
    finish = Results.finish

    def late(results: Results, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        finish(results, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Results, "finish", late)
        assert command("run", *words, "run_dir=one") == 0
        assert status("one") == "complete"
        capsys.readouterr()
        assert command("run", "-m", *words, "seed=0,1", "run_dir=all", "hydra/launcher=basic") == 143
    assert "interrupted by SIGTERM; the same command goes on" in capsys.readouterr().err
    assert status("all/0") == "complete"
    assert not Path("all/1/run.json").exists()
