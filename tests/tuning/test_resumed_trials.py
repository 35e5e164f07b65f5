"""`cl-powerprop resume` leaves the trials of a study to `cl-powerprop tune`, which judges them."""

import json
from pathlib import Path

import pytest

from cl_powerprop.launching.job_list import STUDY
from cl_powerprop.resume import resume


def test_trials_are_left_to_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "study"
    trial = study / "4"
    trial.mkdir(parents=True)
    (study / STUDY).touch()
    (trial / "config.yaml").touch()
    (trial / "run.json").write_text(json.dumps({"status": "interrupted"}))
    before = {path: path.read_bytes() for path in trial.iterdir()}
    (problem,) = resume([study])
    assert problem.endswith("it is a trial of study, with which the same `cl-powerprop tune` goes on")
    monkeypatch.chdir(trial)
    assert len(resume(["."])) == 1
    assert {path: path.read_bytes() for path in trial.iterdir()} == before
