"""Whole runs and the files in their folders."""

import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import cl_powerprop
from cl_powerprop.assemble import choose_device, load_sequence
from cl_powerprop.errors import DataError
from cl_powerprop.experiment import run
from cl_powerprop.sparsity import MaskAllocator, select_task
from cl_powerprop.tensor_file import read_tensors

from .conftest import MASKED, MOMENTUM, RUNS, Command, Finished, tiny_config, tree

pytestmark = [pytest.mark.slow, pytest.mark.cuda]

MASKED_RUNS = [name for name in RUNS if not name.startswith("naive")]
NAIVE_RUNS = [name for name in RUNS if name.startswith("naive")]
LEARNED_ONLY = [name for name in RUNS if name != "naive-momentum-shared"]


def read_matrix(folder: Path) -> np.ndarray:
    return pd.read_csv(folder / "accuracy_matrix.csv").to_numpy()


def read_record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return content


def assert_same_model(first: Path, second: Path) -> None:
    """The same bytes, metadata included."""
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", list(RUNS))
def test_the_files_of_the_contract(finished: Finished, name: str) -> None:
    folder = finished(name).path
    files = {"run.json", "config.yaml", "accuracy_matrix.csv", "curves.csv", "model.safetensors"}
    files |= {"cost.csv", "weights.csv"}
    masked = {"capacity.csv", "reuse.csv", "mask_overlap.csv"}
    assert set(tree(folder)) == (files | masked if name in MASKED_RUNS else files)


@pytest.mark.parametrize("name", list(RUNS))
def test_the_record(finished: Finished, name: str) -> None:
    result = finished(name)
    record, config = read_record(result.path), tiny_config(*RUNS[name])
    tasks = config.benchmark.n_tasks
    assert record["schema_version"] == 1
    assert record["status"] == "complete"
    assert record["error"] is None
    assert (record["benchmark"], record["scenario"], record["data"]) == (config.benchmark.name, "task", "mnist5k")
    assert (record["strategy"], record["optimizer"]) == (config.strategy.name, config.optimizer.name)
    assert (record["alpha"], record["seed"]) == (config.model.alpha, 0)
    assert record["n_tasks"] == record["trained_tasks"] == tasks
    assert {"torch", "avalanche-lib", "cl-powerprop", "python"} <= set(record["versions"])
    assert record["versions"]["torch"] == version("torch")
    assert record["device"] == str(choose_device("auto"))
    assert record["started"] <= record["finished"]
    assert record["peak_memory_mb"] > 1
    assert {"host", "git_commit", "run_id", "model"} <= set(record)
    seconds = record["seconds"]
    assert min(seconds.values()) >= 0
    assert 0 < seconds["train"] + seconds["eval"] + seconds["search"] <= seconds["total"]


@pytest.mark.parametrize("name", list(RUNS))
def test_metrics_are_those_of_the_matrix(finished: Finished, name: str) -> None:
    record, matrix = read_record(finished(name).path), read_matrix(finished(name).path)
    tasks, recorded = len(matrix), record["metrics"]
    best = np.array([max(matrix[i, j] for i in range(j, tasks - 1)) for j in range(tasks - 1)])
    assert recorded["average_accuracy"] == pytest.approx(matrix[-1].mean(), abs=1e-12)
    assert recorded["average_forgetting"] == pytest.approx((best - matrix[-1, :-1]).mean(), abs=1e-12)
    assert recorded["backward_transfer"] == pytest.approx((matrix[-1] - np.diag(matrix))[:-1].mean(), abs=1e-12)
    assert recorded["learning_accuracy"] == pytest.approx(np.diag(matrix).mean(), abs=1e-12)
    enough = 0.55 if name == "epn-split" else 0.15
    assert recorded["learning_accuracy"] > enough, "even these tiny runs learn something"
    assert (recorded["forward_transfer"] is None) == (name in LEARNED_ONLY)


@pytest.mark.parametrize("name", MASKED_RUNS)
def test_masked_strategies_forget_exactly_nothing(finished: Finished, name: str) -> None:
    record, matrix = read_record(finished(name).path), read_matrix(finished(name).path)
    assert record["metrics"]["average_forgetting"] == 0.0
    assert record["metrics"]["backward_transfer"] == 0.0
    assert record["zero_forgetting_verified"] is True
    for column in range(len(matrix)):
        assert len(set(matrix[column:, column])) == 1


