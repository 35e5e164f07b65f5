"""`learn` with a user's own Avalanche strategy: a run folder like ours, with its check of forgetting, for `compare`."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive, Replay
from avalanche.training.templates import SupervisedTemplate
from torch import nn

from cl_powerprop import (
    EPNPlugin,
    FastSupervisedTemplate,
    Parts,
    Results,
    compose,
    learn,
    load_benchmark,
    load_runs,
    load_task,
    powerpropagate,
    registry,
    run,
)
from cl_powerprop.errors import ConfigurationError, DivergedError, RunFolderError

from ..run.conftest import tree
from ..strategies.benchmarks import CLASSES, SIDE, make_benchmark
from .conftest import Command

pytestmark = pytest.mark.slow

OURS = ["data=digits", "benchmark.n_tasks=2", "train.epochs=2", "model.hidden=[16]", "progress=false", "strategy=naive"]
FACTS: dict[str, Any] = {"benchmark": "permuted", "data": "digits", "seed": 0}


def network(inputs: int = 64, classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, classes))


def stock(kind: type, model: nn.Module, lr: float = 0.1, **options: Any) -> Any:
    """A strategy of Avalanche's, as a user's script makes it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    usual = {"evaluator": None, "device": "cpu", "train_epochs": 2, "train_mb_size": 32, "eval_mb_size": 500}
    return kind(model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), **usual | options)


class Seeded(SupervisedPlugin):  # type: ignore[misc]
    """Every task draws the same, whatever was tested before it: Avalanche's loaders draw for a test too."""

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        torch.manual_seed(strategy.experience.current_experience)


def learn_by_hand(benchmark: Any, learner: Any) -> np.ndarray[Any, Any]:
    """A user's own loop, in which nothing of ours measures: accuracy on each task after each task."""
    accuracies = []
    for experience in benchmark.streams["train"]:
        learner.train(experience)
        learner.model.eval()
        row = []
        for task in benchmark.streams["test"]:
            samples = [task.dataset[index] for index in range(len(task.dataset))]
            images, labels = (
                torch.stack([each[0] for each in samples]),
                torch.tensor([int(each[1]) for each in samples]),
            )
            row.append(float((learner.model(images).argmax(1) == labels).double().mean()))
        accuracies.append(row)
    return np.array(accuracies)


def read_matrix(folder: str | Path) -> np.ndarray[Any, Any]:
    return np.genfromtxt(Path(folder) / "accuracy_matrix.csv", delimiter=",", skip_header=1)


