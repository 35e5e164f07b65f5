"""Runs on a GPU: the same twice, as on the CPU, in bf16 and compiled; nothing that masks protect is lost.

Those of `tests/run/` that are marked `cuda` show that they are resumed to the bit.
"""

import copy
from pathlib import Path

import pandas as pd
import pytest
import torch

import cl_powerprop
from cl_powerprop.assemble import load_sequence

from ..run.conftest import compose_config
from ..run.test_resume import assert_same_numbers
from ..run.test_whole_runs import read_matrix, read_record
from .runs import FORGETTING, RUNS, train, words_of

MASKING = [name for name in RUNS if not name.startswith(FORGETTING)]


@pytest.mark.parametrize("name", RUNS)
def test_the_same_run_twice_has_the_same_bits(name: str, tmp_path: Path) -> None:
    first = train(tmp_path / "first", name).path
    torch.manual_seed(12345)
    torch.rand(100, device="cuda")
    second = train(tmp_path / "second", name).path
    assert_same_numbers(first, second)
    assert str(read_record(first)["device"]).startswith("cuda")


@pytest.mark.parametrize("name", MASKING)
def test_masked_strategies_forget_exactly_nothing(name: str, tmp_path: Path) -> None:
    result = train(tmp_path / "run", name, "evaluation.schedule=every_task")
    record, matrix = read_record(result.path), read_matrix(result.path)
    assert record["zero_forgetting_verified"] is True
    assert record["metrics"]["average_forgetting"] == 0.0
    for task in range(len(matrix)):
        assert len(set(matrix[task:, task])) == 1


@pytest.mark.parametrize("name", RUNS)
def test_a_saved_model_answers_alike_on_both_devices(name: str, tmp_path: Path) -> None:
    result = train(tmp_path / "run", name)
    config, matrix = compose_config(*words_of(name)), read_matrix(result.path)
    loaded = cl_powerprop.load(result.path)
    sequence = load_sequence(config, torch.device("cpu"))
    for task in range(len(sequence)):
        test = sequence.tasks[task].test
        images = test.images()
        with torch.no_grad():
            on_cpu = copy.deepcopy(loaded)(images, task=task)
            network = copy.deepcopy(loaded)
            network.network.to("cuda")
            on_gpu = network(images.cuda(), task=task).cpu()
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-2, atol=1e-2)  # convolutions of a GPU round to TF32
        accuracy = (on_cpu.argmax(1) == test.labels).float().mean().item()
        assert accuracy == pytest.approx(matrix[-1, task], abs=0.01)


@pytest.mark.parametrize("name", ["naive", "epn, adam", "packnet"])
def test_compiled_training_learns_the_same(name: str, tmp_path: Path) -> None:
    """With torch's real compiler; `tests/run/test_compile.py` has more cases, and only traces."""
    torch._dynamo.reset()
    plain, compiled = train(tmp_path / "plain", name), train(tmp_path / "compiled", name, "train.compile=true")
    assert read_matrix(compiled.path) == pytest.approx(read_matrix(plain.path), abs=0.06, nan_ok=True)
    records = [read_record(each.path) for each in (plain, compiled)]
    assert records[0]["zero_forgetting_verified"] == records[1]["zero_forgetting_verified"]


@pytest.mark.parametrize("name", ["naive, bf16", "epn, bf16"])
def test_bf16_learns_as_fp32_does(name: str, tmp_path: Path) -> None:
    both = [train(tmp_path / precision, name, f"train.precision={precision}") for precision in ("bf16", "fp32")]
    assert all(value.dtype == torch.float32 for value in both[0].model.parameters())
    losses = [
        pd.read_csv(each.path / "curves.csv").query("split == 'train' and metric == 'loss'").value for each in both
    ]
    assert (losses[0] != losses[1]).any()
    one, other = (each.record["metrics"]["learning_accuracy"] for each in both)
    assert one == pytest.approx(other, abs=0.06)
