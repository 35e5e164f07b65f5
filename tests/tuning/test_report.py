"""What a study says and writes, from trials that did not run."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.launching.engine import Outcome
from cl_powerprop.tuning import figures, report
from cl_powerprop.tuning.objectives import parse_objectives
from cl_powerprop.tuning.recipe import write_recipe
from cl_powerprop.tuning.search import Search, _Trials
from cl_powerprop.tuning.space import parse_space
from cl_powerprop.tuning.study import Study
from cl_powerprop.workers import Workers

pytest.importorskip("optuna")

SPACE = parse_space(["optimizer.lr=interval(0.1,1)"])


def opened(folder: Path, objective: str) -> Study:
    return Study(folder, SPACE, parse_objectives(objective), {}, seed=3, config=lambda values: str(values))


def test_an_objective_without_a_value_ends_the_study_at_once(tmp_path: Path) -> None:
    study = opened(tmp_path, "validation_accuracy,-training_flops")
    for lr in (0.5, 0.7):
        study.begin_with({"optimizer.lr": lr})
    search = Search([], 3, "validation_accuracy,-training_flops", prunes=False)
    trials = _Trials(search, study, Workers(tmp_path, 0))
    calls = trials.calls()
    assert [number for number, _ in itertools.islice(calls, 2)] == [0, 1]
    study.fail(0, "the run has no training_flops; choose another objective")
    with pytest.raises(ConfigurationError, match=r"trial 0: lr 0\.5: the run has no training_flops; choose another"):
        trials.ended(0, Outcome(0, result=True))
    assert [*calls] == [], "no other trial begins"
    study.fail(1, "the run has no training_flops; choose another objective")
    trials.ended(1, Outcome(1, result=True))  # which is told once
    assert not trials.are_done


def test_settings_without_a_value_are_no_end_if_others_have_one(tmp_path: Path) -> None:
    study = opened(tmp_path, "validation_accuracy,-training_flops")
    for lr in (0.5, 0.7):
        study.begin_with({"optimizer.lr": lr})
    trials = _Trials(Search([], 2, "", prunes=False), study, Workers(tmp_path, 0))
    assert [number for number, _ in trials.calls()] == [0, 1]
    study.optuna.tell(0, (0.5, 1e6))
    trials.ended(0, Outcome(0, result=False))
    study.fail(1, "the run has no training_flops; choose another objective")
    assert not trials.are_done
    trials.ended(1, Outcome(1, result=True))
    assert trials.are_done


def test_seconds_of_short_runs_are_not_0_in_a_table(tmp_path: Path) -> None:
    study = opened(tmp_path, "seconds.total")
    study.begin_with({"optimizer.lr": 0.5})
    study.optuna.tell(0, 0.31)
    assert report._shown(study.trial(0), study.objectives) == ["0.3 s"]


def test_the_command_that_is_printed_knows_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert report._command() == "cl-powerprop run"
    monkeypatch.setattr(report, "imported_modules", lambda: ["mine", "my parts.py"])
    assert report._command() == "cl-powerprop --import mine --import 'my parts.py' run"


@pytest.mark.parametrize(("objective", "lines"), [("-capacity_used", 1), ("-capacity_used,-seconds.total", 0)])
def test_a_line_joins_the_front_of_two_objectives_only(tmp_path: Path, objective: str, lines: int) -> None:
    study = opened(tmp_path, f"validation_accuracy,{objective}")
    for number in range(3):
        study.begin_with({"optimizer.lr": 0.2 + number / 10})
        study.optuna.tell(number, [0.5 + number / 10, 0.5 + number / 10, 0.1][: len(study.objectives)])
    figure: Any = figures._front(study)
    assert isinstance(figure, Figure)
    drawn = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert len(drawn) == lines


def test_a_recipe_leaves_open_what_follows_from_the_epochs(tmp_path: Path) -> None:
    words = ["data=digits", "strategy=packnet", "train.epochs=1", "optimizer.lr=0.3"]
    write_recipe(tmp_path, "open", compose(words), "found")
    write_recipe(tmp_path, "given", compose([*words, "train.epochs=4", "strategy.retrain_epochs=1"]), "found")
    found, given = (
        yaml.safe_load((tmp_path / f"configs/experiment/{name}.yaml").read_text()) for name in ("open", "given")
    )
    assert (found["train"], found["optimizer"]) == ({"epochs": 1}, {"lr": 0.3})
    assert "strategy" not in found
    assert given["strategy"] == {"retrain_epochs": 1}