@pytest.mark.parametrize("name", NAIVE_RUNS)
def test_naive_is_not_verified(finished: Finished, name: str) -> None:
    record = read_record(finished(name).path)
    assert record["zero_forgetting_verified"] is False
    assert record["metrics"]["average_forgetting"] != 0.0
    assert record["metrics"]["capacity_used"] == 1.0
    assert record["metrics"]["mask_bits"] == 0


@pytest.mark.parametrize("name", list(RUNS))
def test_every_learned_task_is_in_the_matrix(finished: Finished, name: str) -> None:
    matrix = read_matrix(finished(name).path)
    below = np.tri(len(matrix), dtype=bool)
    assert np.isfinite(matrix[below]).all()
    assert np.isnan(matrix[~below]).all() == (name in LEARNED_ONLY)
    assert ((matrix[below] >= 0) & (matrix[below] <= 1)).all()
    header = (finished(name).path / "accuracy_matrix.csv").read_text().splitlines()[0]
    assert header.split(",")[0] == ("classes_0_1" if name == "epn-split" else "permutation_0")
    assert len(header.split(",")) == len(matrix)


@pytest.mark.parametrize("name", MASKED_RUNS)
def test_capacity_adds_up(finished: Finished, name: str) -> None:
    folder = finished(name).path
    table = pd.read_csv(folder / "capacity.csv")
    assert list(table) == ["task", "layer", "kind", "weights", "kept", "newly_frozen", "reused", "free"]
    assert not table.duplicated(["task", "layer"]).any()
    assert (table.kept == table.newly_frozen + table.reused).all()
    assert (table[["kept", "newly_frozen", "reused", "free"]] >= 0).all(axis=None)
    masked = table[table.kind == "masked"]
    expected = {"features.1": 784 * 20, "features.3": 20 * 20}
    if "shared" in name:
        expected["output"] = 20 * 10
    assert masked.groupby("layer").weights.unique().map(list).to_dict() == {k: [v] for k, v in expected.items()}
    for _, layer in masked.groupby("layer"):
        assert list(layer.task) == list(range(5 if name == "epn-split" else 3))
        assert list(layer.free) == list(layer.weights - layer.newly_frozen.cumsum())
    last = masked[masked.task == masked.task.max()]
    record = read_record(folder)["metrics"]
    assert record["capacity_used"] == pytest.approx(1 - last.free.sum() / last.weights.sum(), abs=1e-12)
    dense = table[table.kind == "dense"]
    assert record["dense_weights"] == dense.weights.sum()
    assert (dense.kept == dense.weights).all()
    packed = sum(math.ceil(weights / 8) * 8 for weights in expected.values()) * (last.task.max() + 1)
    assert record["mask_bits"] == packed


@pytest.mark.parametrize("name", list(RUNS))
def test_the_cost_is_that_of_the_file(finished: Finished, name: str) -> None:
    """Of all that a run keeps for testing, the file of its network has the same, and what masks leave out."""
    folder = finished(name).path
    tensors, _ = read_tensors(folder / "model.safetensors")
    cost = pd.read_csv(folder / "cost.csv").set_index("item")["bits"]
    metrics = read_record(folder)["metrics"]
    kept = ["weights", "masks", "heads", "others", "buffers", "importances"]
    assert list(cost.index) == [
        *kept,
        "total",
        *("masks_uncompressed", "masks_huffman", "one_network"),
        "one_network_weights",
    ]
    assert cost["total"] == cost[kept].sum()
    coded = [value for key, value in tensors.items() if key.endswith("coded_masks")]
    assert metrics["mask_bits_stored"] == cost["masks"] == 8 * sum(map(len, coded))
    assert metrics["mask_bits"] == cost["masks_uncompressed"]
    assert metrics["total_size"] == cost["total"] / cost["one_network"]
    assert metrics["wsn_capacity"] == (cost["weights"] + cost["masks_huffman"]) / cost["one_network_weights"]
    assert cost["weights"] == pytest.approx(metrics["capacity_used"] * cost["one_network_weights"])
    assert cost["heads"] == 32 * sum(value.numel() for key, value in tensors.items() if "heads" in key)
    assert cost["buffers"] == cost["importances"] == 0
    if "naive" in name:
        assert metrics["total_size"] == 1.0 + (0 if "shared" in name else cost["heads"] * 2 / 3 / cost["one_network"])


