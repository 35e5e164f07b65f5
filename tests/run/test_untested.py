"""`evaluation.schedule=never`: all tasks so far are validated, no test data is measured, nothing else changes."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cl_powerprop.analysis.compare import compare
from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.evaluation.plan import EvaluationPlan
from cl_powerprop.experiment import run

TINY = ("data=digits", "benchmark.n_tasks=3", "train.epochs=2", "model.hidden=[20]", "progress=false")


def rows(path: Path, split: str) -> dict[tuple[str, ...], str]:
    with (path / "curves.csv").open(encoding="utf-8") as file:
        keys = ("trained_tasks", "epoch", "step", "eval_task", "metric")
        return {tuple(row[key] for key in keys): row["value"] for row in csv.DictReader(file) if row["split"] == split}


@pytest.mark.parametrize("strategy", ["epn", "naive", "joint"])
def test_no_test_data_is_measured_and_training_is_the_same(tmp_path: Path, strategy: str) -> None:
    options = [*TINY, f"strategy={strategy}"]
    usual = run(options, tmp_path / "usual")
    untested = run([*options, "evaluation.schedule=never"], tmp_path / "untested")

    assert not rows(untested.path, "test")
    assert np.isnan(np.genfromtxt(untested.path / "accuracy_matrix.csv", delimiter=",", skip_header=1)).all()
    assert untested.record["metrics"]["average_accuracy"] is None
    assert untested.record["zero_forgetting_verified"] is None
    own = ("loss", "accuracy")
    assert {key: value for key, value in rows(usual.path, "train").items() if key[-1] in own} == {
        key: value for key, value in rows(untested.path, "train").items() if key[-1] in own
    }
    validated = rows(untested.path, "valid")
    assert rows(usual.path, "valid").items() <= validated.items()
    assert untested.record["metrics"]["validation_accuracy"] == usual.record["metrics"]["validation_accuracy"]


def test_compare_takes_untested_runs(tmp_path: Path) -> None:
    for seed in (0, 1):
        run([*TINY, "evaluation.schedule=never", f"seed={seed}"], tmp_path / "runs" / str(seed))
    compare([str(tmp_path / "runs")], tmp_path / "out", metrics=["validation_accuracy"])
    assert "validation accuracy" in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")


def test_all_tasks_so_far_are_validated() -> None:
    plan = EvaluationPlan(4, "never", tests_unseen=True)
    assert [list(plan.to_validate(task, task)) for task in range(4)] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert not any(map(plan.to_test, range(4)))
    assert not plan.before_training


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["references=[joint]"], "references"),
        (["sparsity=rigl", "strategy=naive", "sparsity.curve=[0.5]"], "sparsity.curve"),
        (["evaluation.every_epochs=1"], "evaluation.every_epochs"),
    ],
)
def test_what_needs_test_data_is_refused(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{named}.*never"):
        compose([*TINY, "evaluation.schedule=never", *overrides]).check()
