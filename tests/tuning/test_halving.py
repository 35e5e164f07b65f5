"""Successive halving: the better half goes on, judged by the same reports whenever it is asked."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from cl_powerprop.errors import PrunedError
from cl_powerprop.tuning.halving import can_prune, halving, is_in_better_half, is_judged_after
from cl_powerprop.tuning.objectives import parse_objectives
from cl_powerprop.tuning.study_file import DEFAULTS, open_study

pytest.importorskip("optuna")

REPORTS = [0.5, 0.6, 0.4, 0.7, 0.65, 0.3, 0.6, 0.66]


def test_the_rule_is_that_of_optuna(tmp_path: Path) -> None:
    import optuna

    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for index, accuracy in enumerate(REPORTS):
        trial = study.ask()
        trial.report(accuracy, step=1)
        assert is_in_better_half(accuracy, REPORTS[:index]) == (not trial.should_prune())
        study.tell(trial, accuracy)
    assert [tasks for tasks in range(1, 20) if is_judged_after(tasks)] == [1, 2, 4, 8, 16]


def results(accuracies: list[float]) -> SimpleNamespace:
    validation = dict(enumerate(accuracies))
    return SimpleNamespace(evaluations=SimpleNamespace(validation=validation), trained_tasks=len(accuracies))


def test_a_trial_is_judged_by_its_mean_over_the_tasks_so_far(tmp_path: Path) -> None:
    study = open_study(tmp_path, parse_objectives("validation_accuracy"))
    for _ in range(3):
        study.ask()
    halving(study, 0)(results([0.8]))
    halving(study, 0)(results([0.8, 0.6]))
    halving(study, 1)(results([0.9]))
    for _ in range(2):  # as after a kill just then
        with pytest.raises(PrunedError, match=r"0\.6500 is in the worse half"):
            halving(study, 1)(results([0.9, 0.4]))
    halving(study, 2)(results([0.1, 0.1, 0.1]))  # not after three tasks
    assert study.get_trials()[2].intermediate_values == {3: pytest.approx(0.1)}
    assert study.get_trials()[1].intermediate_values == {1: 0.9, 2: 0.65}


def test_the_defaults_are_never_pruned(tmp_path: Path) -> None:
    study = open_study(tmp_path, parse_objectives("validation_accuracy"))
    good, poor = study.ask(), study.ask()
    poor.set_user_attr(DEFAULTS, True)
    halving(study, good.number)(results([0.9]))
    halving(study, poor.number)(results([0.1]))
    assert study.get_trials()[1].intermediate_values == {1: 0.1}


def test_only_accuracy_alone_is_judged() -> None:
    assert can_prune(parse_objectives("validation_accuracy"))
    assert not can_prune(parse_objectives("validation_accuracy,-capacity_used"))
    assert not can_prune(parse_objectives("capacity_used"))