def test_avalanches_replay_gives_the_run_folder_that_its_own_loop_measures(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = stock(Replay, network(), mem_size=50, plugins=[Seeded()])
    parts = Parts(load_benchmark(OURS, device="cpu"), learner)
    tasks = dict(vars(compose(OURS).benchmark))
    settings = {"benchmark": tasks, "optimizer": {"lr": 0.1}, "replay": {"mem_size": 50}}
    before = list(learner.plugins)
    results = learn(parts, Results.open("replay", parts, settings=settings, strategy="replay", **FACTS))
    assert learner.plugins == before, "the learner is as it was"

    again = stock(Replay, network(), mem_size=50, plugins=[Seeded()])
    expected = learn_by_hand(load_benchmark(OURS, device="cpu"), again)
    matrix = read_matrix("replay")
    np.testing.assert_allclose(np.tril(matrix), np.tril(expected), atol=1e-9)
    assert results.state.metrics["average_accuracy"] == pytest.approx(expected[-1].mean())

    record = json.loads(Path("replay/run.json").read_text())
    assert (record["status"], record["strategy"], record["optimizer"]) == ("complete", "replay", "sgd")
    assert record["zero_forgetting_verified"] is False, "weights have changed"
    assert record["trained_tasks"] == record["n_tasks"] == 2
    assert yaml.safe_load(Path("replay/config.yaml").read_text()) == {
        "train": {"epochs": 2, "batch_size": 32}
    } | settings | {"seed": 0}
    rows = [line.split(",") for line in Path("replay/curves.csv").read_text().splitlines()[1:]]
    assert {row[5] for row in rows} == {"train", "valid", "test"}
    assert len([row for row in rows if row[5:7] == ["train", "loss"]]) == 4, "two epochs of two tasks"

    ours = run([*OURS, "model.heads=shared", "model.alpha=1"], "ours")
    assert set(tree(ours.path)) - set(tree(Path("replay"))) == {"model.safetensors"}
    assert command("compare", "replay", "ours", "--out", "out") == 0
    summary = [line.split(",") for line in Path("out/summary.csv").read_text().splitlines()]
    place = {name: index for index, name in enumerate(summary[0])}
    shown = {
        row[place["group"]]: float(row[place["mean"]])
        for row in summary[1:]
        if row[place["metric"]] == "average_accuracy"
    }
    assert sorted(shown.values()) == pytest.approx(
        sorted([expected[-1].mean(), ours.record["metrics"]["average_accuracy"]])
    )
    assert any("replay" in group for group in shown)
    assert "permuted on digits" in capsys.readouterr().out


def test_a_plain_learner_with_our_plugin_forgets_nothing_and_that_is_checked() -> None:
    """Avalanche's template, a stock benchmark with a stream for validation, and an EPN plugin."""
    model = powerpropagate(network(SIDE * SIDE, CLASSES), 2.0)
    plugin = EPNPlugin(gamma=0.9, sparsities=[0.9, 0.6, 0.3], retrain_epochs=10)
    parts = Parts(make_benchmark(3), stock(SupervisedTemplate, model, train_epochs=30, plugins=[plugin]))
    results = learn(parts, Results.open("epn", parts, strategy="epn", benchmark="pictures", seed=4))
    record = json.loads(Path("epn/run.json").read_text())
    assert record["zero_forgetting_verified"] is True
    assert (record["strategy"], record["benchmark"], record["seed"]) == ("epn", "pictures", 4)
    matrix = read_matrix("epn")
    for task in range(3):
        assert len(set(matrix[task:, task])) == 1, "not a sample is answered otherwise"
    assert matrix.diagonal().mean() > 1.2 / CLASSES
    assert results.state.metrics["average_forgetting"] == 0.0
    assert results.state.metrics["validation_accuracy"] is not None


@pytest.mark.parametrize("labelled", [True, False], ids=["task labels", "no task labels"])
def test_a_benchmark_without_validation(labelled: bool) -> None:
    """As Avalanche's own have it: the streams train and test, and often no labels of tasks."""
    streams = {name: [each.dataset for each in stream] for name, stream in make_benchmark(2).streams.items()}
    made = benchmark_from_datasets(train=streams["train"], test=streams["test"])
    if not labelled:
        made = with_classes_timeline(made)
    else:
        tensors = [load_task(OURS, task) for task in range(2)]
        made = with_classes_timeline(
            benchmark_from_datasets(
                **{
                    name: [
                        _make_taskaware_tensor_classification_dataset(*pair, task_labels=task)
                        for task, pair in enumerate(tensors)
                    ]
                    for name in ("train", "test")
                }
            )
        )
    model = network() if labelled else network(SIDE * SIDE, CLASSES)
    parts = Parts(made, stock(Naive, model))
    learn(parts, Results.open("plain", parts, benchmark="images"))
    record = json.loads(Path("plain/run.json").read_text())
    assert (record["status"], record["strategy"], record["model"]) == ("complete", "Naive", "Sequential")
    assert record["metrics"]["validation_accuracy"] is None
    assert not np.isnan(np.diag(read_matrix("plain"))).any()
    rows = Path("plain/curves.csv").read_text().splitlines()[1:]
    assert {row.split(",")[5] for row in rows} == {"train", "test"}


def test_sinks_are_served_and_remembered(my_parts: Path) -> None:
    registry.import_modules(["my_parts"])
    parts = Parts(make_benchmark(2), stock(Naive, network(SIDE * SIDE, CLASSES)))
    sinks = compose(["logger=[lines]", "logger.lines.file=mine.txt"]).logger
    results = learn(parts, Results.open("run", parts, benchmark="images", sinks=sinks))
    lines = Path("run/mine.txt").read_text().splitlines()
    matrix = read_matrix("run")
    assert lines[:-1] == [
        f"{k + 1} {j} {matrix[k, j]:.4f}" for k in range(2) for j in range(2) if not np.isnan(matrix[k, j])
    ]
    assert lines[-1] == f"complete {results.state.metrics['average_accuracy']}"
    record = json.loads(Path("run/run.json").read_text())
    assert record["lines"] == {"opened": 1}
    assert record["metrics"]["worst_task"] == matrix[-1].min()


class Broken(SupervisedPlugin):  # type: ignore[misc]
    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        if strategy.experience.current_experience == 1:
            raise RuntimeError("the user's own fault")


def test_a_learner_that_fails_leaves_what_it_learned_and_its_plugins() -> None:
    learner = stock(Naive, network(SIDE * SIDE, CLASSES), plugins=[Broken()])
    before = list(learner.plugins)
    parts = Parts(make_benchmark(2), learner)
    with pytest.raises(RuntimeError, match="the user's own fault"):
        learn(parts, Results.open("run", parts, benchmark="images"))
    record = json.loads(Path("run/run.json").read_text())
    assert (record["status"], record["trained_tasks"], record["error"]) == ("failed", 1, "the user's own fault")
    assert not np.isnan(read_matrix("run")[0, 0])
    assert learner.plugins == before
    with pytest.raises(RunFolderError, match="never overwritten"):
        Results.open("run", parts, benchmark="images")


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    parts = Parts(make_benchmark(2), stock(Naive, network(SIDE * SIDE, CLASSES), lr=1e38))
    with pytest.raises(DivergedError, match="training diverged in task 0"):
        learn(parts, Results.open("run", parts, benchmark="images"))
    assert json.loads(Path("run/run.json").read_text())["status"] == "failed"


def test_a_learner_learns_for_one_run() -> None:
    """Nothing of ours is left on it that would write into the folder, and what it learns next is no run of its own."""
    learner = stock(Naive, network(SIDE * SIDE, CLASSES))
    parts = Parts(make_benchmark(2), learner)
    results = learn(parts, Results.open("first", parts, benchmark="images"))
    before = tree(Path("first"))
    learner.train(make_benchmark(1).streams["train"][0])
    with pytest.raises(ConfigurationError, match="has trained before"):
        learn(parts, Results.open("second", parts, benchmark="images"))
    with pytest.raises(RunFolderError, match="recorded already"):
        learn(parts, results)
    assert tree(Path("first")) == before


def test_a_run_that_was_interrupted_is_not_learned_on_by_a_second_call(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = stock(Naive, network(SIDE * SIDE, CLASSES))
    parts = Parts(make_benchmark(2), learner)
    results = Results.open("run", parts, benchmark="images")
    whole = type(learner).train

    def interrupted(self: Any, experience: Any, **options: Any) -> None:
        if experience.current_experience == 1:
            raise KeyboardInterrupt
        whole(self, experience, **options)

    monkeypatch.setattr(type(learner), "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learn(parts, results)
    before = tree(Path("run"))
    with pytest.raises(RunFolderError, match="recorded already"):
        learn(parts, results)
    assert tree(Path("run")) == before


def test_a_run_says_what_its_benchmark_is() -> None:
    parts = Parts(make_benchmark(2), stock(Naive, network(SIDE * SIDE, CLASSES)))
    with pytest.raises(ConfigurationError, match="say what the benchmark is"):
        Results.open("run", parts)
    with pytest.raises(ConfigurationError, match=r"facts of a run must be one of .*strategy"):
        Results.open("run", parts, benchmark="images", stratgy="mine")
    assert not Path("run").exists()


def test_streams_that_do_not_fit_together_are_refused() -> None:
    learner = stock(Naive, network(SIDE * SIDE, CLASSES))
    benchmark = make_benchmark(3)
    streams = dict(benchmark.streams)
    with pytest.raises(ConfigurationError, match="stream valid has 3 experiences, and test 1"):
        Parts(SimpleNamespace(streams=streams | {"test": streams["test"][:1]}), learner)
    streams.pop("valid")
    fewer = SimpleNamespace(streams=streams | {"test": streams["test"][:1]})
    with pytest.raises(ConfigurationError, match="up to task 0 of the test stream"):
        Parts(fewer, learner)
    more = SimpleNamespace(streams=streams | {"train": streams["train"][:2]})
    with pytest.raises(ConfigurationError, match="up to task 2"):
        Parts(more, learner)
    with pytest.raises(ConfigurationError, match="needs the streams train and test"):
        Parts(SimpleNamespace(streams={"train": streams["train"]}), learner)


def test_the_fast_template_is_the_stock_one_here_too() -> None:
    folders = {}
    for kind in (SupervisedTemplate, FastSupervisedTemplate):
        parts = Parts(load_benchmark(OURS, device="cpu"), stock(kind, network(), plugins=[Seeded()]))
        learn(parts, Results.open(kind.__name__, parts, **FACTS))
        folders[kind] = read_matrix(kind.__name__)
    stock_one, fast_one = folders.values()
    assert np.abs(stock_one - fast_one)[~np.isnan(stock_one)].max() < 0.1, "batches come in another order"


def test_what_is_said_of_a_run_is_what_compare_groups_by() -> None:
    for seed in (0, 1):
        for size in (10, 20):
            torch.manual_seed(seed)
            parts = Parts(make_benchmark(2), stock(Replay, network(SIDE * SIDE, CLASSES), mem_size=size))
            settings = {"replay": {"mem_size": size}}
            learn(
                parts,
                Results.open(
                    f"runs/{size}-{seed}", parts, benchmark="images", settings=settings, strategy="replay", seed=seed
                ),
            )
    runs = load_runs("runs").runs
    assert sorted(zip(runs["replay.mem_size"], runs["seed"], strict=True)) == [(10, 0), (10, 1), (20, 0), (20, 1)]
    assert set(runs["strategy"]) == {"replay"}