@pytest.mark.parametrize("name", MASKED_RUNS)
def test_reuse_matches_capacity(finished: Finished, name: str) -> None:
    folder = finished(name).path
    reuse, capacity = pd.read_csv(folder / "reuse.csv"), pd.read_csv(folder / "capacity.csv")
    assert list(reuse) == ["task", "layer", "from_task", "weights"]
    assert (reuse.from_task < reuse.task).all()
    masked = capacity[(capacity.kind == "masked") & (capacity.task > 0)].set_index(["task", "layer"])
    summed = reuse.groupby(["task", "layer"]).weights.sum()
    assert summed.to_dict() == masked.reused.to_dict()
    frozen = masked.newly_frozen.to_dict() | {
        (0, row.layer): row.newly_frozen for row in capacity[capacity.task == 0].itertuples()
    }
    for row in reuse.itertuples():
        assert row.weights <= frozen[row.from_task, row.layer]


def test_packnet_takes_its_shares_and_sees_everything_before(finished: Finished) -> None:
    for name, shares in (
        ("packnet-nesterov-shared", [1 / 3] * 3),
        ("packnet-adam-frozen-biases", [0.2, 0.5, 0.1]),
    ):
        table = pd.read_csv(finished(name).path / "capacity.csv")
        for _, layer in table[table.kind == "masked"].groupby("layer"):
            ends = np.cumsum([0, *shares])
            counts = np.diff(np.rint(ends * layer.weights.iloc[0]))
            assert layer.newly_frozen.tolist() == counts.tolist()
            assert layer.reused.tolist() == [0, *np.cumsum(counts)[:-1]]


def test_heads_and_biases_are_counted(finished: Finished) -> None:
    table = pd.read_csv(finished("packnet-adamw-per_task-biases").path / "capacity.csv")
    dense = table[table.kind == "dense"]
    for task, rows in dense.groupby("task"):
        assert dict(zip(rows.layer, rows.weights, strict=True)) == {
            "features.1.bias": 20,
            "features.3.bias": 20,
            f"output.heads.{task}.weight": 200,
            f"output.heads.{task}.bias": 10,
        }
    frozen = pd.read_csv(finished("epn-momentum-frozen-biases").path / "capacity.csv")
    assert set(frozen[frozen.layer == "features.1.bias"].task) == {0}


@pytest.mark.parametrize("name", list(RUNS))
def test_curves_are_tidy(finished: Finished, name: str) -> None:
    folder = finished(name).path
    table, matrix, record = pd.read_csv(folder / "curves.csv"), read_matrix(folder), read_record(folder)
    columns = ["run_id", "trained_tasks", "epoch", "step", "eval_task", "split", "metric", "value"]
    assert list(table) == columns
    assert set(table.run_id) == {record["run_id"]}
    assert not table.duplicated(columns[1:-1]).any()
    assert table.value.notna().all()
    assert table.step.is_monotonic_increasing
    tests = table[(table.split == "test") & (table.metric == "accuracy")]
    for row in tests.itertuples():
        assert row.value == matrix[row.trained_tasks - 1, row.eval_task]
    assert len(tests) == np.isfinite(matrix).sum()
    losses = table[(table.split == "train") & (table.metric == "loss")]
    tasks = len(matrix)
    epochs = tiny_config(*RUNS[name]).train.epochs
    assert [(row.trained_tasks, row.epoch, row.eval_task) for row in losses.itertuples()] == [
        (task, epoch, task) for task in range(tasks) for epoch in range(1, epochs + 1)
    ]
    if name != "epn-split":
        steps = [36 * epoch for epoch in range(1, epochs * tasks + 1)]
        assert list(losses.step) == steps, "3,600 samples in batches of 100"
    used = table[table.metric == "capacity_used"]
    assert used.value.iloc[-1] == record["metrics"]["capacity_used"]
    assert used.value.is_monotonic_increasing


