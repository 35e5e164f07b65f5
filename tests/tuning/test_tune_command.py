"""`cl-powerprop tune` as a whole: trials in processes, killed and gone on with, and what it leaves."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna")
pytestmark = pytest.mark.slow

TINY = ("data=digits", "benchmark.n_tasks=3", "train.epochs=2", "model.hidden=[20]", "save_model=false")
RANGES = ("optimizer.lr=tag(log,interval(0.05,1))", "epn.gamma=interval(0.8,0.99)")


def start(*words: str, folder: Path) -> "subprocess.Popen[str]":
    call = [sys.executable, "-W", "ignore", "-m", "cl_powerprop", *words]
    return subprocess.Popen(call, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def command(*words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    process = start(*words, folder=folder)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_best_settings_run_and_reach_the_same(tmp_path: Path) -> None:
    words = ("tune", "--trials", "6", *TINY, "--jobs", "2", *RANGES, "run_dir=study")
    ended = command(*words, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    rows = table(tmp_path / "study")
    assert [row["trial"] for row in rows] == list("012345")
    best = max((row for row in rows if row["state"] == "complete"), key=lambda row: float(row["validation_accuracy"]))
    assert best["best"] == "1"
    for row in rows:
        record = json.loads((tmp_path / "study" / row["trial"] / "run.json").read_text())
        assert record["status"] == row["state"]
        curves = (tmp_path / "study" / row["trial"] / "curves.csv").read_text()
        assert ",test," not in curves, "test data was measured"
    for name in ("history.png", "importance.svg"):
        assert (tmp_path / "study" / name).stat().st_size > 1000

    assert command(*words, folder=tmp_path).returncode == 0
    assert table(tmp_path / "study") == rows, "the same command runs nothing more"

    run = ("run", "--config-dir", "study/configs", "experiment=best", "run_dir=best", "save_model=false")
    ended = command(*run, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads((tmp_path / "best" / "run.json").read_text())["metrics"]
    assert metrics["validation_accuracy"] == float(best["validation_accuracy"])
    assert metrics["average_accuracy"] is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_study_that_was_stopped_goes_on(tmp_path: Path, number: int) -> None:
    objective = ("--objective", "validation_accuracy,-capacity_used")
    words = ("tune", *TINY, *RANGES, "train.epochs=4", "--trials", "7", *objective, "--jobs", "2", "run_dir=study")
    process = start(*words, folder=tmp_path)
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline().startswith("trial ")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    stopped = time.monotonic()
    while any((tmp_path / "study").glob("*/.run.lock")):
        assert time.monotonic() - stopped < 15.0, "a trial goes on without its command"
        time.sleep(0.1)

    ended = command(*words, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    rows = table(tmp_path / "study")
    assert [row["state"] for row in rows] == ["complete"] * 7
    assert len({(row["optimizer.lr"], row["epn.gamma"]) for row in rows}) == 7
    front = [row["trial"] for row in rows if row["best"] == "1"]
    assert {path.stem for path in (tmp_path / "study/configs/experiment").iterdir()} >= {"best"}
    assert front
    assert (tmp_path / "study" / "front.png").exists()


def test_a_trial_that_fails_costs_no_other_one(tmp_path: Path) -> None:
    words = ("tune", *TINY, "optimizer.lr=choice(0.2,1e6)", "--trials", "5", "run_dir=study", "--no-pruning")
    ended = command(*words, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert sorted(row["state"] for row in table(tmp_path / "study")) == ["complete", "fail"]
    assert "lr 1000000.0: failed: training diverged" in ended.stdout
    assert "all 2 combinations are tried" in ended.stdout


def test_a_trial_whose_process_is_killed_is_tried_again(tmp_path: Path) -> None:
    words = ("tune", *TINY, "optimizer.lr=choice(0.2)", "train.epochs=60", "--trials", "1", "run_dir=study")
    process = start(*words, folder=tmp_path)
    record = tmp_path / "study" / "0" / "run.json"
    waited = time.monotonic()
    while not record.exists() and time.monotonic() - waited < 60:
        time.sleep(0.05)
    os.kill(json.loads(record.read_text())["process"], signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert table(tmp_path / "study")[0]["state"] == "complete", out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("optimizer.lr=interval(0.1)", "--trials", "2"), "a range has two ends"),
        (("optimizer.lr=interval(-1,1)", "--trials", "2"), "must be at least 0"),
        (("optimizer.lr=interval(0,1)", "--trials", "0"), "--trials must be at least 1"),
        (("optimizer.lr=interval(0,1)", "--trials", "2", "--objective", "nothing"), "unknown objective"),
        (("optimizer.lrr=interval(0,1)", "--trials", "2"), "unknown option"),
        (("optimizer.lr=interval(0,1)", "references=[joint]", "--trials", "2"), "references are tested"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ended = command("tune", "data=digits", *words, folder=tmp_path)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['optuna'] = None; from cl_powerprop.cli import main; "
        "main(['tune', 'data=digits', 'optimizer.lr=interval(0.1,1)', '--trials', '1'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "cl-powerprop: error: tune needs optuna: pip install 'cl-powerprop[tune]'\n"
