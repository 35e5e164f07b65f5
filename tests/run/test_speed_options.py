"""train.precision, train.compile, train.threads and evaluation.schedule: what they change, and what they must not."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cl_powerprop.experiment import run
from cl_powerprop.training import fast

from .conftest import MASKED, RUNS, Command, Finished, tiny_config
from .test_whole_runs import read_matrix, read_record

pytestmark = pytest.mark.slow

EPN, NAIVE = RUNS["epn-momentum-frozen-biases"], RUNS["naive-momentum-shared"]


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, torch.dtype, torch.dtype]]:
    """For every forward pass: whether it trains, the type of autocast, the type of the outputs."""
    seen: list[tuple[bool, torch.dtype, torch.dtype]] = []
    real = torch.nn.functional.linear

    def spy(inputs: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> torch.Tensor:
        result = real(inputs, weight, bias)
        seen.append((torch.is_grad_enabled(), weight.dtype, result.dtype))
        return result

    monkeypatch.setattr(torch.nn.functional, "linear", spy)
    return seen


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["epn-momentum-frozen-biases", "packnet-adamw-per_task-biases"])
def test_bf16_trains_under_autocast_and_evaluates_in_fp32(
    name: str, tmp_path: Path, forwards: list[tuple[bool, torch.dtype, torch.dtype]]
) -> None:
    result = run(tiny_config(*RUNS[name], "train.precision=bf16"), tmp_path / "run")
    assert {outputs for trains, _, outputs in forwards if trains} == {torch.bfloat16}
    assert {outputs for trains, _, outputs in forwards if not trains} == {torch.float32}
    assert {weight for _, weight, _ in forwards} == {torch.float32}, "master weights stay in fp32"
    assert all(value.dtype == torch.float32 for value in result.model.parameters())
    record = read_record(result.path)
    assert record["zero_forgetting_verified"] is True
    assert record["metrics"]["average_forgetting"] == 0.0


@pytest.mark.cuda
def test_bf16_learns_as_fp32_does(finished: Finished, tmp_path: Path) -> None:
    exact = finished("naive-momentum-shared").record["metrics"]
    rounded = run(tiny_config(*NAIVE, "train.precision=bf16"), tmp_path / "run").record["metrics"]
    assert rounded["learning_accuracy"] != exact["learning_accuracy"]
    assert rounded["learning_accuracy"] == pytest.approx(exact["learning_accuracy"], abs=0.03)


def test_an_unknown_precision_is_one_line(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", "train.precision=fp8", "progress=false") == 2
    assert "train.precision must be one of fp32, bf16, not 'fp8'" in capsys.readouterr().err


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Compile with torch's eager backend: it traces as the real one does, and needs no C++ compiler."""
    models: list[Any] = []
    real = torch.compile

    def compile(model: Any, **_: Any) -> Any:
        models.append(model)
        return real(model, backend="eager")

    monkeypatch.setattr(torch, "compile", compile)
    yield models
    torch._dynamo.reset()


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["epn-momentum-frozen-biases", "epn-adamw-both", "naive-momentum-shared"])
def test_compiled_training_gives_the_same_run(
    name: str, finished: Finished, tmp_path: Path, compiled: list[Any]
) -> None:
    result = run(tiny_config(*RUNS[name], "train.compile=true"), tmp_path / "run")
    assert compiled == [result.model], "once a run"
    np.testing.assert_allclose(read_matrix(result.path), read_matrix(finished(name).path), atol=0.01)
    assert read_record(result.path)["zero_forgetting_verified"] is (name != "naive-momentum-shared")
    one, other = (pd.read_csv(path / "curves.csv") for path in (result.path, finished(name).path))
    losses = [table[(table.split == "train") & (table.metric == "loss")].value.to_numpy() for table in (one, other)]
    np.testing.assert_allclose(losses[0][:2], losses[1][:2], rtol=1e-4)


