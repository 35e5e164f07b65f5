"""The recording plugin in a user's own training loop: run folder, W&B and TensorBoard, with any Avalanche strategy."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.models import SimpleMLP
from avalanche.training import supervised
from avalanche.training.templates import SupervisedTemplate
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from cl_powerprop import (
    EPNPlugin,
    FastSupervisedTemplate,
    Parts,
    RecordingPlugin,
    Results,
    compose,
    in_memory,
    learn,
    powerpropagate,
)
from cl_powerprop.errors import ConfigurationError, RunFolderError

from ..run.conftest import tree
from ..strategies.benchmarks import CLASSES, SIDE, make_benchmark
from ..tracking.conftest import inspect, inspect_summary, wandb_files
from .conftest import Command
from .test_own_loop import Seeded, network, read_matrix, stock

pytestmark = pytest.mark.slow

TASKS = 3


def small() -> nn.Module:
    return network(SIDE * SIDE, CLASSES)


def train_and_test(learner: Any, benchmark: Any) -> None:
    """The loop of a user's script."""
    for experience in benchmark.train_stream:
        learner.train(experience)
        learner.eval(benchmark.test_stream)


def record_of(folder: str | Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / "run.json").read_text())
    return content


def with_masks(plugins: list[Any]) -> Any:
    """EPN on Avalanche's own template."""
    model = powerpropagate(small(), 2.0)
    masks = EPNPlugin(gamma=0.9, sparsities=[0.9, 0.6, 0.3], retrain_epochs=2)
    return stock(SupervisedTemplate, model, train_epochs=6, plugins=[*plugins, masks, Seeded()])


def test_a_loop_of_ones_own_is_recorded_as_ours_is(command: Command) -> None:
    """The same numbers and files as by `learn`, though nothing but the plugin measures."""
    benchmark = make_benchmark(TASKS)
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures", strategy="epn", seed=4)
    learner = with_masks([recording])
    for experience in benchmark.train_stream:
        learner.train(experience)
        learner.eval(benchmark.streams["valid"])
        learner.eval(benchmark.test_stream)
    parts = Parts(make_benchmark(TASKS), with_masks([]))
    learn(parts, Results.open("ours", parts, benchmark="pictures", strategy="epn", seed=4))

    mine, ours = tree(Path("mine")), tree(Path("ours"))
    assert set(mine) == set(ours)
    for name in ("accuracy_matrix.csv", "capacity.csv", "reuse.csv", "mask_overlap.csv", "weights.csv", "config.yaml"):
        assert mine[name] == ours[name], name
    record, expected = record_of("mine"), record_of("ours")
    assert record["zero_forgetting_verified"] is True
    for key in ("status", "strategy", "model", "n_tasks", "trained_tasks", "scenario", "diverged_tasks"):
        assert record[key] == expected[key], key
    same = {name for name in expected["metrics"] if name != "validation_accuracy"}
    assert {name: record["metrics"][name] for name in same} == {name: expected["metrics"][name] for name in same}
    assert record["metrics"]["validation_accuracy"] is not None
    one, two = (
        pd.read_csv(f"{folder}/curves.csv").query("split != 'valid'").drop(columns="run_id").reset_index(drop=True)
        for folder in ("mine", "ours")
    )
    pd.testing.assert_frame_equal(one, two)
    assert command("compare", "mine", "ours", "--out", "out") == 0


def scalars(folder: str) -> dict[str, list[float]]:
    events = EventAccumulator(folder)
    events.Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
def test_dashboards_have_our_curves(masks: bool) -> None:
    benchmark = make_benchmark(TASKS)
    words = ["logger=[wandb,tensorboard]", "logger.wandb.mode=offline", "logger.wandb.dir=."]
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures", sinks=compose(words).logger)
    learner = with_masks([recording]) if masks else stock(supervised.Naive, small(), plugins=[recording])
    train_and_test(learner, benchmark)
    matrix = read_matrix("mine")
    assert record_of("mine")["messages"] == []

    drawn = scalars("mine")
    (file,) = wandb_files(Path())
    sent: dict[str, list[float]] = {}
    for line in inspect(file):
        for name, value in (line["history"]["item"] if line["type"] == "history" else {}).items():
            sent.setdefault(name, []).append(value)
    for curves in (drawn, sent):
        for task in range(TASKS):
            np.testing.assert_allclose(curves[f"test/accuracy/task_{task:02}"][-(TASKS - task) :], matrix[task:, task])
            assert len(curves[f"train/loss/task_{task:02}"]) == (6 if masks else 2)
        assert len(curves["capacity/used"]) == TASKS
        assert (len([name for name in curves if name.endswith("/reused")]) > 0) == masks
        assert curves["capacity/used"][-1] == pytest.approx(record_of("mine")["metrics"]["capacity_used"])
    read = inspect_summary(file)
    assert (read["summary"]["status"], read["state"]) == ("complete", "finished")
    assert read["summary"]["average_accuracy"] == record_of("mine")["metrics"]["average_accuracy"]
    assert "tables/accuracy_matrix" in read["summary"]
    assert ("tables/reuse" in read["summary"]) == masks


STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "Naive": {},
    "Cumulative": {},
    "Replay": {"mem_size": 20},
    "LwF": {"alpha": 1.0, "temperature": 2.0},
    "EWC": {"ewc_lambda": 1.0},
    "MAS": {},
    "AGEM": {"patterns_per_exp": 10, "sample_size": 5},
    "GDumb": {"mem_size": 20},
    "FromScratchTraining": {},
    "SynapticIntelligence": {"si_lambda": 0.1},
    "ER_ACE": {"mem_size": 20},
    "DER": {"mem_size": 20},
}


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_avalanches_strategies(name: str) -> None:
    benchmark = make_benchmark(2)
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures")
    train_and_test(stock(getattr(supervised, name), small(), plugins=[recording], **STRATEGIES[name]), benchmark)
    record = record_of("mine")
    assert (record["status"], record["strategy"], record["trained_tasks"]) == ("complete", name, 2)
    assert not np.isnan(read_matrix("mine")).any(), "unseen tasks are tested too"
    curves = pd.read_csv("mine/curves.csv")
    assert set(curves.query("split == 'train' and metric == 'loss'").eval_task) == {0, 1}
    assert record["zero_forgetting_verified"] is False


def test_joint_training_learns_all_tasks_at_once() -> None:
    benchmark = make_benchmark(2)
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures")
    learner = stock(supervised.JointTraining, small(), plugins=[recording])
    learner.train(benchmark.train_stream)
    learner.eval(benchmark.test_stream)
    assert record_of("mine")["status"] == "complete"
    matrix = read_matrix("mine")
    assert np.isnan(matrix[0]).all()
    assert not np.isnan(matrix[1]).any()


@pytest.mark.parametrize("fast", [False, True])
def test_a_whole_stream_in_one_call_with_tests_on_the_way(fast: bool) -> None:
    """`train(stream)`, a last plugin that is ours, and Avalanche's own periodic evaluation."""
    benchmark = in_memory(make_benchmark(TASKS)) if fast else make_benchmark(TASKS)
    kind = FastSupervisedTemplate if fast else SupervisedTemplate
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures")
    masks = EPNPlugin(gamma=0.9, sparsities=[0.6, 0.3], retrain_epochs=1)
    learner = stock(kind, powerpropagate(small(), 2.0), train_epochs=4, plugins=[masks, recording], eval_every=2)
    learner.train(benchmark.train_stream, eval_streams=[benchmark.test_stream])
    learner.eval(benchmark.test_stream)
    record = record_of("mine")
    assert (record["status"], record["zero_forgetting_verified"]) == ("complete", True)
    matrix = read_matrix("mine")
    assert not np.isnan(np.tril(matrix)[np.tril_indices(TASKS)]).any()
    capacity = pd.read_csv("mine/capacity.csv")
    assert set(capacity.task) == set(range(TASKS))
    tested = pd.read_csv("mine/curves.csv").query("split == 'test' and metric == 'accuracy' and eval_task == 0")
    assert len(set(tested.step)) > TASKS, "within tasks too"
    assert tested.step.is_monotonic_increasing


def test_a_task_that_stops_early_counts_its_own_epochs() -> None:
    benchmark = make_benchmark(2)
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures")

    class Stops(Seeded):
        def after_training_epoch(self, strategy: Any, **_: Any) -> None:
            if strategy.clock.train_exp_epochs == 1:
                strategy.stop_training()

    train_and_test(stock(supervised.Naive, small(), train_epochs=5, plugins=[recording, Stops()]), benchmark)
    curves = pd.read_csv("mine/curves.csv")
    assert list(curves.query("split == 'test' and eval_task == 0 and metric == 'loss'").epoch) == [2, 2]
    assert record_of("mine")["status"] == "complete"


