"""All strategies, plugins, metrics and loggers of Avalanche on a benchmark that in_memory has wrapped: same results.

Left out: what fails on stock benchmarks too (LaMAML without `higher`, W&B's logger with today's W&B, ExpertGate with
today's torchvision), AR1, which downloads a network, and object detection.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qpsolvers
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.evaluation import metrics as of
from avalanche.logging import CSVLogger, InteractiveLogger, TensorboardLogger, TextLogger
from avalanche.models import FeCAMClassifier, MlpVAE, NCMClassifier, TrainEvalModel
from avalanche.training import plugins as stock_plugins
from avalanche.training.plugins import EvaluationPlugin, bic
from avalanche.training.storage_policy import (
    ClassBalancedBuffer,
    ExperienceBalancedBuffer,
    HerdingSelectionStrategy,
    ParametricBuffer,
    ReservoirSamplingBuffer,
)
from avalanche.training.supervised import (
    AETraining,
    GenerativeReplay,
    Naive,
    OnlineNaive,
    VAETraining,
)
from avalanche.training.templates import SupervisedTemplate
from torch import nn

from cl_powerprop import FastSupervisedTemplate, in_memory

from .avalanche_strategies import (
    CLASSES,
    FEATURES,
    HIDDEN,
    STRATEGIES,
    WITH_TASK_LABELS,
    avalanche_class,
    evaluator,
    make,
    mlp,
    outcome,
    seed_all,
    stock_benchmark,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# Without a shuffled order these draw nothing, so that two loaders give the same batches.
DETERMINISTIC = (
    *("Naive", "Cumulative", "JointTraining", "FromScratchTraining", "CWRStar", "LwF", "EWC", "LFL", "MAS"),
    *("SynapticIntelligence", "ICaRL", "PackNet"),
)
ON_THE_FAST_PATH = [name for name in STRATEGIES if issubclass(avalanche_class(name), SupervisedTemplate)]


@pytest.fixture(autouse=True)
def _work_with_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """BiC gives torch's scheduler an argument that it no longer has, and GEM wants a solver of quadratic programs."""
    scheduler = torch.optim.lr_scheduler.MultiStepLR
    monkeypatch.setattr(bic, "MultiStepLR", lambda *given, verbose, **options: scheduler(*given, **options))
    monkeypatch.setattr(
        qpsolvers, "solve_qp", lambda **program: np.maximum(np.linalg.solve(program["P"], -program["q"]), 0)
    )


def benchmarks(labels: bool = False, **options: Any) -> tuple[Any, Any]:
    stock = stock_benchmark(labels, **options)
    return stock, in_memory(stock)


def assert_same(one: Any, other: Any) -> None:
    (_, weights, results), (_, its_weights, its_results) = one, other
    assert weights.keys() == its_weights.keys()
    assert all(torch.equal(weights[key], its_weights[key]) for key in weights)
    assert results
    assert its_results == results


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_ends_with_the_same_weights_and_results(name: str) -> None:
    stock, wrapped = (outcome(name, benchmark) for benchmark in benchmarks(name in WITH_TASK_LABELS))
    assert_same(stock, wrapped)


@pytest.mark.parametrize("name", ON_THE_FAST_PATH)
def test_a_strategy_runs_on_the_fast_path(name: str) -> None:
    stock, wrapped = benchmarks(name in WITH_TASK_LABELS)
    fast = outcome(name, wrapped, FastSupervisedTemplate, shuffle=False)
    assert fast[2]
    if name in DETERMINISTIC:
        assert_same(outcome(name, stock, shuffle=False), fast)


def train(benchmark: Any, *plugins: Any, model: nn.Module | None = None, **options: Any) -> Any:
    """Train Naive with some plugins; return it, its weights, and its results."""
    seed_all()
    model = model or mlp()
    strategy = make(options.pop("kind", Naive), model, plugins=list(plugins), **options)
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
    return strategy, model.state_dict(), strategy.eval(benchmark.test_stream)


def ncm(update: Any, classifier: type[nn.Module] = NCMClassifier) -> Any:
    def run(benchmark: Any) -> Any:
        seed_all()
        whole = mlp()
        model = TrainEvalModel(whole.features, whole.classifier, classifier())
        return train(benchmark, update(), model=model)

    return run


def scheduled(benchmark: Any) -> Any:
    seed_all()
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    plugin = stock_plugins.LRSchedulerPlugin(scheduler, metric="val_loss", reset_lr=True)
    return train(benchmark, plugin, model=model, optimizer=optimizer, eval_every=1)


