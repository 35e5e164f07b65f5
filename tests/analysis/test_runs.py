"""Run folders as tables; damaged ones are reported and left out."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cl_powerprop.analysis import load_runs
from cl_powerprop.errors import RunFolderError

from .folders import forgetful, write_run, write_sweep


def test_all_tables_of_a_sweep(tmp_path: Path) -> None:
    loaded = load_runs(write_sweep(tmp_path / "sweep"))
    assert loaded.problems == []
    assert len(loaded.runs) == 9
    row = loaded.runs.loc["epn-2"]
    assert (row["strategy"], row["alpha"], row["seed"], row["optimizer.lr"]) == ("epn", 2.0, 2, 0.1)
    assert row["average_accuracy"] == pytest.approx(0.94)
    assert row["seconds.total"] == 12.0
    matrix = loaded.accuracy[loaded.accuracy["run"] == "naive-1"].pivot_table(
        index="trained_tasks", columns="eval_task", values="accuracy"
    )
    assert np.allclose(matrix, forgetful(seed=1), equal_nan=True)
    assert set(loaded.curves["run"]) == set(loaded.runs.index)
    assert set(loaded.capacity["run"]) == set(loaded.reuse["run"]) == set(loaded.overlap["run"])
    assert not any(name.startswith("naive") for name in loaded.capacity["run"])
    assert "run_dir" not in loaded.runs


def test_nested_and_repeated_paths(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a" / "deep")
    write_run(tmp_path / "b" / "one")
    write_run(tmp_path / "b" / ".partial" / "two")
    loaded = load_runs([tmp_path, tmp_path / "b"])
    assert len(loaded.runs) == 10
    assert "b/one" in loaded.runs.index
    assert len(load_runs(tmp_path / "b" / "one").runs) == 1
    assert load_runs(tmp_path / "b" / "one").runs.index.tolist() == ["one"]


def test_the_present_name_of_the_benchmark_and_the_columns_that_are_metrics(tmp_path: Path) -> None:
    write_run(tmp_path / "old", record={"benchmark": "permuted_mnist"}, metrics={"plasticity": 0.5})
    write_run(tmp_path / "other", record={"benchmark": "somebody's"})
    loaded = load_runs(tmp_path)
    assert loaded.runs["benchmark"].tolist() == ["permuted", "somebody's"]
    assert "benchmark.name" not in loaded.runs
    assert loaded.metrics == [
        *("average_accuracy", "average_forgetting", "learning_accuracy", "forward_transfer", "capacity_used"),
        "plasticity",
    ]
    assert loaded.runs.loc["old", "plasticity"] == 0.5
    assert loaded.select(["other"]).metrics == loaded.metrics


def test_jobs_of_a_multirun_come_in_their_order(tmp_path: Path) -> None:
    for job in (0, 1, 2, 10):
        write_run(tmp_path / str(job), seed=job)
    assert load_runs(tmp_path).runs.index.tolist() == ["0", "1", "2", "10"]


DAMAGES = {
    "run.json cut": (lambda run: (run / "run.json").write_text('{"schema'), "run.json is damaged"),
    "run.json no object": (lambda run: (run / "run.json").write_text("[]"), "run.json is damaged"),
    "keys missing": (
        lambda run: (run / "run.json").write_text('{"schema_version": 1, "strategy": "epn"}'),
        "it has no",
    ),
    "other schema": (lambda run: _edit(run, schema_version=2), "schema version 2"),
    "matrix cut": (lambda run: _cut(run / "accuracy_matrix.csv", 40), "accuracy_matrix.csv is damaged"),
    "matrix missing": (lambda run: (run / "accuracy_matrix.csv").unlink(), "accuracy_matrix.csv is damaged"),
    "matrix of text": (lambda run: (run / "accuracy_matrix.csv").write_text("a,b,c\nx,,\n,,\n,,\n"), "is damaged"),
    "config missing": (lambda run: (run / "config.yaml").unlink(), "config.yaml cannot be read"),
    "config damaged": (lambda run: (run / "config.yaml").write_text("a: [1"), "config.yaml cannot be read"),
    "config a list": (lambda run: (run / "config.yaml").write_text("- a"), "config.yaml is damaged"),
    "pruning": (
        lambda run: (run / "run.json").write_text('{"schema_version": 1, "alphas": [1]}'),
        "not a task sequence",
    ),
}


def _write(run: Path, **content: object) -> None:
    (run / "run.json").write_text(json.dumps(content))


def _edit(run: Path, **changes: object) -> None:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content | changes))


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_reported_in_one_line_and_the_others_are_loaded(tmp_path: Path, name: str) -> None:
    write_sweep(tmp_path)
    damage, reason = DAMAGES[name]
    damage(tmp_path / "naive-1")
    loaded = load_runs(tmp_path)
    assert len(loaded.runs) == 8
    (problem,) = loaded.problems
    assert reason in problem
    assert problem.startswith("naive-1: ")
    assert "\n" not in problem


@pytest.mark.parametrize("file", ["curves.csv", "capacity.csv", "reuse.csv", "mask_overlap.csv", "weights.csv"])
@pytest.mark.parametrize("content", ["", "a,b\n1,2\n"])
def test_a_damaged_tidy_file_is_left_out_and_its_run_stays(tmp_path: Path, file: str, content: str) -> None:
    write_sweep(tmp_path)
    (tmp_path / "epn-0" / file).write_text(content)
    loaded = load_runs(tmp_path)
    assert len(loaded.runs) == 9
    (problem,) = loaded.problems
    assert file in problem
    assert "left out" in problem


def test_a_line_cut_in_the_middle_is_noticed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "epn", masked=True)
    _cut(run / "capacity.csv", len((run / "capacity.csv").read_bytes()) - 5)
    assert "capacity.csv is damaged" in load_runs(run).problems[0]


def test_a_run_that_has_just_begun_is_loaded(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="running")
    for name in ("accuracy_matrix.csv", "curves.csv", "weights.csv"):
        (run / name).unlink()
    assert load_runs(run).runs.loc["run", "status"] == "running"


def test_paths_without_a_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, reason in (("empty", "holds no run"), ("absent", "does not exist"), ("file", "is not a folder")):
        with pytest.raises(RunFolderError, match=reason):
            load_runs(tmp_path / name)
    write_run(tmp_path / "good")
    loaded = load_runs([tmp_path / "empty", tmp_path / "good"])
    assert len(loaded.runs) == 1
    assert "holds no run" in loaded.problems[0]
    with pytest.raises(RunFolderError, match="no run folder was given"):
        load_runs([])
    write_run(tmp_path / "bad")
    (tmp_path / "bad" / "run.json").write_text("{")
    with pytest.raises(RunFolderError, match="no run could be read"):
        load_runs(tmp_path / "bad")


def test_loading_is_linear(tmp_path: Path) -> None:
    """Twenty times the runs take about twenty times as long: counted in bytes, because times vary."""
    write_run(tmp_path / "few" / "0", "epn", masked=True)
    for index in range(1, 6):
        shutil.copytree(tmp_path / "few" / "0", tmp_path / "few" / str(index))
    for index in range(120):
        shutil.copytree(tmp_path / "few" / "0", tmp_path / "many" / str(index))
    parsed: list[int] = []
    original = pd.read_csv

    def counted(content: io.BytesIO, **options: Any) -> pd.DataFrame:
        parsed.append(len(content.getvalue()))
        return original(content, **options)  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pd, "read_csv", counted)
        load_runs(tmp_path / "few")
        few = sum(parsed)
        parsed.clear()
        load_runs(tmp_path / "many")
    assert few > 0
    assert sum(parsed) <= 20 * few
