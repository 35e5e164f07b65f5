"""`cl-powerprop export` on finished runs: the file alone, its table, and one clear line for a mistake."""

import builtins
import re
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import cl_powerprop
from cl_powerprop.exporting import export as exporting
from cl_powerprop.exporting.network import ExportedNetwork
from cl_powerprop.exporting.sparse_kernels import SparseLinear

from ..run.conftest import Command, Finished, clean_process, command, finished  # noqa: F401 (fixtures)

pytestmark = pytest.mark.slow

RUNS = ("packnet-adamw-per_task-biases", "epn-adam-shared-biases", "epn-split", "naive-momentum-shared")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def quick_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl_powerprop.exporting.measuring._SECONDS", 0.0)


@pytest.mark.parametrize("name", RUNS)
def test_a_task_stands_alone(name: str, finished: Finished, tmp_path: Path) -> None:  # noqa: F811
    run = finished(name).path
    exported = cl_powerprop.export(run, tmp_path / "task.safetensors", task=1)
    network = cl_powerprop.load_exported(tmp_path / "task.safetensors")
    images, labels = cl_powerprop.load_task(run, 1, "test")
    model = cl_powerprop.load(run)
    with torch.no_grad():
        expected, found = model(images, task=1), network(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert exported.checked.same == exported.checked.images == len(images)
    assert exported.checked.correct == int((expected.argmax(1) == labels).sum())
    assert exported.costs["exported"].bytes == (tmp_path / "task.safetensors").stat().st_size
    assert type(network) is ExportedNetwork
    assert network.facts["run_id"] == finished(name).record["run_id"]
    pixels = images[0].mul(network.facts["std"][0]).add(network.facts["mean"][0]).mul(255.0)
    torch.testing.assert_close(pixels, pixels.round(), rtol=0.0, atol=1e-3)


def test_a_sparse_run_becomes_small_and_may_skip_zeros(tmp_path: Path) -> None:
    sparse = ["data=digits", "benchmark.n_tasks=1", "strategy=packnet", "strategy.shares=[0.02]", "model.heads=shared"]
    options = ["model=lenet_300_100", "train.epochs=4", "progress=false"]
    run = cl_powerprop.run([*sparse, *options], tmp_path / "run", quiet=True).path
    exported = cl_powerprop.export(run, tmp_path / "a.safetensors")
    dense, small, skipping = exported.costs.values()
    weights = 64 * 300 + 300 * 100 + 100 * 10
    assert dense.cost.weights == weights
    assert dense.cost.flops == 2 * weights
    assert dense.cost.nonzero == pytest.approx(0.02 * weights, abs=3)
    assert dense.cost.nonzero_flops == pytest.approx(2 * dense.cost.nonzero, abs=3)
    assert small.cost.weights < 0.5 * weights
    assert small.cost.flops == 2 * small.cost.weights
    assert small.cost.nonzero <= dense.cost.nonzero
    assert small.bytes < 0.1 * dense.bytes
    assert set(skipping.milliseconds) == set(exporting.BATCH_SIZES)
    plain, fast = (
        cl_powerprop.load_exported(tmp_path / "a.safetensors", sparse_kernels=skip) for skip in (False, True)
    )
    assert any(isinstance(layer, SparseLinear) for layer in fast.layers)
    images, _ = cl_powerprop.load_task(run, 0)
    with torch.inference_mode():
        torch.testing.assert_close(fast(images), plain(images), rtol=1e-4, atol=1e-5)


def test_the_command_writes_onnx_and_prints_a_table(
    command: Command,  # noqa: F811
    finished: Finished,  # noqa: F811
    capsys: Capture,
    tmp_path: Path,
) -> None:
    run = finished(RUNS[0]).path
    (tmp_path / "task.onnx").write_text("of an earlier export")
    assert command("export", run, "--task", 0, "--to", tmp_path / "task.onnx") == 0
    printed = capsys.readouterr().out
    for words in ("dense", "exported / dense", "batch of 256", "1 thread", "task 0 (permutation_0)", "are 0"):
        assert words in printed, words
    assert re.search(r"same prediction on ([\d,]+) of \1 test images", printed)
    entries = {entry.key: entry.value for entry in onnx.load(tmp_path / "task.onnx").metadata_props}
    assert entries["task"] == "0"
    assert [path.name for path in tmp_path.iterdir()] == ["task.onnx"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "a.safetensors"], ["has learned the tasks 0 to 2; choose one by --task"]),
        (["--to", "a.safetensors", "--task", "3"], ["there is no task 3", "0 to 2"]),
        (["--to", "a.safetensors", "--task", "-1"], ["there is no task -1"]),
        (["--to", "a.pt", "--task", "0"], ["must end in .safetensors or .onnx"]),
        (["--to", "nowhere/a.onnx", "--task", "0"], ["there is no folder nowhere"]),
        (["--to", "a.onnx", "--task", "0", "--threads", "0"], ["--threads must be at least 1"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_clear_line(
    words: list[str],
    told: list[str],
    command: Command,  # noqa: F811
    finished: Finished,  # noqa: F811
    capsys: Capture,
) -> None:
    assert command("export", finished(RUNS[0]).path, *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(part in error for part in told), error
    assert not list(Path.cwd().iterdir())


def test_a_folder_without_a_network_or_data_is_one_clear_line(
    command: Command,  # noqa: F811
    finished: Finished,  # noqa: F811
    capsys: Capture,
    tmp_path: Path,
) -> None:
    assert command("export", tmp_path, "--to", "a.onnx") == 2
    assert "model.safetensors was not found" in capsys.readouterr().err
    shutil.copytree(finished(RUNS[0]).path, tmp_path / "copy")
    config = tmp_path / "copy" / "config.yaml"
    config.write_text(config.read_text().replace("name: mnist5k", "name: mnist"))
    assert command("export", tmp_path / "copy", "--task", 0, "--to", "a.safetensors", "--root", tmp_path) == 2
    assert "cl-powerprop data download mnist" in capsys.readouterr().err


def test_without_onnx_the_fix_is_named(
    command: Command,  # noqa: F811
    finished: Finished,  # noqa: F811
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imported = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert command("export", finished(RUNS[0]).path, "--task", 0, "--to", "a.onnx") == 2
    assert "an .onnx file needs onnxruntime: pip install 'cl-powerprop[onnx]'" in capsys.readouterr().err


def test_a_network_that_computes_something_else_is_not_written(
    finished: Finished,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    whole = exporting.remove_dead_units

    def broken(network: ExportedNetwork, *rest: Any) -> ExportedNetwork:
        small = whole(network, *rest)
        with torch.no_grad():
            small.layers[-1].weight.add_(1.0)  # type: ignore[operator, union-attr]
        return small

    monkeypatch.setattr(exporting, "remove_dead_units", broken)
    with pytest.raises(RuntimeError, match=r"differs from the run's by up to .* in a logit"):
        cl_powerprop.export(finished(RUNS[0]).path, tmp_path / "a.safetensors", task=0)
    assert not list(tmp_path.iterdir())
