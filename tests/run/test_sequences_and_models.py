"""Whole runs with the other task sequences, networks and scenarios, on small data."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cl_powerprop
from cl_powerprop.assemble import load_sequence
from cl_powerprop.experiment import run

from .conftest import Command, compose_config
from .test_whole_runs import read_matrix, read_record

pytestmark = pytest.mark.slow

SMALL = ("train.epochs=2", "train.batch_size=50", "progress=false")
EPN, PACKNET = ("strategy=epn", "strategy.retrain_epochs=1"), ("strategy=packnet", "strategy.retrain_epochs=1")
CONVNET = ("model=convnet", "model.width=8", "optimizer.lr=0.1")
RESNET = ("model=resnet18", "model.width=4", "data=digits", "benchmark.n_tasks=2")
WIDE_RESNET = ("model=wide_resnet", "model.depth=10", "model.widen_factor=1", "data=digits")
ROTATED = ("benchmark=rotated_mnist", "benchmark.n_tasks=2")
OMNIGLOT = ("benchmark=omniglot", "benchmark.n_tasks=3", "model.width=8")
RUNS: dict[str, tuple[str, ...]] = {
    "rotated-convnet-batch": (*EPN, *CONVNET, *ROTATED),
    "split-convnet-group-frozen": (
        *(*PACKNET, *CONVNET, "model.norm=group", "model.bias=frozen", "benchmark=split_mnist"),
    ),
    "permuted-resnet-batch": (*EPN, *RESNET),
    "permuted-resnet-batch-packnet": (*PACKNET, *RESNET, "model.norm=batch", "optimizer.momentum=0.9"),
    "permuted-resnet-layer": (*EPN, *RESNET, "model.norm=layer"),
    "rotated-wide-resnet": (*EPN, *WIDE_RESNET, *ROTATED),
    "rotated-lenet5": (*EPN, "model=lenet5", *ROTATED, "benchmark.angles=[0,37]"),
    "split-groups": (*EPN, "benchmark=split_mnist", "benchmark.n_tasks=2", "benchmark.classes=[[3,1,2],[0,9]]"),
    "omniglot": (*EPN, *OMNIGLOT, "train.shift=1", "train.rotate=5"),
    "omniglot-random-packnet": (*PACKNET, *OMNIGLOT, "benchmark.order=random", "data.size=20"),
    "independent": ("strategy=independent", "benchmark=split_mnist", "data=digits", "model.hidden=[20]"),
    "independent-convnet": ("strategy=independent", *OMNIGLOT),
}


def check_loaded(folder: Path, config: Any) -> None:
    """The saved model reaches the recorded accuracies, on test and on validation data."""
    sequence = load_sequence(config, torch.device("cpu"))
    model, matrix = cl_powerprop.load(folder), read_matrix(folder)
    curves = pd.read_csv(folder / "curves.csv").query("split == 'valid' and metric == 'accuracy'")
    for index, task in enumerate(sequence.tasks):
        with torch.no_grad():
            outputs = {name: model(getattr(task, name).images(), task=index) for name in ("test", "valid")}
        assert outputs["test"].shape[1] == task.classes
        right = {
            name: float((output.argmax(1) == getattr(task, name).labels).double().mean())
            for name, output in outputs.items()
        }
        assert right["test"] == pytest.approx(matrix[-1, index], abs=1e-12)
        (recorded,) = set(curves[curves.eval_task == index].value)  # when learned and at the end
        assert right["valid"] == pytest.approx(recorded, abs=1e-12)


@pytest.mark.parametrize("name", RUNS)
def test_a_run(name: str, tmp_path: Path, omniglot_root: Path) -> None:
    root = (f"data.root={omniglot_root}",) if "omniglot" in name or name == "independent-convnet" else ()
    config = compose_config(*RUNS[name], *SMALL, *root)
    result = run(config, tmp_path / "run")
    record, matrix = read_record(result.path), read_matrix(result.path)
    assert record["status"] == "complete"
    assert record["metrics"]["average_forgetting"] == 0.0
    assert record["zero_forgetting_verified"] is True
    assert record["metrics"]["forward_transfer"] is None
    assert record["metrics"]["task_identification"] is None
    assert np.isnan(matrix[~np.tri(len(matrix), dtype=bool)]).all()
    if name.startswith("independent"):
        assert record["metrics"]["capacity_used"] == len(matrix)
    if "independent" not in name:
        capacity = pd.read_csv(result.path / "capacity.csv")
        masked = capacity[capacity.kind == "masked"]
        used = masked.groupby("layer").newly_frozen.sum() / masked.groupby("layer").weights.first()
        assert (used <= 1).all()
        assert (used > 0).any()
        norms = capacity[capacity.layer.str.endswith("running_mean")]
        has_batch_norm = getattr(config.model, "norm", "") == "batch"
        assert (set(norms.task) == set(range(len(matrix)))) == has_batch_norm
    check_loaded(result.path, config)


@pytest.mark.parametrize("norms", ["per_task", "none"])
def test_resnet50_trains_sparsely_and_is_saved(norms: str, tmp_path: Path) -> None:
    words = ("benchmark=single", "data=digits", "model=resnet50", f"model.bias={norms}", "sparsity=static")
    config = compose_config(*words, "train.steps=2", "train.batch_size=8", "progress=false")
    result = run(config, tmp_path / "run")
    assert read_record(result.path)["status"] == "complete"
    (task,) = load_sequence(config, torch.device("cpu")).tasks
    with torch.no_grad():
        right = (
            (cl_powerprop.load(result.path)(task.test.images(), task=0).argmax(1) == task.test.labels).double().mean()
        )
    assert float(right) == pytest.approx(read_matrix(result.path)[0, 0], abs=1e-12)


def test_an_independent_network_does_not_depend_on_the_other_tasks(tmp_path: Path) -> None:
    words = ("strategy=independent", "benchmark=rotated_mnist", "model.hidden=[20]", "data=digits", *SMALL)
    few = run(compose_config(*words, "benchmark.angles=[0,20]", "benchmark.n_tasks=2"), tmp_path / "few").path
    many = run(compose_config(*words, "benchmark.angles=[0,20,70]", "benchmark.n_tasks=3"), tmp_path / "many").path
    assert np.array_equal(np.diag(read_matrix(few)), np.diag(read_matrix(many))[:2])


def test_augmentation_changes_training_and_no_data(tmp_path: Path) -> None:
    words = ("strategy=naive", "data=digits", "benchmark.n_tasks=1", "model.hidden=[20]", *SMALL)
    plain, shifted = (compose_config(*words, *extra) for extra in ((), ("train.shift=1", "train.rotate=20")))
    tasks = [load_sequence(config, torch.device("cpu")).tasks[0] for config in (plain, shifted)]
    for split in ("train", "valid", "test"):
        assert getattr(tasks[0], split).fingerprint() == getattr(tasks[1], split).fingerprint()
    one, two, again = (
        run(config, tmp_path / name).path for name, config in (("a", plain), ("b", shifted), ("c", shifted))
    )
    assert read_matrix(one)[0, 0] != read_matrix(two)[0, 0]
    assert read_matrix(two)[0, 0] == read_matrix(again)[0, 0]


INFERRED: dict[str, tuple[str, ...]] = {
    "class": (*EPN, "benchmark=split_mnist", "benchmark.scenario=class", "strategy.inference_batch=7"),
    "class-shared-head": (*PACKNET, "benchmark=split_mnist", "benchmark.scenario=class", "model.heads=shared"),
    "domain": (*PACKNET, "benchmark=split_mnist", "benchmark.scenario=domain", "strategy.inference_batch=1"),
    "domain-unequal": (
        *(*EPN, "benchmark=split_mnist", "benchmark.scenario=domain", "benchmark.n_tasks=2"),
        "benchmark.classes=[[0,1,2],[3,4]]",
    ),
    "permuted-domain": (*EPN, "benchmark.n_tasks=3", "benchmark.scenario=domain"),
}


@pytest.mark.parametrize("name", INFERRED)
def test_scenarios_without_a_task_label_by_entropy(name: str, tmp_path: Path) -> None:
    words = (*INFERRED[name], "data=digits", "model.hidden=[40]", "strategy.task_inference=entropy", *SMALL)
    config = compose_config(*words, "train.epochs=8")
    folder = run(config, tmp_path / "run").path
    record, matrix = read_record(folder), read_matrix(folder)
    assert record["zero_forgetting_verified"] is True, "masks hold, whichever of them is chosen"
    # With one output layer for all, the little that is left for the last task learns too slowly for these few steps.
    assert record["diverged_tasks"] == ([4] if name == "class-shared-head" else [])
    sequence, model = load_sequence(config, torch.device("cpu")), cl_powerprop.load(folder)
    curves = pd.read_csv(folder / "curves.csv").query("metric == 'task_identification'")
    shares = []
    for index, task in enumerate(sequence.tasks):
        with torch.no_grad():
            outputs = [model(task.test.images(), task=other) for other in range(len(sequence))]
        chosen = []
        for first in range(0, len(task.test), config.strategy.inference_batch):
            rows = slice(first, first + config.strategy.inference_batch)
            sums = [float(torch.distributions.Categorical(logits=output[rows]).entropy().sum()) for output in outputs]
            chosen += [sums.index(min(sums))] * len(outputs[0][rows])
        answers = [int(outputs[task_of][row].argmax()) for row, task_of in enumerate(chosen)]
        right = float((torch.tensor(answers) == task.test.labels).double().mean())
        assert right == pytest.approx(matrix[-1, index], abs=1e-12)
        shares.append(float(np.mean([choice == index for choice in chosen])))
        last = curves[(curves.eval_task == index) & (curves.trained_tasks == len(sequence))]
        assert last.value.tolist() == pytest.approx([shares[-1]])
    assert record["metrics"]["task_identification"] == pytest.approx(np.mean(shares))
    assert np.diag(matrix)[0] > 0.5, "with one mask there is nothing to confuse"


def test_omniglot_brings_data_and_model_and_they_can_be_overridden() -> None:
    config = compose_config("benchmark=omniglot")
    assert (config.data.name, config.model.name) == ("omniglot", "convnet")
    config = compose_config("benchmark=omniglot_rotation", "model=mlp")
    assert (config.data.name, config.model.name) == ("omniglot", "mlp")


def test_data_verify_and_status_of_the_small_set(
    omniglot_root: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("data", "status", "omniglot", "--root", omniglot_root) == 0
    assert "omniglot: present in" in capsys.readouterr().out
    assert command("data", "verify", "omniglot", "--root", omniglot_root) == 0
    assert "omniglot: whole, 120 drawings of 6 characters in 3 alphabets" in capsys.readouterr().out
