"""`cl-powerprop tune` as a whole: trials in processes, killed and gone on with, and what it leaves."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cl_powerprop.registry import metrics

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
        measured = {name: value for name, value in record["metrics"].items() if value is not None}
        assert not set(measured) & {metric.name for metric in metrics().values() if metric.needs_test}
        for file in (tmp_path / "study" / row["trial"]).glob("*.csv"):
            assert ",test," not in file.read_text(), "test data was measured"
        matrix = (tmp_path / "study" / row["trial"] / "accuracy_matrix.csv").read_text()
        assert not re.search(r"0\.\d", matrix)
    assert (tmp_path / "study" / "history.png").stat().st_size > 1000
    assert "(defaults)" in ended.stdout

    assert command(*words, folder=tmp_path).returncode == 0
    assert table(tmp_path / "study") == rows, "the same command runs nothing more"

    run = ("run", "--config-dir", "study/configs", "experiment=best", "run_dir=best", "save_model=false")
    ended = command(*run, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    reached = json.loads((tmp_path / "best" / "run.json").read_text())["metrics"]
    assert reached["validation_accuracy"] == float(best["validation_accuracy"])
    assert reached["average_accuracy"] is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)])
def test_a_study_that_was_stopped_goes_on(tmp_path: Path, number: int) -> None:
    objective = ("--objective", "validation_accuracy,-capacity_used")
    words = ("tune", *TINY, *RANGES, "train.epochs=4", "--trials", "7", *objective, "--jobs", "2", "run_dir=study")
    process = start(*words, folder=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("no trial is pruned")
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
    for name in ("front.png", "importance.svg"):
        assert (tmp_path / "study" / name).stat().st_size > 1000
    assert "no trial is pruned" in ended.stdout


def test_with_one_process_a_study_that_was_killed_has_the_same_trials(tmp_path: Path) -> None:
    words = ("tune", *TINY, *RANGES, "--trials", "13", "--jobs", "1")
    assert command(*words, "run_dir=whole", folder=tmp_path).returncode == 0
    for ended in (2, 5):
        process = start(*words, "run_dir=killed", folder=tmp_path)
        assert process.stdout is not None
        for _ in range(ended):
            assert process.stdout.readline().startswith("trial ")
        process.kill()
        process.communicate(timeout=60)
    assert command(*words, "run_dir=killed", folder=tmp_path).returncode == 0
    whole, killed = ([row | {"seconds": ""} for row in table(tmp_path / name)] for name in ("whole", "killed"))
    assert killed == whole
    assert {row["state"] for row in whole} == {"complete", "pruned"}


def test_a_trial_that_diverges_is_pruned(tmp_path: Path) -> None:
    words = ("tune", *TINY, "optimizer.lr=choice(0.2,1e6)", "--trials", "5", "run_dir=study", "--no-pruning")
    ended = command(*words, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert sorted(row["state"] for row in table(tmp_path / "study")) == ["complete", "pruned"]
    assert "lr 1000000.0: pruned: training diverged" in ended.stdout
    assert "no other settings are found to try: there are 2 trials" in ended.stdout
    assert "no trial has the settings as they are" in ended.stdout
    status = command("status", "study", folder=tmp_path)
    assert status.returncode == 0, status.stdout
    assert status.stdout.endswith("2 runs: 1 complete, 1 pruned\n")


def test_what_failed_is_named_and_runs_again_if_asked(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        """
from dataclasses import dataclass
from pathlib import Path
from cl_powerprop.strategies.base import StrategyConfig, register_strategy
from cl_powerprop.strategies.naive import Naive

@dataclass(kw_only=True)
class FussyConfig(StrategyConfig):
    taste: int = 0

@register_strategy("fussy", FussyConfig)
class Fussy(Naive):
    def plugins(self, context):
        if self.config.taste == 2 and not Path("mended").exists():
            raise ValueError("of taste")
        return super().plugins(context)
"""
    )
    words = ("--import", "other", "tune", *TINY, "strategy=fussy", "fussy.taste=range(0,3)", "--trials", "3")
    words += ("run_dir=study", "--no-pruning")
    for _ in range(2):
        ended = command(*words, folder=tmp_path)
        assert ended.returncode == 1, ended.stderr
        assert ended.stderr.splitlines()[-1].startswith("cl-powerprop: error: trial ")
        assert ended.stderr.splitlines()[-1].endswith(": fussy.taste=2: of taste")
        assert "1 failed: the same command with --retry-failed runs it again" in ended.stdout
    rows = table(tmp_path / "study")
    assert (rows[0]["fussy.taste"], rows[0]["defaults"]) == ("0", "1")
    failed = next(row for row in rows if row["state"] == "failed")
    assert command("status", "study", folder=tmp_path).returncode == 1

    (tmp_path / "mended").touch()
    ended = command(*words, "--retry-failed", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "1 of 3 trials failed before, and run again" in ended.stdout
    (again,) = (row for row in table(tmp_path / "study") if row["trial"] == failed["trial"])
    assert (again["state"], again["fussy.taste"], again["error"]) == ("complete", "2", "")
    status = command("status", "study", folder=tmp_path)
    assert (status.returncode, status.stdout.splitlines()[-1]) == (0, "3 runs: 3 complete")


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
        (("optimizer.lr=interval(0,1)", "--trials", "2", "--objective", "-forgetting"), "measured on test data"),
        (("train.epochs=interval(1,5)", "--trials", "2"), "Integer"),
        (("model=choice(mlp,nothing,convnet)", "--trials", "2"), "unknown model 'nothing'"),
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
