import io
import itertools
import json
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import joblib
import pytest
from omegaconf import OmegaConf
from rich.console import Console

from cl_powerprop.config import parallel_jobs
from cl_powerprop.tracking import multirun
from cl_powerprop.tracking.multirun import MultirunDisplay

from ..analysis.folders import write_run
from .conftest import TINY, Command, compose_config, tree

pytestmark = pytest.mark.slow

QUICK = (*TINY, "benchmark.n_tasks=1", "train.epochs=1", "strategy=naive")


def quick(*more: str) -> list[str]:
    """The quick overrides, each key once."""
    return list({word.split("=")[0]: word for word in (*QUICK, *more)}.values())


def test_a_multirun_writes_a_folder_a_job_and_one_table(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    assert command("run", "-m", *quick(), "seed=0,1", f"run_dir={sweep}") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    records = [json.loads((sweep / job / "run.json").read_text()) for job in ("0", "1")]
    assert [record["seed"] for record in records] == [0, 1]
    assert {record["status"] for record in records} == {"complete"}
    assert len({record["run_id"] for record in records}) == 2
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    assert captured.out.count("average accuracy") == 1, "one table"
    rows = [line for line in captured.out.splitlines() if "naive" in line and "│" in line]
    assert len(rows) == 2
    for row, record in zip(rows, records, strict=True):
        assert f"{record['metrics']['average_accuracy']:.4f}" in row
    assert f"run folders: {sweep}/*" in captured.out.replace("\n", "")


@pytest.mark.parametrize("launcher", ["processes", "basic"])
def test_a_job_of_a_multirun_is_the_run_alone(tmp_path: Path, command: Command, launcher: str) -> None:
    words = (*quick(), "seed=3,4", f"hydra/launcher={launcher}")
    assert command("run", "-m", *words, f"run_dir={tmp_path / 'sweep'}") == 0
    assert command("run", *quick("seed=4"), f"run_dir={tmp_path / 'alone'}") == 0
    job, alone = tree(tmp_path / "sweep" / "1"), tree(tmp_path / "alone")
    for file in ("accuracy_matrix.csv", "config.yaml"):
        assert job[file] == alone[file]


@pytest.mark.parametrize("launcher", ["processes", pytest.param("basic", marks=pytest.mark.thorough)])
def test_each_job_says_how_far_it_is_in_whole_lines(tmp_path: Path, launcher: str) -> None:
    """Into a pipe, which all processes share."""
    words = (*quick("benchmark.n_tasks=4", "progress=true"), "model.alpha=1,2", "optimizer.lr=0.1,0.2")
    call = [sys.executable, "-m", "cl_powerprop", "run", "-m", *words, f"hydra/launcher={launcher}", "run_dir=sweep"]
    jobs = ["hydra.launcher.n_jobs=4"] if launcher == "processes" else []
    done = subprocess.run([*call, *jobs], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stderr == ""
    pattern = (
        r"job (\d): naive, alpha ([12]), lr (0\.[12]), seed 0: task (\d)/4 permutation_\d: accuracy \d\.\d{3}"
        r"( \(average \d\.\d{3}\))?, forgetting \d\.\d{3}, capacity 100\.0 %, [\d.]+ s(, [\d.]+ s left)?"
    )
    found = []
    for line in done.stdout.splitlines():
        if "permutation_" in line:
            matched = re.fullmatch(pattern, line)
            assert matched, line
            found.append(matched.groups()[:4])
    assert sorted(found) == [
        (str(job), alpha, lr, str(task))
        for job, (alpha, lr) in enumerate(itertools.product("12", ("0.1", "0.2")))
        for task in range(1, 5)
    ]
    records = [json.loads((tmp_path / "sweep" / str(job) / "run.json").read_text()) for job in range(4)]
    assert [record["job"] for record in records] == [0, 1, 2, 3]


def test_jobs_in_nested_folders_are_in_the_table(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    write_run(sweep / "old" / "run", "packnet")  # no job of this multirun
    words = (*quick(), "optimizer.lr=0.2,0.1", "references=[untrained]", f"references_dir={sweep / 'references'}")
    nested = "hydra.sweep.subdir='lr_${optimizer.lr}/seed_${seed}'"
    assert command("run", "-m", *words, f"run_dir={sweep}", nested) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("│").split("│")][:5] for line in printed.splitlines() if "│" in line]
    assert [row for row in rows if row[0]] == [
        ["0", "lr_0.2/seed_0", "naive", "0.2", "0"],
        ["1", "lr_0.1/seed_0", "naive", "0.1", "0"],
    ]
    assert "validation" in printed


@pytest.mark.parametrize("launcher", ["processes", "basic"])
def test_jobs_whose_run_dir_depends_on_their_options_are_in_the_table(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str], launcher: str
) -> None:
    words = (
        *quick(),
        "optimizer.lr=0.2,0.1",
        f"run_dir='{tmp_path}/n/x${{optimizer.lr}}'",
        f"hydra/launcher={launcher}",
    )
    assert command("run", "-m", *words) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("│").split("│")][:5] for line in printed.splitlines() if "│" in line]
    assert [row for row in rows if row[0]] == [
        ["0", "x0.2/0", "naive", "0.2", "0"],
        ["1", "x0.1/1", "naive", "0.1", "0"],
    ]
    assert f"run folders: {tmp_path}/n/*" in printed.replace("\n", "")
    assert sorted(path.name for path in (tmp_path / "n").iterdir()) == ["x0.1", "x0.2"], (
        "no folder for the default rate"
    )