def test_where_torch_cannot_compile_it_says_so(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    def broken(*_: Any) -> None:
        raise BackendCompilerFailed(broken, RuntimeError("no C++ compiler\nand more"), None)

    monkeypatch.setattr(torch, "compile", lambda model: broken)
    code = command("run", "train.compile=true", "progress=false", "save_model=false", f"run_dir={tmp_path / 'run'}")
    error = capsys.readouterr().err
    assert code == 2
    assert len(error.splitlines()) == 1
    assert "train.compile=true: torch cannot compile here" in error


def test_a_model_replaced_between_tasks_is_compiled_again(compiled: list[Any]) -> None:
    strategy = fast.FastSupervisedTemplate(
        model=torch.nn.Linear(2, 2), optimizer=torch.optim.SGD([torch.zeros(1)], lr=0.1), compile=True
    )
    first = strategy._compiled_model()
    assert strategy._compiled_model() is first
    strategy.model = torch.nn.Linear(2, 2)
    assert strategy._compiled_model() is not first
    assert len(compiled) == 2


def test_threads_are_torch_s(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        record = run(tiny_config(*NAIVE, "train.threads=2", "benchmark.n_tasks=1"), tmp_path / "run").record
        assert record["threads"] == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


SCHEDULES = {
    "every_task": np.tri(3, dtype=bool),
    "diagonal_and_last": np.array([[1, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=bool),
    "last": np.array([[0, 0, 0], [0, 0, 0], [1, 1, 1]], dtype=bool),
}


@pytest.mark.parametrize("schedule", list(SCHEDULES))
@pytest.mark.parametrize("name", ["epn-momentum-frozen-biases", "naive-momentum-shared"])
def test_a_schedule_leaves_cells_out_and_changes_no_other(
    finished: Finished, tmp_path: Path, name: str, schedule: str
) -> None:
    whole = read_matrix(finished(name).path)
    result = run(tiny_config(*RUNS[name], f"evaluation.schedule={schedule}"), tmp_path / "run")
    matrix, record = read_matrix(result.path), read_record(result.path)
    expected = SCHEDULES[schedule]
    if name == "naive-momentum-shared" and schedule == "every_task":
        expected = np.tril(np.ones((3, 3), dtype=bool), 1)  # without masks the next task is tested too
    assert (np.isfinite(matrix) == expected).all()
    assert (matrix[expected] == whole[expected]).all()
    tests = pd.read_csv(result.path / "curves.csv").query("split == 'test' and metric == 'accuracy'")
    assert len(tests) == expected.sum()
    metrics = record["metrics"]
    assert metrics["average_accuracy"] == pytest.approx(whole[-1].mean())
    if schedule == "last":
        for metric in ("average_forgetting", "backward_transfer", "learning_accuracy"):
            assert metrics[metric] is None, "nothing to compare with"
        assert record["zero_forgetting_verified"] is None
    else:
        before = (finished(name).record if schedule == "every_task" else record)["metrics"]
        assert metrics["average_forgetting"] == before["average_forgetting"]
        assert record["zero_forgetting_verified"] is (name != "naive-momentum-shared")
    if schedule == "diagonal_and_last":
        forgotten = (np.diag(matrix) - matrix[-1])[:-1].mean()
        assert metrics["average_forgetting"] == pytest.approx(forgotten, abs=1e-12)
        assert metrics["learning_accuracy"] == pytest.approx(np.diag(whole).mean())
    if name == "naive-momentum-shared" and schedule != "every_task":
        assert metrics["forward_transfer"] is None


def test_an_unknown_schedule_is_one_line(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", "evaluation.schedule=sometimes", "progress=false") == 2
    error = capsys.readouterr().err
    assert "evaluation.schedule must be one of every_task, diagonal_and_last, last, never, not 'sometimes'" in error


def test_a_task_that_learns_nothing_is_reported_without_a_test(tmp_path: Path) -> None:
    """The training accuracy says so where the schedule has no test."""
    config = tiny_config(*NAIVE, "optimizer.lr=1e-9", "optimizer.momentum=0", "evaluation.schedule=last")
    record = run(config, tmp_path / "run").record
    assert record["diverged_tasks"][:2] == [0, 1]
    assert "training accuracy" in record["messages"][0]
    assert "test accuracy" in record["messages"][-1] or len(record["diverged_tasks"]) == 2


def test_seconds_are_split(tmp_path: Path) -> None:
    record = run(tiny_config("strategy=epn", *MASKED), tmp_path / "run").record
    seconds = record["seconds"]
    assert set(seconds) == {"train", "eval", "search", "logging", "total"}
    assert all(value > 0 for value in seconds.values())
    assert len(record["task_seconds"]) == 3
    assert sum(record["task_seconds"]) == pytest.approx(seconds["train"] + seconds["search"])
    parts = sum(value for part, value in seconds.items() if part != "total")
    assert parts <= seconds["total"] * (1 + 1e-6)
    assert parts == pytest.approx(seconds["total"], rel=0.1)
    assert math.isfinite(parts)