PLUGINS = {
    "EarlyStopping": lambda benchmark: train(
        benchmark, stock_plugins.EarlyStoppingPlugin(1, "test_stream"), eval_every=1, train_epochs=4
    ),
    "LRScheduler": scheduled,
    "RWalk": lambda benchmark: train(benchmark, stock_plugins.RWalkPlugin(0.1, 0.9, 2)),
    "RAR": lambda benchmark: train(benchmark, stock_plugins.RARPlugin(8, 30, name_ext_layer="features")),
    "CurrentDataNCMUpdate": ncm(stock_plugins.CurrentDataNCMUpdate),
    "MemoryNCMUpdate": ncm(stock_plugins.MemoryNCMUpdate),
    "NCMOracle": ncm(stock_plugins.NCMOracle),
    "CurrentDataFeCAMUpdate": ncm(stock_plugins.CurrentDataFeCAMUpdate, FeCAMClassifier),
    "MemoryFeCAMUpdate": ncm(stock_plugins.MemoryFeCAMUpdate, FeCAMClassifier),
    "FeCAMOracle": ncm(stock_plugins.FeCAMOracle, FeCAMClassifier),
}
"""Those that are not in a strategy above."""


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_gives_the_same_weights_and_results(name: str) -> None:
    stock, wrapped = benchmarks()
    assert_same(PLUGINS[name](stock), PLUGINS[name](wrapped))


POLICIES = {
    "reservoir": lambda _: ReservoirSamplingBuffer(25),
    "experience": lambda _: ExperienceBalancedBuffer(25),
    "class": lambda _: ClassBalancedBuffer(25),
    "task": lambda _: ParametricBuffer(25, groupby="task"),
    "herding": lambda model: ParametricBuffer(
        25, groupby="class", selection_strategy=HerdingSelectionStrategy(model, "features")
    ),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_replay_buffer_holds_the_same_samples_and_does_not_nest_deeper(policy: str) -> None:
    held, depths = [], []
    for benchmark in benchmarks(labels=True):
        seed_all()
        model = mlp()
        buffer = POLICIES[policy](model)
        plugin = stock_plugins.ReplayPlugin(25, storage_policy=buffer)
        strategy = make(Naive, model, plugins=[plugin])
        for experience in benchmark.train_stream:
            strategy.train(experience)
            depths.append(buffer.buffer._tree_depth())
        held.append([(image.tolist(), int(label), task) for image, label, task in buffer.buffer])
        assert len(held[-1]) == 25
    assert held[0] == held[1]
    stock, wrapped = depths[:5], depths[5:]
    assert len(set(stock)) == 1
    assert len(set(wrapped)) == 1
    assert max(wrapped) <= max(stock)


def every_metric(folder: Path) -> list[Any]:
    when = {"minibatch": True, "epoch": True, "experience": True, "stream": True}
    return [
        *of.accuracy_metrics(**when, epoch_running=True, trained_experience=True),
        *of.loss_metrics(**when, epoch_running=True),
        *of.class_accuracy_metrics(**when, epoch_running=True),
        *of.topk_acc_metrics(top_k=3, **when, epoch_running=True, trained_experience=True),
        *of.forgetting_metrics(experience=True, stream=True),
        *of.bwt_metrics(experience=True, stream=True),
        *of.forward_transfer_metrics(experience=True, stream=True),
        *of.accuracy_matrix_metrics(),
        of.amca_metrics(),
        *of.confusion_matrix_metrics(stream=True, save_image=False),
        *of.confusion_matrix_metrics(stream=True, num_classes=CLASSES, normalize="all"),
        *of.labels_repartition_metrics(on_train=True, on_eval=True, image_creator=None),
        *of.mean_scores_metrics(image_creator=None),
        *of.images_samples_metrics(on_train=True, on_eval=True),
        of.WeightCheckpoint(),
        *of.MAC_metrics(**dict.fromkeys(("minibatch", "epoch", "experience"), True)),
        *of.timing_metrics(**when),
        *of.cpu_usage_metrics(**when),
        *of.ram_usage_metrics(every=0.01, **when),
        *of.disk_usage_metrics(paths_to_monitor=[str(folder)], **when),
        of.CumulativeAccuracyPluginMetric(),
        of.CumulativeForgettingPluginMetric(),
    ]


MEASURED_IN_SECONDS_OR_BYTES = ("Time_", "CPUUsage", "MaxRAM", "DiskUsage")


def measure(benchmark: Any, kind: type[SupervisedTemplate], folder: Path) -> tuple[dict[str, Any], int]:
    """Return every value that every metric emits, and the number of lines that the text logger writes."""
    seed_all()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    text = io.StringIO()
    loggers = [CSVLogger(folder / "csv"), TensorboardLogger(folder / "tb"), TextLogger(text), InteractiveLogger()]
    evaluation = EvaluationPlugin(every_metric(folder), loggers=loggers, collect_all=True)
    strategy = make(kind, model, evaluator=evaluation, eval_every=0, train_epochs=1)
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience, eval_streams=[benchmark.test_stream], shuffle=False)
        strategy.eval(benchmark.test_stream[:])
    assert (folder / "csv" / "eval_results.csv").stat().st_size > 100
    assert list((folder / "tb").iterdir())
    return evaluation.get_all_metrics(), len(text.getvalue().splitlines())


