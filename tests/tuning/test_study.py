"""The study: no combination twice, the same proposals for the same seed, and only one study in a folder."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from cl_powerprop.errors import InUseError, RunFolderError
from cl_powerprop.launching.job_list import STUDY
from cl_powerprop.run_lock import RunLock
from cl_powerprop.tuning.objectives import parse_objectives
from cl_powerprop.tuning.proposals import combinations
from cl_powerprop.tuning.ranges import Value
from cl_powerprop.tuning.space import Space, parse_space
from cl_powerprop.tuning.study import Study
from cl_powerprop.tuning.study_file import number_of
from cl_powerprop.tuning.tune import tune

pytest.importorskip("optuna")

SPACE = parse_space(["optimizer.lr=tag(log,interval(0.01,1))", "model.alpha=interval(1,3)"])
FEW = parse_space(["train.epochs=range(1,4)", "strategy=choice(epn,naive)"])


def opened(folder: Path, space: Space = SPACE, objective: str = "validation_accuracy", lr: float = 0.1) -> Study:
    settings = {"optimizer.name": "sgd", "lr": lr}
    return Study(folder, space, parse_objectives(objective), settings, seed=3, config=lambda values: str(values))


def test_a_study_that_is_closed_and_opened_proposes_what_it_would_have(tmp_path: Path) -> None:
    def proposals(folder: Path, parts: int) -> list[dict[str, object]]:
        folder.mkdir()
        for _ in range(parts):
            study = opened(folder)
            for _ in range(12 // parts):
                number = study.ask()
                assert number is not None
                study.optuna.tell(number, study.trial(number).params["optimizer.lr"])
        return [trial.params for trial in study.trials]

    whole = proposals(tmp_path / "whole", 1)
    assert whole == proposals(tmp_path / "parts", 4)
    assert len({tuple(each.values()) for each in whole}) == 12


def test_no_combination_is_tried_twice_and_all_are_tried(tmp_path: Path) -> None:
    study = opened(tmp_path, FEW)
    asked = []
    while (number := study.ask()) is not None:
        asked.append(tuple(study.trial(number).params.values()))
        study.optuna.tell(number, 0.5)
    assert sorted(asked) == [(epochs, name) for epochs in (1, 2, 3) for name in ("epn", "naive")]
    assert len(study.trials) == 6


def test_no_config_is_tried_twice(tmp_path: Path) -> None:
    """As of a part that does not have an option of another one; numbers of trials have no gaps all the same."""
    space = parse_space(["strategy=choice(naive,epn,ewc)", "epn.gamma=interval(0.9,0.99)"])
    finite = parse_space(["epn.gamma=range(0.1,0.9,0.1)", "strategy=choice(naive,epn,ewc)"])

    def config(values: dict[str, Value]) -> str:
        return str(values if values["strategy"] == "epn" else values["strategy"])

    for name, each, count in (("infinite", space, 9), ("finite", finite, 10)):
        (tmp_path / name).mkdir()
        study = Study(tmp_path / name, each, parse_objectives("validation_accuracy"), {}, seed=1, config=config)
        for expected in range(count):
            assert study.ask() == expected
            study.optuna.tell(expected, 0.5)
        assert study.ask() is None or name == "infinite"
        names = [trial.params["strategy"] for trial in study.trials]
        assert (names.count("naive"), names.count("ewc")) == (1, 1)
        assert len({config(trial.params) for trial in study.trials}) == len(names)


def test_no_new_config_ends_the_search(tmp_path: Path) -> None:
    study = Study(tmp_path, SPACE, parse_objectives("validation_accuracy"), {}, seed=1, config=lambda values: "same")
    assert [study.ask(), study.ask()] == [0, None]


def test_combinations_are_all_met_once() -> None:
    for words in (["train.epochs=range(1,8)"], ["train.epochs=range(1,101)", "model.alpha=1,2,3"], ["model.alpha=1"]):
        space = parse_space([*words, "strategy=choice(epn,naive)"])
        met = [tuple(values.values()) for values in combinations(space, 3, 2)]
        assert len(set(met)) == len(met) == space.size


def test_a_trial_that_was_cut_off_is_found_again(tmp_path: Path) -> None:
    study = opened(tmp_path)
    first, second = study.ask(), study.ask()
    study.optuna.tell(first, 0.5)
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
    (tmp_path / STUDY).write_bytes(b"no database" * 100)
    with pytest.raises(RunFolderError, match=r"study\.db cannot be read"):
        opened(tmp_path)
    (tmp_path / STUDY).unlink()
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="never overwritten"):
        opened(tmp_path)
    (tmp_path / STUDY).touch()  # as a power cut may leave it
    with pytest.raises(RunFolderError, match="never overwritten"):
        opened(tmp_path)
    (tmp_path / "other.txt").unlink()
    assert opened(tmp_path).trials == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / STUDY).symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(RunFolderError, match="is a link"):
        opened(tmp_path / "study")
    assert not (tmp_path / "elsewhere.db").exists()


def test_one_command_at_a_time_has_the_study(tmp_path: Path) -> None:
    with RunLock(tmp_path).hold(), pytest.raises(InUseError):
        tune(["data=digits", "optimizer.lr=interval(0.1,1)", f"run_dir={tmp_path}"], 1, "validation_accuracy")
    assert not (tmp_path / STUDY).exists()


def test_what_no_study_of_ours_holds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    study = opened(tmp_path / "whole")
    study.begin_with({"optimizer.lr": 0.5, "model.alpha": 2.0})
    study.optuna.tell(0, 0.5)
    assert [trial.values for trial in opened(tmp_path / "whole").trials] == [[0.5]]
    for number, change in enumerate(
        [
            "UPDATE trial_params SET param_value = 7",
            "UPDATE trial_params SET distribution_json = 'x'",
            "UPDATE trial_params SET param_name = '../lr' WHERE param_name = 'optimizer.lr'",
            "UPDATE trial_values SET value_type = 'INF_POS', value = NULL",
            "DELETE FROM trial_values",
            "UPDATE trials SET state = 'NONE'",
            "UPDATE trials SET state = 'WAITING'",
            "UPDATE trials SET state = 'PRUNED'",
            """INSERT INTO trial_user_attributes (trial_id, "key", value_json) VALUES (1, 'again', '"../../x"')""",
            """INSERT INTO trial_user_attributes (trial_id, "key", value_json) VALUES (1, 'again', '7')""",
            """INSERT INTO trial_user_attributes (trial_id, "key", value_json) VALUES (1, 'error', '3')""",
            """INSERT INTO trial_intermediate_values VALUES (1, 1, -5, 0.5, 'FINITE')""",
            "UPDATE trial_values SET value = NULL",
            "UPDATE trials SET number = 99999999",
            "UPDATE study_directions SET direction = 'MINIMIZE'",
            "INSERT INTO study_directions (direction, study_id, objective) VALUES ('MINIMIZE', 1, 1)",
            "UPDATE studies SET study_name = 'other'; UPDATE studies SET study_name = 'tune'; DROP TABLE trial_values",
        ]
    ):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        with contextlib.closing(sqlite3.connect(folder / STUDY)) as database:
            database.executescript(change)
        with pytest.raises(RunFolderError, match=r"study\.db") as caught:
            opened(folder)
        assert "\n" not in str(caught.value)


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    for number, made in enumerate(["CREATE TABLE mine (x)", "CREATE VIEW studies AS SELECT 1"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with contextlib.closing(sqlite3.connect(folder / STUDY)) as database:
            database.executescript(made)
        before = (folder / STUDY).read_bytes()
        with pytest.raises(RunFolderError, match="another program's"):
            opened(folder)
        assert (folder / STUDY).read_bytes() == before
    for name in ("study.db", "study.db-journal", "study.db-wal"):
        folder = tmp_path / name
        folder.mkdir()
        opened(folder)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        with pytest.raises(RunFolderError, match="no file"):
            opened(folder)


def test_a_failed_trial_that_is_tried_again_keeps_its_number(tmp_path: Path) -> None:
    study = opened(tmp_path, FEW)
    study.begin_with({"train.epochs": 1, "strategy": "epn"})
    first = study.ask()
    assert first == 1
    study.fail(0, "no room")
    study.optuna.tell(first, 0.4)
    (failed,) = study.failed
    study.retry(failed)
    again = opened(tmp_path, FEW)
    assert again.cut_off() == [0]
    assert [number_of(trial) for trial in again.trials] == [0, 1]
    assert again.trial(0).params == failed.params
    assert again.of_defaults is not None
    again.optuna.tell(again.trial(0).number, 0.6)
    assert [number_of(trial) for trial in again.best()] == [0]
    assert again.ask() == 3, "the second entry of trial 0 has taken a number"
    assert again.failed == []


def test_proposals_do_not_depend_on_when_a_study_was_killed(tmp_path: Path) -> None:
    def proposals(folder: Path, killed_before: int) -> list[dict[str, object]]:
        folder.mkdir()
        study = opened(folder)
        for index in range(14):
            if index == killed_before:
                study = opened(folder)
                assert study.cut_off() == []
            number = study.ask()
            assert number is not None
            trial = study.trial(number)
            study.optuna.tell(trial.number, abs(trial.params["optimizer.lr"] - 0.3))
        return [trial.params for trial in study.trials]

    assert proposals(tmp_path / "whole", -1) == proposals(tmp_path / "killed", 12)
