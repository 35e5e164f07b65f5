"""A group that is told to stop: each seed writes a checkpoint, and the same command goes on with all of them."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cl_powerprop.experiment import run
from cl_powerprop.interrupts import Interrupted
from cl_powerprop.seeds_together import run_together
from cl_powerprop.training.fast import FastSupervisedTemplate

from ..conftest import Command
from ..test_preemption import start
from .conftest import DIGITS, assert_close, digits, numbers, record, stop_at

pytestmark = pytest.mark.slow

LONG = (*DIGITS, "strategy=naive", "train.epochs=20", "benchmark.n_tasks=2", "seeds_together=2", "run_dir=my group")


@pytest.mark.parametrize(
    "seed", [pytest.param(0, marks=pytest.mark.thorough), 1, pytest.param(2, marks=pytest.mark.thorough)]
)
def test_a_signal_before_an_epoch_of_all(seed: int, groups: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have met stop within it, and go on from there."""
    config = digits("strategy=packnet", "strategy.retrain_epochs=1", "seeds_together=3")
    with monkeypatch.context() as stopped:
        stop_at(stopped, seed, epoch=3)
        with pytest.raises(Interrupted):
            run_together(config, "group")
    assert groups[:2] == [[0, 1, 2]] * 2
    assert all(group == [] for group in groups[2:])
    for result in run_together(config, "group"):
        index = result.record["seed"]
        words = ("strategy=packnet", "strategy.retrain_epochs=1", f"seed={index}")
        assert_close(result.path, run(digits(*words), Path(f"alone_{index}")).path)
    assert groups[-1] == [0, 1, 2]


@pytest.mark.parametrize(
    "seed", [pytest.param(0, marks=pytest.mark.thorough), 1, pytest.param(2, marks=pytest.mark.thorough)]
)
def test_a_signal_reaches_all_seeds_and_the_same_call_goes_on(
    seed: int, taking_turns: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = digits("strategy=packnet", "strategy.retrain_epochs=1", "seeds_together=3")
    with monkeypatch.context() as stopped:
        stop_at(stopped, seed, epoch=4)
        with pytest.raises(Interrupted) as raised:
            run_together(config, "group")
    assert raised.value.signal == signal.SIGTERM
    (note,) = raised.value.__notes__
    assert "goes on with all seeds together, and cl-powerprop resume group" in note
    for index in range(3):
        folder = Path("group", f"seed_{index}")
        assert record(folder)["status"] == "interrupted"
        assert (folder / "checkpoint.safetensors").exists()
    assert not list(Path("group").glob("**/.run.lock"))
    run_together(config, "group")
    for index in range(3):
        alone = run(digits("strategy=packnet", "strategy.retrain_epochs=1", f"seed={index}"), Path(f"alone_{index}"))
        assert numbers(Path("group", f"seed_{index}")) == numbers(alone.path)
        assert record(Path("group", f"seed_{index}"))["seeds_together"] == 3


def test_seeds_at_different_places_go_on_together(taking_turns: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One is complete, one was cut off, one was not begun, and one was cut off alone."""
    words = ("strategy=epn",)
    run(digits(*words), Path("group/seed_0"))
    for seed, epoch in ((1, 2), (3, 5)):
        with monkeypatch.context() as stopped:
            stop_at(stopped, seed, epoch)
            with pytest.raises(Interrupted):
                run(digits(*words, f"seed={seed}"), Path(f"group/seed_{seed}"))
    results = run_together(digits(*words, "seeds_together=4"), "group")
    for seed, result in enumerate(results):
        assert numbers(result.path) == numbers(run(digits(*words, f"seed={seed}"), Path(f"alone_{seed}")).path)
        told = [line for line in result.record["messages"] if "seeds_together" in line]
        expected = ["resumed with seeds_together=4 in place of 1: numbers differ by rounding"] if seed in (1, 3) else []
        assert told == expected
    assert [result.record["seeds_together"] for result in results] == [1, 4, 4, 4]


def test_a_second_signal_stops_all_where_they_are(taking_turns: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    train = FastSupervisedTemplate.training_epoch

    def training_epoch(self: FastSupervisedTemplate, **options: Any) -> None:
        if self.seed == 1:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1.1)  # signals within a second count as one
            while True:  # hangs
                time.sleep(0.01)
        train(self, **options)

    monkeypatch.setattr(FastSupervisedTemplate, "training_epoch", training_epoch)
    start, threads = time.monotonic(), set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run_together(digits("strategy=naive", "seeds_together=3"), "group")
    assert time.monotonic() - start < 8
    assert set(threading.enumerate()) <= threads
    assert {record(Path("group", f"seed_{seed}"))["status"] for seed in (0, 1)} == {"interrupted"}
    monkeypatch.undo()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(each, marks=pytest.mark.thorough) for each in (signal.SIGINT, signal.SIGUSR1)),
        signal.SIGKILL,
    ],
)
def test_the_command_stops_and_goes_on(number: int, command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    process = start("run", *LONG)
    while not Path("my group/seed_0/checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        (line,) = errors.splitlines()
        assert f"interrupted by {signal.Signals(number).name}; the same command with this run_dir goes on" in line
        assert "cl-powerprop resume 'my group'" in line
    assert command("run", *LONG) == 0
    assert "going on after" in capfd.readouterr().out
    assert [record(Path("my group", f"seed_{seed}"))["status"] for seed in (0, 1)] == ["complete"] * 2


def test_resume_finishes_a_group_one_run_after_the_other(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stopped:
        stop_at(stopped, 1, epoch=3)
        with pytest.raises(Interrupted):
            run_together(digits("strategy=naive", "seeds_together=2"), "group")
    assert command("resume", "group") == 0
    assert [record(Path("group", f"seed_{seed}"))["status"] for seed in (0, 1)] == ["complete"] * 2
