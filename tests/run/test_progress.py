"""What a run shows of its progress: a live bar on a terminal, and a plain line for each task elsewhere."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cl_powerprop import output
from cl_powerprop.tracking import progress_lines
from cl_powerprop.tracking.progress_lines import ProgressLines

from .conftest import MASKED, TINY, tiny_config
from .test_resume import cut_off

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny() -> Any:
    return tiny_config("strategy=epn", *MASKED, "benchmark.n_tasks=2", "progress=true")


NUMBER = r"\d\.\d{3}"
SECONDS = r"\d+(\.\d)? s"


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("no_terminal")
def test_a_line_for_each_task_where_the_output_is_no_terminal(
    tiny: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from cl_powerprop.experiment import run

    tiny.evaluation.every_epochs = 1
    result = run(tiny, tmp_path / "run")
    captured = capfd.readouterr()
    assert captured.err == ""
    first, last = captured.out.splitlines()
    matrix = np.genfromtxt(tmp_path / "run" / "accuracy_matrix.csv", delimiter=",", skip_header=1)
    start = rf"task 1/2 permutation_0: accuracy {matrix[0, 0]:.3f}, forgetting 0.000, capacity \d+\.\d %"
    assert re.fullmatch(rf"{start}, {SECONDS}, {SECONDS} left", first)
    metrics = result.record["metrics"]
    for part in (
        f"task 2/2 permutation_1: accuracy {matrix[1, 1]:.3f} (average {metrics['average_accuracy']:.3f})",
        f"forgetting {metrics['average_forgetting']:.3f}, capacity {100 * metrics['capacity_used']:.1f} %",
    ):
        assert part in last
    assert not last.endswith("left"), "nothing is left"


@pytest.mark.usefixtures("no_terminal")
@pytest.mark.parametrize("how", ["progress=false", "quiet"])
def test_progress_false_is_quiet_without_a_terminal_too(
    tiny: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    from cl_powerprop.experiment import run

    tiny.progress = how == "quiet"
    run(tiny, tmp_path / "run", quiet=how == "quiet")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.usefixtures("no_terminal")
def test_what_is_not_tested_yet_is_not_made_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cl_powerprop.experiment import run

    words = ("strategy=naive", "progress=true", "evaluation.schedule=last")
    result = run(tiny_config(*words), tmp_path / "run")
    first, second, last = capsys.readouterr().out.splitlines()
    assert re.match(rf"task 1/3 permutation_0: validation accuracy {NUMBER}, forgetting -, ", first)
    assert re.match(rf"task 2/3 permutation_1: validation accuracy {NUMBER}, forgetting -, ", second)
    average = result.record["metrics"]["average_accuracy"]
    assert re.match(rf"task 3/3 permutation_2: accuracy {NUMBER} \(average {average:.3f}\), forgetting -, ", last)


@pytest.mark.usefixtures("no_terminal")
def test_a_reference_says_that_it_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cl_powerprop.experiment import run

    words = ("strategy=naive", "progress=true", "references=[joint]", f"references_dir={tmp_path}")
    run(tiny_config(*words), tmp_path / "run")
    lines = [line for line in capsys.readouterr().out.splitlines() if "accuracy" in line]
    assert lines[0].startswith("reference joint: task 3/3 permutation_2: accuracy 0.")
    assert [line[:8] for line in lines[1:]] == ["task 1/3", "task 2/3", "task 3/3"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by hand."""
    now = [0.0]
    monkeypatch.setattr(progress_lines.time, "perf_counter", lambda: now[0])
    return now