def test_measuring_changes_nothing() -> None:
    weights = []
    for number, plugins in enumerate(([], [RecordingPlugin("mine", make_benchmark(2), benchmark="pictures")])):
        learner = stock(supervised.Naive, small(), plugins=[*plugins, Seeded()])
        train_and_test(learner, make_benchmark(2))
        weights.append(torch.cat([value.flatten() for value in learner.model.parameters()]))
        assert number == len(plugins)
    assert torch.equal(*weights)


def test_forward_transfer_from_a_test_before_training() -> None:
    benchmark = make_benchmark(2)
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures")
    learner = stock(supervised.Naive, small(), plugins=[recording])
    learner.eval(benchmark.test_stream)
    train_and_test(learner, benchmark)
    assert record_of("mine")["metrics"]["forward_transfer"] is not None


def test_a_loop_that_ends_before_the_last_task_is_a_failed_run() -> None:
    benchmark = make_benchmark(TASKS)
    with RecordingPlugin("mine", benchmark, benchmark="pictures") as recording:
        learner = stock(supervised.Naive, small(), plugins=[recording])
        learner.train(benchmark.train_stream[0])
        learner.eval(benchmark.test_stream)
    record = record_of("mine")
    assert (record["status"], record["error"]) == ("failed", "the run was ended after 1 of 3 tasks")
    assert not np.isnan(read_matrix("mine")[0]).any(), "what was measured is there"


def test_a_loop_that_fails_leaves_what_it_learned() -> None:
    benchmark = make_benchmark(2)

    def fail() -> None:
        with RecordingPlugin("mine", benchmark, benchmark="pictures") as recording:
            learner = stock(supervised.Naive, small(), plugins=[recording])
            learner.train(benchmark.train_stream[0])
            learner.eval(benchmark.test_stream)
            raise RuntimeError("the user's own fault")

    with pytest.raises(RuntimeError, match="the user's own fault"):
        fail()
    record = record_of("mine")
    assert (record["status"], record["error"], record["trained_tasks"]) == ("failed", "the user's own fault", 1)
    assert not np.isnan(read_matrix("mine")[0]).any()


def test_a_run_without_tests_is_complete_when_it_is_closed() -> None:
    benchmark = make_benchmark(2)
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures")
    learner = stock(supervised.Naive, small(), plugins=[recording])
    for experience in benchmark.train_stream:
        learner.train(experience)
    assert record_of("mine")["status"] == "running"
    learner.eval(benchmark.test_stream[:1])
    recording.close()
    recording.close()
    record = record_of("mine")
    assert record["status"] == "complete"
    assert record["metrics"]["average_accuracy"] is None, "task 1 was not tested"


def test_mistakes_are_one_line() -> None:
    benchmark = make_benchmark(2)
    with pytest.raises(ConfigurationError, match="say what the benchmark is"):
        stock(supervised.Naive, small(), plugins=[RecordingPlugin("a", benchmark)]).train(benchmark.train_stream[0])
    assert not Path("a").exists()
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures")
    learner = stock(supervised.Naive, small(), plugins=[recording])
    train_and_test(learner, benchmark)
    before = tree(Path("mine"))
    learner.eval(benchmark.test_stream)  # which is no part of the run, and no harm
    with pytest.raises(ConfigurationError, match="the run in mine is over"):
        learner.train(benchmark.train_stream[0])
    assert tree(Path("mine")) == before
    again = stock(supervised.Naive, small(), plugins=[RecordingPlugin("mine", benchmark, benchmark="pictures")])
    with pytest.raises(RunFolderError, match="never overwritten"):
        again.train(benchmark.train_stream[0])
    recording = RecordingPlugin("b", benchmark, benchmark="pictures")
    backwards = stock(supervised.Naive, small(), plugins=[recording])
    with pytest.raises(ConfigurationError, match="task 1 is trained after no other; a run learns all tasks in"):
        backwards.train(benchmark.train_stream[1])
    for experience in benchmark.train_stream[:2]:
        backwards.train(experience)
    with pytest.raises(ConfigurationError, match="task 0 is trained after task 1"):
        backwards.train(benchmark.train_stream[0])
    recording.close()