def test_bars_follow_jobs_to_where_they_say_they_run(tmp_path: Path) -> None:
    config = sweep_config(tmp_path / "x0.5", 2)
    told = tmp_path / "told"
    told.mkdir()
    run = write_run(tmp_path / "x0.1" / "3", "epn", 2, record={"job": 3})
    bars = multirun._JobBars(config, told, set(), Console(file=io.StringIO()))
    bars._look()
    assert not bars._progress.tasks
    (told / "3.path").write_text(str(run))
    bars._look()
    assert [task.description for task in bars._progress.tasks] == ["3: epn, seed 2"]


def test_a_multirun_over_an_existing_one_overwrites_nothing(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", "-m", *quick(), "seed=0,1", f"run_dir={tmp_path / 'sweep'}")
    assert command(*words) == 0
    before = tree(tmp_path / "sweep")
    capsys.readouterr()
    assert command(*words) == 0
    assert tree(tmp_path / "sweep") == before
    assert "0 of 2 jobs are left to run" in capsys.readouterr().out
    assert command(*words, "resume=never") == 2
    assert "never overwritten" in capsys.readouterr().err
    after = tree(tmp_path / "sweep")
    del before["jobs.jsonl"], after["jobs.jsonl"]
    assert after == before


def test_a_job_that_fails_leaves_the_others_readable(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    assert command("run", "-m", *quick(), "optimizer.lr=1e6,0.1", f"run_dir={sweep}") == 1
    captured = capsys.readouterr()
    assert "diverged" in captured.err
    status = [json.loads((sweep / job / "run.json").read_text())["status"] for job in ("0", "1")]
    assert status == ["failed", "complete"]
    assert captured.out.count("average accuracy") == 1, "the table shows the run that was finished"


def test_a_mistake_of_all_jobs_is_told_once(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("run", "-m", *quick(), "seed=0,1", "optimizer.lr=-1", f"run_dir={tmp_path / 'sweep'}") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "optimizer.lr, the learning rate, must be at least 0" in lines[0]


def test_a_fault_outweighs_a_mistake(tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = quick("optimizer.lr=1e6,-1")
    assert command("run", "-m", *words, f"run_dir={tmp_path / 'sweep'}") == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(("threads", "jobs"), [(1, 6), (2, 3), (4, 1), (7, 1), (0, 6)])
def test_as_many_jobs_as_there_are_cores_for(monkeypatch: pytest.MonkeyPatch, threads: int, jobs: int) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 6)
    assert parallel_jobs("cpu", threads) == jobs
    assert parallel_jobs("cuda:1", threads) == 1, "jobs would share the device"


def sweep_config(sweep: Path, n_jobs: int) -> Any:
    hydra = {"sweep": {"dir": str(sweep)}, "launcher": {"n_jobs": n_jobs} if n_jobs else {}}
    return OmegaConf.create({"hydra": hydra, "progress": True})


def write_job(sweep: Path, job: int, **content: Any) -> None:
    folder = sweep / str(job)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(content))


def test_bars_are_named_by_what_differs(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    bars = multirun._JobBars(sweep_config(tmp_path, 2), tmp_path / "told", set(), console)
    write_run(tmp_path / "a" / "one", "epn", 0, alpha=1.0, record={"job": 0})
    bars._look()
    assert [task.description for task in bars._progress.tasks] == ["0: epn, seed 0"]
    write_run(tmp_path / "a" / "two", "epn", 0, alpha=2.0, record={"job": 1})
    write_run(tmp_path / "b", "naive", 1, record={"job": 12})
    bars._look()
    assert [task.description for task in bars._progress.tasks] == [
        *("0: epn, alpha 1, seed 0", "1: epn, alpha 2, seed 0", "12: naive, seed 1")
    ]


@pytest.mark.parametrize("n_jobs", [0, 1, 2])
def test_bars_follow_the_jobs_that_run_in_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_jobs: int
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(multirun, "Console", lambda **_: console)
    monkeypatch.setattr(multirun, "_SECONDS_A_LOOK", 0.01)
    printed: list[list[Path]] = []
    monkeypatch.setattr(multirun, "print_runs", lambda folders: printed.append(list(folders)))
    common = {"strategy": "epn", "n_tasks": 5}
    write_job(tmp_path, 0, **common, seed=7, trained_tasks=5, status="complete")  # of an earlier multirun
    display, config = MultirunDisplay(), sweep_config(tmp_path, n_jobs)
    display.on_multirun_start(config)
    write_job(tmp_path, 2, kind="pruning", status="running")
    write_job(tmp_path, 10, **common, seed=3, trained_tasks=2, status="running")
    time.sleep(0.3)
    pickle.loads(pickle.dumps(display)).on_multirun_start(sweep_config(tmp_path, 0))  # as Hydra sends it to a job
    write_job(tmp_path, 10, **common, seed=3, trained_tasks=4, status="failed")
    display.on_multirun_end(config)
    shown = screen.getvalue()
    if n_jobs == 0:  # of a launcher that has no such option
        assert shown == "", "a job in this process has a display of its own"
    else:
        assert "job 10: epn, seed 3" in shown
        assert "2/5" in shown
        assert "4/5 tasks  failed" in shown[shown.rindex("job 10") :]
        assert "seed 7" not in shown
    assert printed == [[tmp_path / "0", tmp_path / "10"]]


def test_several_seeds_run_at_a_time_by_default() -> None:
    from hydra import compose, initialize_config_module

    compose_config()  # a fresh Hydra
    with initialize_config_module("cl_powerprop.conf", version_base="1.3"):
        config = compose("run", ["device=cpu", "train.threads=1"], return_hydra_config=True)
    assert config.hydra.launcher._target_.endswith("ProcessLauncher")
    assert config.hydra.launcher.n_jobs == joblib.cpu_count()