def test_time_left_does_not_count_what_was_done_before(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(enabled=True, title="job 3: epn, alpha 2, seed 0")
    lines.start([100, 100, 10, 20, 10], done=2)
    clock[0] = 5.0
    lines.write("three", 3)
    clock[0] = 25.0
    lines.write("four", 4)
    clock[0] = 30.0
    lines.write("five", 5)
    assert capsys.readouterr().out.splitlines() == [
        "job 3: epn, alpha 2, seed 0: three, 5.0 s, 15 s left",
        "job 3: epn, alpha 2, seed 0: four, 20 s, 8.3 s left",
        "job 3: epn, alpha 2, seed 0: five, 5.0 s",
    ]


@pytest.mark.usefixtures("no_terminal")
def test_the_line_of_a_task_has_the_time_of_all_sessions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cl_powerprop.experiment import run
    from cl_powerprop.results import timer

    config = tiny_config("strategy=naive", "progress=true", "benchmark.n_tasks=2")
    with pytest.MonkeyPatch.context() as patch, cut_off(task=1, epoch=1):
        slow = SimpleNamespace(perf_counter=lambda: 10_000 * perf_counter())
        patch.setattr(timer, "time", slow)
        run(config, tmp_path / "run")
    capsys.readouterr()
    run(config, tmp_path / "run")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("task 2/2")]
    assert re.search(r", \d+ (min|h)", line), "hours of a first session in which time passed quickly"


def test_the_bar_of_a_resumed_run_ends_where_the_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from the first task, it would promise the time of tasks that were done before."""
    from cl_powerprop.tracking.progress import ProgressDisplay

    screen = force_terminal(monkeypatch)
    display = ProgressDisplay()
    strategy = SimpleNamespace(
        experience=SimpleNamespace(current_experience=3),
        clock=SimpleNamespace(train_exp_epochs=0),
        dataloader=range(50),
        train_epochs=2,
    )
    with display.over([100] * 4, done=3):
        display.before_training_epoch(strategy)
        for _ in range(100):
            display.after_training_iteration(strategy)
        (bar,) = display._progress.tasks
        assert (bar.completed, bar.total) == (100, 100)
    assert "task 4/4" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, written: str) -> None:
    assert output.duration(seconds) == written


class Encoded(io.StringIO):
    encoding = "ascii"


def test_a_name_that_stdout_cannot_write_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Encoded()
    monkeypatch.setattr(sys, "stdout", out)
    output.say("Ελληνικά")
    assert out.getvalue().startswith("\\u0395")
    out.close()
    output.say("closed")
    monkeypatch.setattr(sys, "stdout", None)
    output.say("none at all")


@pytest.mark.usefixtures("no_terminal")
@pytest.mark.parametrize(
    "launch", [[], pytest.param(["-m", "seed=0,1"], marks=pytest.mark.thorough)], ids=["run", "multirun"]
)
def test_a_reader_who_leaves_does_not_stop_the_run(tmp_path: Path, launch: list[str]) -> None:
    words = ["run", *launch, *TINY, "progress=true", "strategy=naive", "run_dir=run"]
    call = [sys.executable, "-m", "cl_powerprop", *words]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    assert "task 1/3 permutation_0: accuracy " in process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0, said
    assert said == ""
    records = [json.loads(path.read_text()) for path in (tmp_path / "run").rglob("run.json")]
    assert [record["status"] for record in records] == ["complete"] * (2 if launch else 1)


def force_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    from cl_powerprop.tracking import progress

    screen = io.StringIO()

    def make(**_: Any) -> Console:
        return Console(file=screen, force_terminal=True, force_interactive=True, width=200, color_system=None)

    monkeypatch.setattr(progress, "Console", make)
    return screen


def test_a_terminal_shows_task_epoch_loss_accuracy_and_capacity(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cl_powerprop.experiment import run

    screen = force_terminal(monkeypatch)
    result = run(tiny, tmp_path / "run")
    shown = screen.getvalue()
    for part in ("task 2/2", "epoch 2/2", "loss ", "accuracy ", "capacity ", "left"):
        assert part in shown
    last = shown[shown.rindex("task 2/2") :]
    assert f"capacity {result.record['metrics']['capacity_used']:.3f}" in last
    curves = (tmp_path / "run" / "curves.csv").read_text().splitlines()
    loss = [float(line.split(",")[-1]) for line in curves if ",train,loss," in line][-1]
    assert f"loss {loss:.3f}" in last


def test_progress_false_is_quiet_on_a_terminal_too(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop.experiment import run

    screen = force_terminal(monkeypatch)
    tiny.progress = False
    run(tiny, tmp_path / "run")
    assert screen.getvalue() == ""