def test_a_loss_that_is_not_finite_is_told_once_a_task_and_stops_nothing() -> None:
    benchmark = make_benchmark(2)
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures")
    train_and_test(stock(supervised.Naive, small(), lr=1e38, plugins=[recording]), benchmark)
    record = record_of("mine")
    assert record["status"] == "complete"
    told = [message for message in record["messages"] if "the loss is" in message]
    assert [message.partition(",")[0] for message in told] == [f"training diverged in task {task}" for task in (0, 1)]


@pytest.fixture(autouse=True)
def no_wandb_left() -> Iterator[None]:
    from cl_powerprop.tracking.wandb_service import end_service

    yield
    end_service()


def test_a_task_in_many_experiences_is_entered_once() -> None:
    """An online stream: the experiences that are trained are parts of the benchmark's."""
    benchmark = make_benchmark(2)
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures")
    learner = stock(supervised.Naive, small(), train_epochs=1, plugins=[recording])
    for task in range(2):
        for part in split_online_stream(benchmark.train_stream[task : task + 1], 16):
            learner.train(part)
        learner.eval(benchmark.test_stream)
    record = record_of("mine")
    assert (record["status"], record["trained_experiences"], len(record["task_seconds"])) == ("complete", 2, 2)
    epochs = pd.read_csv("mine/curves.csv").query("split == 'train' and metric == 'loss' and eval_task == 1").epoch
    assert list(epochs) == [1, 2, 3, 4], "64 samples, 16 at a time"


def test_a_learner_without_an_optimizer() -> None:
    benchmark = make_benchmark(2)
    recording = RecordingPlugin("mine", benchmark, benchmark="pictures")
    model = SimpleMLP(input_size=SIDE * SIDE, num_classes=CLASSES, hidden_size=8)
    learner = supervised.StreamingLDA(
        slda_model=model,
        criterion=nn.CrossEntropyLoss(),
        input_size=CLASSES,
        num_classes=CLASSES,
        evaluator=None,
        plugins=[recording],
    )
    train_and_test(learner, benchmark)
    record = record_of("mine")
    assert (record["status"], record["optimizer"]) == ("complete", None)


SCRIPT = """
from avalanche.training.supervised import Naive
from cl_powerprop import RecordingPlugin, compose
from tests.doors.test_own_loop import network, stock
from tests.strategies.benchmarks import make_benchmark

benchmark = make_benchmark(2)
sinks = compose(["logger=[wandb]", "logger.wandb.mode=offline"]).logger
recording = RecordingPlugin("mine", benchmark, benchmark="pictures", sinks=sinks)
learner = stock(Naive, network(16, 3), plugins=[recording])
for experience in benchmark.train_stream:
    learner.train(experience)
"""


def test_a_script_that_ends_without_a_test_leaves_a_complete_run(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert (record_of("mine")["status"], record_of("mine")["trained_tasks"]) == ("complete", 2)
    assert len(wandb_files(Path("runs"))) == 1


def test_runs_of_a_script_differ_by_what_its_plugin_was_given() -> None:
    benchmark = make_benchmark(2)
    for index, (alpha, gamma) in enumerate([(1.0, 0.9), (2.0, 0.98)]):
        recording = RecordingPlugin(f"run{index}", benchmark, benchmark="pictures")
        plugins = [recording, EPNPlugin(gamma=gamma, sparsities=[0.5])]
        learner = stock(supervised.Naive, powerpropagate(small(), alpha), plugins=plugins)
        train_and_test(learner, benchmark)
        record = json.loads(Path(f"run{index}/run.json").read_text())
        assert record["alpha"] == alpha
        written = yaml.safe_load(Path(f"run{index}/config.yaml").read_text())
        assert (written["strategy"]["masks"], written["strategy"]["gamma"]) == ("EPNPlugin", gamma)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sinks": "wandb"}, "sinks are options by name"),
        ({"sinks": ["wandb"]}, "sinks are options by name"),
        ({"sead": 1}, "facts of a run must be one of .*seed.*, not 'sead'"),
    ],
)
def test_options_that_cannot_be_are_one_line(options: dict[str, Any], message: str) -> None:
    benchmark = make_benchmark(2)
    learner = stock(supervised.Naive, small(), plugins=[RecordingPlugin("mine", benchmark, benchmark="x", **options)])
    with pytest.raises(ConfigurationError, match=message):
        learner.train(benchmark.train_stream[0])
    assert not Path("mine").exists()
