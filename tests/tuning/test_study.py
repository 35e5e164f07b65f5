"""The study: no combination twice, the same proposals for the same seed, and only one study in a folder."""

from pathlib import Path

import pytest

from cl_powerprop.errors import InUseError, RunFolderError
from cl_powerprop.run_lock import RunLock
from cl_powerprop.tuning.objectives import parse_objectives
from cl_powerprop.tuning.space import Space, parse_space
from cl_powerprop.tuning.study import FILE, Study
from cl_powerprop.tuning.tune import tune

pytest.importorskip("optuna")

SPACE = parse_space(["optimizer.lr=tag(log,interval(0.01,1))", "model.alpha=interval(1,3)"])
FEW = parse_space(["train.epochs=range(1,4)", "strategy=choice(epn,naive)"])


def opened(folder: Path, space: Space = SPACE, objective: str = "validation_accuracy", lr: float = 0.1) -> Study:
    return Study(folder, space, parse_objectives(objective), {"optimizer.name": "sgd", "lr": lr}, seed=3)


def test_a_study_that_is_closed_and_opened_proposes_what_it_would_have(tmp_path: Path) -> None:
    def proposals(folder: Path, parts: int) -> list[dict[str, object]]:
        folder.mkdir()
        for _ in range(parts):
            study = opened(folder)
            for _ in range(12 // parts):
                number = study.ask()
                assert number is not None
                study.optuna.tell(number, study.values(number)["optimizer.lr"])
        return [trial.params for trial in study.trials]

    whole = proposals(tmp_path / "whole", 1)
    assert whole == proposals(tmp_path / "parts", 4)
    assert len({tuple(each.values()) for each in whole}) == 12


def test_no_combination_is_tried_twice_and_all_are_tried(tmp_path: Path) -> None:
    study = opened(tmp_path, FEW)
    asked = []
    while (number := study.ask()) is not None:
        asked.append(tuple(study.values(number).values()))
        study.optuna.tell(number, 0.5)
    assert sorted(asked) == [(epochs, name) for epochs in (1, 2, 3) for name in ("epn", "naive")]
    assert len(study.trials) == 6


def test_a_trial_that_was_cut_off_is_found_again(tmp_path: Path) -> None:
    study = opened(tmp_path)
    first, second = study.ask(), study.ask()
    study.optuna.tell(first, 0.5)
    study.optuna.ask()  # killed before its values were drawn
    again = opened(tmp_path)
    assert again.cut_off() == [second]
    assert [trial.number for trial in again.trials] == [first, second]


def test_the_front_is_what_no_other_trial_beats(tmp_path: Path) -> None:
    study = opened(tmp_path, objective="validation_accuracy,-capacity_used")
    points = [(0.9, 0.5), (0.8, 0.2), (0.7, 0.4), (0.95, 0.9), (0.8, 0.3)]
    for values in points:
        study.optuna.tell(study.ask(), values)
    beaten = [any(a >= b and c <= d and (a, c) != (b, d) for a, c in points) for b, d in points]
    front = [point for point, is_beaten in zip(points, beaten, strict=True) if not is_beaten]
    assert [tuple(trial.values) for trial in study.best()] == sorted(front, reverse=True)


def test_half_of_the_trials_go_on_after_a_task(tmp_path: Path) -> None:
    study = opened(tmp_path)
    reports = [0.5, 0.6, 0.4, 0.7, 0.65, 0.3]
    went_on, so_far = [], []
    for accuracy in reports:
        trial = study.optuna.ask(study._distributions)
        trial.report(accuracy, step=1)
        so_far.append(accuracy)
        kept = sorted(so_far, reverse=True)[: max(1, len(so_far) // 2)]
        went_on.append(not trial.should_prune())
        assert went_on[-1] == (accuracy >= kept[-1])
        study.optuna.tell(trial, accuracy)


def test_another_study_is_refused_and_named(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path)
    with pytest.raises(RunFolderError, match=r"objective was validation_accuracy and is -capacity_used"):
        opened(tmp_path, objective="capacity_used")
    with pytest.raises(RunFolderError, match=r"lr was 0\.1 and is 0\.2"):
        opened(tmp_path, lr=0.2)
    with pytest.raises(RunFolderError, match=r"train\.epochs \(its range\) was not given"):
        opened(tmp_path, FEW)


def test_a_file_that_is_no_study_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(RunFolderError, match=r"study\.db cannot be read"):
        opened(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="never overwritten"):
        opened(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / FILE).symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(RunFolderError, match="is a link"):
        opened(tmp_path / "study")
    assert not (tmp_path / "elsewhere.db").exists()


def test_one_command_at_a_time_has_the_study(tmp_path: Path) -> None:
    with RunLock(tmp_path).hold(), pytest.raises(InUseError):
        tune(["data=digits", "optimizer.lr=interval(0.1,1)", f"run_dir={tmp_path}"], 1, "validation_accuracy")
    assert not (tmp_path / FILE).exists()


def test_values_that_are_in_no_range_are_refused(tmp_path: Path) -> None:
    study = opened(tmp_path)
    number = study.ask()
    assert number is not None
    study.space = FEW
    with pytest.raises(RunFolderError, match="in no range"):
        study.values(number)
