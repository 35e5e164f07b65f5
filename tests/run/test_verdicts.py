"""What a run says of itself: whether a task learned nothing, and whether anything was forgotten."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cl_powerprop import Results
from cl_powerprop.analysis.compare import compare
from cl_powerprop.experiment import run
from cl_powerprop.record import Facts
from cl_powerprop.results.evaluations import Evaluations
from cl_powerprop.results.task_line import task_line
from cl_powerprop.run_folder import RunFolder
from cl_powerprop.strategies.base import TaskReport
from cl_powerprop.training.meters import EvaluationMeter, Measured

from .conftest import compose_config

DIGITS = ("data=digits", "model.hidden=[16]", "train.epochs=2", "progress=false")


def judged(folder: Path, trained: Measured, tested: Measured | None) -> list[int]:
    """The diverged tasks of a run of one task."""
    results = Results(RunFolder(folder), Facts(task_names=["only"]), progress=False)
    with results.recording([1], 1):
        results.epoch_ended(0, 1, 1, trained)
        results.trained(0, TaskReport(), 1, 1)
        results.tested({} if tested is None else {0: tested}, {})
    return results.state.diverged_tasks


@pytest.mark.parametrize(
    ("accuracy", "majority", "of_training", "diverged"),
    [
        (1.0, 1.0, 1.0, False),  # one class
        (0.97, 1.0, 1.0, False),  # among more classes that the network knows, which nobody counts
        (0.97, 1.0, 0.1, False),  # one class of ten that the network was trained on
        (0.5, 0.5, 0.5, True),
        (0.55, 0.5, 0.5, True),
        (0.58, 0.5, 0.5, False),
        (0.9, 0.9, 0.9, True),
        (0.93, 0.9, 0.9, False),
        (0.85, 0.5, 0.9, False),  # only training is unbalanced
        (0.1, 0.1, 0.1, True),
        (0.119, 0.1, 0.1, True),
        (0.121, 0.1, 0.1, False),
        (1.0, 0.99, 0.99, False),
        (math.nan, 0.5, 0.5, False),
        (0.3, 0.0, 0.0, False),  # not known
    ],
)
def test_guessing_is_always_answering_the_most_frequent_class(
    tmp_path: Path, accuracy: float, majority: float, of_training: float, diverged: bool
) -> None:
    trained = Measured(1.0, 1.0, majority=of_training)
    tested = Measured(1.0, accuracy, majority=majority)
    assert judged(tmp_path / "tested", trained, tested) == [0] * diverged
    untested = Measured(1.0, accuracy, majority=majority)
    alone = majority < 1 and accuracy <= majority + min(0.2 * majority, 0.1 * (1 - majority))
    assert judged(tmp_path / "untested", untested, None) == [0] * alone


def test_the_share_of_the_most_frequent_class_is_measured() -> None:
    meter, experience = EvaluationMeter(), SimpleNamespace(current_experience=0)
    meter.before_eval_exp(None)
    for labels in ([1, 1, 2], [1, 0], [7]):
        strategy: Any = SimpleNamespace(
            mb_output=torch.eye(8)[labels], mb_y=torch.tensor(labels), loss=torch.tensor(0.5), experience=experience
        )
        meter.after_eval_forward(strategy)
        meter.after_eval_iteration(strategy)
    meter.after_eval_exp(strategy)
    measured = meter.measured[0]
    assert (measured.loss, measured.accuracy, measured.majority) == (0.5, 1.0, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["naive", "epn", "joint"])
def test_tasks_of_one_class_did_not_diverge(tmp_path: Path, strategy: str) -> None:
    words = ("benchmark=split", "benchmark.n_tasks=10", f"strategy={strategy}")
    record = run(compose_config(*DIGITS, *words), tmp_path / "run").record
    assert record["metrics"]["average_accuracy"] == 1.0
    assert record["diverged_tasks"] == []
    assert record["messages"] == []


def verdict(n_tasks: int, tests: list[tuple[int, dict[int, str]]]) -> bool | None:
    evaluations = Evaluations(n_tasks)
    for task, logits in tests:
        evaluations.add(task, dict.fromkeys(logits, 1.0), logits)
    return evaluations.zero_forgetting


@pytest.mark.parametrize(
    ("n_tasks", "tests", "verified"),
    [
        (1, [(0, {0: "a"})], None),  # nothing came after it
        (3, [(2, {0: "a", 1: "b", 2: "c"})], None),  # all at once
        (2, [(0, {0: "a"}), (1, {0: "a", 1: "b"})], True),
        (2, [(0, {0: "a"}), (1, {0: "x", 1: "b"})], False),
        (2, [(0, {}), (1, {0: "a", 1: "b"})], None),  # not tested before
        (4, [(1, {0: "a", 1: "b"}), (3, {0: "a", 1: "b", 2: "c", 3: "d"})], True),  # two tasks at a time
        (4, [(1, {0: "a", 1: "b"}), (3, {0: "a", 1: "x", 2: "c", 3: "d"})], False),
        (4, [(1, {0: "a", 1: "b"}), (3, {2: "c", 3: "d"})], None),
    ],
)
def test_forgetting_is_verified_where_something_was_trained_later(
    n_tasks: int, tests: list[tuple[int, dict[int, str]]], verified: bool | None
) -> None:
    assert verdict(n_tasks, tests) is verified


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["naive", "epn", "packnet", "independent", "joint", "ewc"])
def test_a_single_task_has_nothing_to_verify(tmp_path: Path, strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    run(compose_config(*DIGITS, "benchmark.n_tasks=1", f"strategy={strategy}"), path)
    assert json.loads((path / "run.json").read_text())["zero_forgetting_verified"] is None
    compare([path], tmp_path / "out")
    assert "verified to the bit" not in capsys.readouterr().out


def test_a_line_of_progress_says_where_tasks_were_confused_and_none_forgotten() -> None:
    facts = Facts(task_names=["first", "second"])
    confused, forgotten = Evaluations(2), Evaluations(2)
    for evaluations, later in ((confused, "a"), (forgotten, "b")):
        evaluations.add(0, {0: 1.0}, {0: "a"})
        evaluations.add(1, {0: 0.5, 1: 1.0}, {0: later, 1: "c"})
        evaluations.identified = {0: 0.5, 1: 1.0}
    said = "task 2/2 second: accuracy 1.000 (average 0.750), forgetting 0.500"
    line = task_line(facts, confused, 2, 0.1, math.nan)
    assert line == f"{said} (tasks confused, none forgotten), capacity 10.0 %"
    assert task_line(facts, forgotten, 2, 0.1, math.nan) == f"{said}, capacity 10.0 %"
    untested = task_line(facts, Evaluations(2), 1, 0.1, math.nan)
    assert untested == "task 1/2 first: accuracy -, forgetting -, capacity 10.0 %"
