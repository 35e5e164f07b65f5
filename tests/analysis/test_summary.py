"""The table of runs that is printed when they have finished."""

import itertools
from pathlib import Path

import pytest

from cl_powerprop.analysis.summary import print_runs

from .folders import write_run


def test_metrics_that_no_run_has_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_runs([write_run(tmp_path / "a", "naive"), write_run(tmp_path / "b", "epn", masked=True)])
    printed = capsys.readouterr().out
    for part in (
        "average accuracy",
        "average forgetting",
        "0.9000",
        "30.0 %",
        "100.0 %",
        "verified to the bit",
        "10 s",
    ):
        assert part in printed
    for part in ("scenario", "transfer", "tasks identified", "intransigence"):
        assert part not in printed
    assert f"run folders: {tmp_path}/*" in printed


def test_metrics_that_some_run_has_are_shown_and_messages_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"scenario": "class", "messages": ["be careful"], "status": "failed", "error": "loss is nan"}
    print_runs([write_run(tmp_path / "a", "epn", metrics={"task_identification": 0.75}, record=record)])
    printed = capsys.readouterr().out
    for part in ("scenario", "class", "identified", "75.0 %"):
        assert part in printed
    assert "epn, seed 0: be careful\nepn, seed 0: failed: loss is nan\n" in printed
    assert printed.endswith(f"run folder: {tmp_path / 'a'}\n")


def test_a_run_that_failed_early_has_no_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_runs([write_run(tmp_path / "a", status="failed", record={"metrics": {}, "zero_forgetting_verified": None})])
    assert "naive, seed 0: failed\n" in capsys.readouterr().out


def test_confused_tasks_are_not_called_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inferred = {"scenario": "class"}
    right = write_run(tmp_path / "a", "epn", metrics={"task_identification": 1.0}, masked=True, record=inferred)
    print_runs([right])
    assert "tasks confused" not in capsys.readouterr().out
    print_runs([right, write_run(tmp_path / "b", metrics={"task_identification": 0.6}, masked=True, record=inferred)])
    printed = capsys.readouterr().out
    assert "note: tasks were confused, not forgotten: each task's logits are" in printed
    assert "tasks confused" not in next(line for line in printed.splitlines() if "100.0 %" in line)


def rows_of(printed: str) -> list[list[str]]:
    """The cells of a printed table."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line]


def test_the_table_shows_what_differs_and_not_what_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        write_run(
            tmp_path / str(job),
            "epn",
            alpha=alpha,
            config={"optimizer.lr": lr},
            metrics={"validation_accuracy": 0.5 + job / 10},
            record={"job": job},
        )
        for job, (alpha, lr) in enumerate(itertools.product((1.0, 2.0), (0.1, 0.2)))
    ]
    print_runs(folders)
    printed = capsys.readouterr().out
    rows = rows_of(printed)
    assert [row[:5] for row in rows] == [
        ["0", "epn", "1", "0.1", "0"],
        ["1", "epn", "1", "0.2", "0"],
        ["2", "epn", "2", "0.1", "0"],
        ["3", "epn", "2", "0.2", "0"],
    ]
    for heading in ("job", "strategy", "alpha", "lr", "seed", "validation"):
        assert heading in printed
    for value in ("sgd", "mlp", "gamma"):
        assert value not in printed
    assert [next(cell for cell in row if cell.startswith(f"0.{5 + job}")) for job, row in enumerate(rows)] == [
        "0.5000",
        "0.6000",
        "0.7000",
        "0.8000",
    ]


def test_jobs_in_nested_folders_have_number_and_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        write_run(tmp_path / "alpha=2" / "seed=1", "epn", 1, alpha=2.0, record={"job": 0, "messages": ["look"]}),
        write_run(tmp_path / "alpha=1" / "seed=1", "epn", 1, alpha=1.0, record={"job": 1}),
    ]
    print_runs(folders)
    printed = capsys.readouterr().out
    assert [row[:3] for row in rows_of(printed)] == [["0", "alpha=2/seed=1", "epn"], ["1", "alpha=1/seed=1", "epn"]]
    assert "job 0: epn, alpha 2, seed 1: look" in printed
    assert f"run folders: {tmp_path}/*" in printed


def test_many_settings_that_differ_leave_room_for_the_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {f"option{number}": number for number in range(20)}
    for job in (0, 1):
        folder = write_run(tmp_path / str(job), "epn", alpha=1.0 + job)
        with (folder / "config.yaml").open("a") as file:
            file.write("extra:\n" + "".join(f"  {key}: {value * job + job}\n" for key, value in options.items()))
    print_runs([tmp_path / "0", tmp_path / "1"])
    printed = capsys.readouterr().out
    assert [row[:4] for row in rows_of(printed)] == [["0", "epn", "1", "0"], ["1", "epn", "2", "0"]]


def test_settings_without_a_column_are_in_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / str(index), "epn", index) for index in (0, 1)]
    for index, run in enumerate(runs):
        more = "".join(f"  option_{number}: {index + 1}\n" for number in range(9))
        (run / "config.yaml").write_text((run / "config.yaml").read_text() + f"train:\n{more}")
    print_runs(runs)
    printed = " ".join(capsys.readouterr().out.split())
    assert "note: the runs also differ in train.option_1 (1, 2), train.option_2 (1, 2)" in printed
    assert "train.option_8 (1, 2)" in printed


def test_folders_given_in_different_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "a")
    print_runs([Path("runs/a"), write_run(tmp_path / "b", seed=1)])
    assert [row[0] for row in rows_of(capsys.readouterr().out)] == ["runs/a", "b"]
    print_runs([Path("runs/a"), Path("b")])
    assert [row[0] for row in rows_of(capsys.readouterr().out)] == ["runs/a", "b"]


def test_a_damaged_config_costs_only_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_run(tmp_path / str(job), "epn", job) for job in (0, 1)]
    (folders[0] / "config.yaml").write_text("[")
    print_runs(folders)
    assert len(rows_of(capsys.readouterr().out)) == 2
