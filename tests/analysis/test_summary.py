"""The table of runs that is printed when they have finished."""

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
    assert "naive, seed 0: failed: None" in capsys.readouterr().out
