import json
from pathlib import Path

import pytest

from .conftest import TINY, Command, tree

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


def test_a_job_of_a_multirun_is_the_run_alone(tmp_path: Path, command: Command) -> None:
    assert command("run", "-m", *quick(), "seed=3,4", f"run_dir={tmp_path / 'sweep'}") == 0
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
