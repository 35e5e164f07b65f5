import io
import json
import pickle
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


def test_a_multirun_over_an_existing_one_overwrites_nothing(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", "-m", *quick(), "seed=0,1", f"run_dir={tmp_path / 'sweep'}")
    assert command(*words) == 0
    before = tree(tmp_path / "sweep")
    capsys.readouterr()
    assert command(*words) == 2
    assert "never overwritten" in capsys.readouterr().err
    after = tree(tmp_path / "sweep")
    assert {name: after[name] for name in before if name != "multirun.yaml"} == {
        name: content for name, content in before.items() if name != "multirun.yaml"
    }


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


def test_a_multirun_of_the_pruning_experiment_ends_without_a_warning(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    sweep = tmp_path / "sweep"
    words = ("pruning.alphas=[1]", "pruning.lrs=[0.1]", "pruning.seeds=[0]", "pruning.densities=[1.0]")
    code = command(
        *("run", "-m", "experiment=mnist_pruning", "data=mnist5k", "progress=false", *words),
        *("pruning.steps=5,6", f"run_dir={sweep}"),
    )
    assert code == 0
    assert [str(warning.message) for warning in recwarn if "allback" in str(warning.message)] == []
    assert len(list(sweep.glob("*/pruning.csv"))) == 2


def test_a_mistake_of_all_jobs_is_told_once(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("run", "-m", *quick(), "seed=0,1", "optimizer.lr=-1", f"run_dir={tmp_path / 'sweep'}") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "Invalid learning rate" in lines[0]


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
    hydra = {"sweep": {"dir": str(sweep)}, "launcher": {"n_jobs": n_jobs}}
    return OmegaConf.create({"hydra": hydra, "progress": True})


def write_job(sweep: Path, job: int, **content: Any) -> None:
    folder = sweep / str(job)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(content))


@pytest.mark.parametrize("n_jobs", [1, 2])
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
    pickle.loads(pickle.dumps(display)).on_multirun_start(sweep_config(tmp_path, 1))  # as Hydra sends it to a job
    write_job(tmp_path, 10, **common, seed=3, trained_tasks=4, status="failed")
    display.on_multirun_end(config)
    shown = screen.getvalue()
    if n_jobs == 1:
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
    assert config.hydra.launcher._target_.endswith("JoblibLauncher")
    assert config.hydra.launcher.n_jobs == joblib.cpu_count()