def test_metrics_measure_and_loggers_log_the_same(tmp_path: Path) -> None:
    benchmark = stock_benchmark(shape=(1, 4, 4), count=60)
    stock, lines = measure(benchmark, Naive, tmp_path / "stock")
    assert len(stock) > 60
    for kind in (Naive, FastSupervisedTemplate):
        wrapped, its_lines = measure(in_memory(benchmark), kind, tmp_path / kind.__name__)
        assert its_lines == lines
        assert list(wrapped) == list(stock)
        for name, (steps, values) in stock.items():
            assert wrapped[name][0] == steps, name
            if name.startswith(MEASURED_IN_SECONDS_OR_BYTES):
                continue
            for value, its in zip(values, wrapped[name][1], strict=True):
                if isinstance(value, int | float):
                    assert its == pytest.approx(value, nan_ok=True), name
                elif isinstance(value, torch.Tensor):
                    assert torch.equal(its, value), name


@pytest.mark.parametrize("replays", [False, True])
def test_models_that_generate(replays: bool) -> None:
    results = []
    for benchmark in benchmarks(shape=(1, 4, 4), count=60):
        seed_all()
        model = MlpVAE((1, 4, 4), nhid=4)
        options = {"train_mb_size": 12, "train_epochs": 1, "evaluator": evaluator()}
        if replays:
            network = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
            sgd = torch.optim.SGD(network.parameters(), lr=0.05)
            generator = VAETraining(
                model=model,
                optimizer=torch.optim.Adam(model.parameters()),
                train_mb_size=12,
                evaluator=EvaluationPlugin(loggers=[]),
                plugins=[stock_plugins.GenerativeReplayPlugin()],
            )
            strategy = GenerativeReplay(model=network, optimizer=sgd, generator_strategy=generator, **options)
        else:
            options["evaluator"] = EvaluationPlugin(of.loss_metrics(epoch=True), loggers=[])
            strategy = VAETraining(model=model, optimizer=torch.optim.Adam(model.parameters()), **options)
        for experience in benchmark.train_stream:
            strategy.train(experience)
        results.append((strategy, strategy.model.state_dict(), {"done": True}))
    assert_same(*results)


def test_autoencoders() -> None:
    class Autoencoder(nn.Linear):
        feature_module = nn.Identity()

    results = []
    for benchmark in benchmarks():
        seed_all()
        model = Autoencoder(FEATURES, FEATURES)
        strategy = AETraining(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
            device="cpu",
            train_mb_size=12,
            evaluator=EvaluationPlugin(of.loss_metrics(epoch=True, stream=True), loggers=[]),
        )
        for experience in benchmark.train_stream:
            strategy.train(experience)
        results.append((strategy, model.state_dict(), strategy.eval(benchmark.test_stream)))
    assert_same(*results)


@pytest.mark.parametrize("boundaries", [False, True])
def test_online_streams(boundaries: bool) -> None:
    results = []
    for benchmark in benchmarks():
        seed_all()
        online = split_online_stream(
            benchmark.train_stream, experience_size=6, seed=0, access_task_boundaries=boundaries
        )
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        strategy = OnlineNaive(model=model, optimizer=optimizer, train_mb_size=3, evaluator=evaluator())
        if boundaries:
            for experience in online:
                strategy.train(experience)
        else:
            strategy.train(online)
        results.append((strategy, model.state_dict(), strategy.eval(benchmark.test_stream)))
    assert_same(*results)