@pytest.mark.parametrize(
    "name", ["naive-momentum-shared", "packnet-adamw-per_task-biases", "epn-momentum-frozen-biases"]
)
def test_the_same_seed_twice_gives_the_same_bytes(finished: Finished, name: str, tmp_path: Path) -> None:
    first = finished(name).path
    torch.manual_seed(12345)
    torch.rand(100)
    second = run(tiny_config(*RUNS[name]), tmp_path / "again").path
    for file in ("accuracy_matrix.csv", "config.yaml"):
        assert (second / file).read_bytes() == (first / file).read_bytes()
    if name in MASKED_RUNS:
        assert (second / "capacity.csv").read_bytes() == (first / "capacity.csv").read_bytes()
    assert_same_model(first, second)
    one, two = (pd.read_csv(folder / "curves.csv").drop(columns="run_id") for folder in (first, second))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_another_seed_gives_another_run(finished: Finished, tmp_path: Path) -> None:
    name = "naive-momentum-shared"
    other = run(tiny_config(*RUNS[name], "seed=1"), tmp_path / "other").path
    assert tree(other)["accuracy_matrix.csv"] != tree(finished(name).path)["accuracy_matrix.csv"]


@pytest.mark.parametrize("name", ["epn-adamw-both", "packnet-adam-frozen-biases", "naive-momentum-shared"])
def test_a_run_is_repeated_from_its_folder(
    finished: Finished, name: str, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = finished(name).path, tmp_path / "repeated"
    code = command("repeat", first, f"run_dir={second}")
    assert code == 0, capsys.readouterr().err
    for file in ("accuracy_matrix.csv", "config.yaml"):
        assert tree(second)[file] == tree(first)[file], file
    assert_same_model(first, second)


@pytest.mark.parametrize("name", list(RUNS))
def test_a_loaded_model_answers_as_the_trained_one(finished: Finished, name: str) -> None:
    result = finished(name)
    sequence = load_sequence(tiny_config(*RUNS[name]), torch.device("cpu"))
    matrix = read_matrix(result.path)
    loaded = cl_powerprop.load(result.path / "model.safetensors")
    trained = result.model.cpu().eval()
    tasks = len(sequence)
    for task in [*range(tasks), *reversed(range(tasks))]:  # in any order
        test = sequence.tasks[task].test
        images = test.images()
        select_task(trained, task)
        with torch.no_grad():
            expected, answered = trained(images), loaded(images, task=task)
        assert torch.equal(answered, expected)
        accuracy = (answered.argmax(1) == test.labels).sum().item() / len(test)
        if str(read_record(result.path)["device"]) == "cpu":
            assert accuracy == matrix[-1, task]
        else:
            assert accuracy == pytest.approx(matrix[-1, task], abs=0.005)


def test_a_run_folder_loads_too(finished: Finished) -> None:
    folder = finished("epn-split").path
    loaded = cl_powerprop.load(folder)
    assert loaded.n_tasks == 5
    assert not loaded.network.training
    with torch.no_grad():
        assert loaded(torch.zeros(2, 1, 28, 28), task=4).shape == (2, 2)


@pytest.mark.parametrize("task", [-1, 3, 100])
def test_a_task_that_was_not_learned_is_refused(finished: Finished, task: int) -> None:
    loaded = cl_powerprop.load(finished("packnet-nesterov-shared").path)
    with pytest.raises(LookupError, match=f"no task {task}.*0 to 2"):
        loaded(torch.zeros(1, 1, 28, 28), task=task)


def test_loading_what_is_not_there_or_not_ours(finished: Finished, tmp_path: Path) -> None:
    whole = (finished("epn-split").path / "model.safetensors").read_bytes()
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    damaged = {"cut": whole[: len(whole) // 2], "header": whole[:20], "empty": b"", "text": b"not a model at all"}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
    cases = {"missing": "was not found", "foreign.safetensors": "not written by", **dict.fromkeys(damaged, "damaged")}
    for name, message in cases.items():
        with pytest.raises(DataError, match=message) as caught:
            cl_powerprop.load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(DataError, match="was not found"):
        cl_powerprop.load(tmp_path)


def test_the_zero_forgetting_check_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the restoring of frozen weights, momentum and decay move them, and the run says so."""
    monkeypatch.setattr(MaskAllocator, "restore_frozen", lambda self: None)
    config = tiny_config("strategy=packnet", *MASKED, *MOMENTUM, "optimizer.weight_decay=0.01", "model.alpha=1")
    result = run(config, tmp_path / "broken")
    assert result.record["zero_forgetting_verified"] is False
    assert read_record(result.path)["status"] == "complete"


def test_save_model_false_writes_none(tmp_path: Path) -> None:
    config = tiny_config("strategy=naive", "benchmark.n_tasks=1", "train.epochs=1", "save_model=false")
    folder = run(config, tmp_path / "run").path
    assert "model.safetensors" not in tree(folder)
    record = read_record(folder)
    assert record["status"] == "complete"
    assert record["metrics"]["average_forgetting"] == 0.0
    assert record["metrics"]["forward_transfer"] is None


@pytest.mark.parametrize("scenario", ["domain", "class"])
def test_scenarios_without_a_task_label_run_with_a_shared_head(tmp_path: Path, scenario: str) -> None:
    config = tiny_config(
        *("strategy=naive", "benchmark=split_mnist", "benchmark.n_tasks=2", f"benchmark.scenario={scenario}"),
        *("model.heads=shared", "train.epochs=1"),
    )
    result = run(config, tmp_path / "run")
    assert result.record["status"] == "complete"
    output = result.model.output.weight
    assert output.shape[0] == (10 if scenario == "class" else 5)


def test_every_strategy_sees_the_same_data_under_the_same_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop import assemble

    class Seen(Exception):  # noqa: N818 (not an error)
        pass

    hashes: list[list[str]] = []

    def look(sequence: Any, *_: Any, **__: Any) -> None:
        splits = [(task.train, task.valid, task.test) for task in sequence.tasks]
        hashes.append([split.fingerprint() for three in splits for split in three])
        raise Seen

    monkeypatch.setattr(assemble, "to_avalanche", look)
    strategies = ("strategy=naive", "strategy=packnet", "strategy=epn")
    for draws, overrides in enumerate(
        [(strategy, *extra) for strategy in strategies for extra in [("model.heads=shared",)]] + [("seed=1",)]
    ):
        torch.rand(draws)
        masked = () if "strategy=naive" in overrides else MASKED
        with pytest.raises(Seen):
            run(tiny_config(*overrides, *masked), tmp_path / str(draws))
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes[0])) == 9
    assert not set(hashes[0]) & set(hashes[3])


def test_capacity_exhausted_goes_on_and_says_so(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "full"
    words = ("benchmark.n_tasks=2", "train.epochs=2", "strategy.retrain_epochs=1", "model.hidden=[20,20]")
    code = command(
        *("run", *words, "train.batch_size=100", "strategy.gamma=1.0", "strategy.sparsities=[0.999]"),
        *("progress=false", f"run_dir={folder}"),
    )
    assert code == 0
    record = read_record(folder)
    assert record["status"] == "complete"
    assert record["messages"][0].startswith("task 0: capacity exhausted")
    assert any(message.startswith("task 1: no weight is free") for message in record["messages"])
    assert record["metrics"]["capacity_used"] == 1.0
    assert record["metrics"]["average_forgetting"] == 0.0
    assert record["zero_forgetting_verified"] is True
    assert record["searches"][0]["exhausted"] is True
    assert "capacity exhausted" in capsys.readouterr().out


def test_a_task_learned_no_better_than_guessing_is_reported(tmp_path: Path) -> None:
    """Decay shrinks every weight to 0: the loss is finite, and the accuracy is that of guessing one of ten classes."""
    config = tiny_config("strategy=naive", "benchmark.n_tasks=2", "optimizer.lr=0.5", "optimizer.weight_decay=1.9")
    record = run(config, tmp_path / "dead").record
    assert record["status"] == "complete"
    assert record["diverged_tasks"] == [0, 1]
    assert "task 0: test accuracy 0.1" in record["messages"][0]
    assert "no better than guessing" in record["messages"][0]
