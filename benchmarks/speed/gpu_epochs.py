"""An epoch and a task of 784-100-100-10, and the launches of a step, against bare loops."""

import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from common import Trained, bare_epoch, make_config, synchronize
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from cl_powerprop.assemble import choose_device, load_sequence
from cl_powerprop.config import RunConfig
from cl_powerprop.models.mlp import mlp
from cl_powerprop.networks.classifier import Classifier

if TYPE_CHECKING:
    from gpu import Sizes, Tables

BATCH, EPOCHS, REPEATS, STOCK_BATCHES = 128, 5, 8, 20
BARE, GRAPHED, STOCK = "bare loop", "bare loop, CUDA graphs", "stock Avalanche"
COMMON = [f"train.epochs={EPOCHS}", f"train.batch_size={BATCH}", "train.clip_norm=null", "benchmark.validation=10"]
NAIVE = ["strategy=naive", "model.alpha=1", "model.init_scale=1", "model.heads=shared", "optimizer.lr=0.1"]
PACKNET = ["strategy=packnet", "strategy.retrain_epochs=1", "model.alpha=1", "optimizer.lr=0.1"]
EPN = ["strategy=epn", "strategy.retrain_epochs=1", "model.alpha=2"]
WITHOUT = "train.cuda_graphs=false"
STRATEGIES = {
    "naive": NAIVE,
    "packnet": PACKNET,
    "epn": EPN,
    "naive, no graphs": [*NAIVE, WITHOUT],
}
SLOW = (STOCK, "naive, no graphs")  # measured once, since they take ten times as long as all others


def measure_epochs(sizes: "Sizes") -> "Tables":
    """Yield seconds of an epoch and of a whole task, as medians, and their ratios to the bare loops of that repeat.

    A task is counted in epochs of the bare loop: its time by the time of as many epochs. In the first task, which is
    left out, everything warms up, and nothing is frozen.
    """
    repeats = sizes.either(REPEATS, 1)
    configs = _configs(sizes, repeats + 1)
    device = choose_device(sizes.device)
    sequence = load_sequence(configs["naive"], device)
    seconds: dict[str, list[tuple[float, float]]] = {}  # by way: of an epoch, and of a task by its epochs
    with contextlib.ExitStack() as stack:
        trained = {
            name: stack.enter_context(contextlib.closing(Trained(config, sequence))) for name, config in configs.items()
        }
        for repeat in range(repeats + 1):
            split = sequence.tasks[repeat].train
            images, labels = split.images(), split.labels
            found = {way: loop() for way, loop in _loops(images, labels).items() if _is_due(way, repeat)}
            for name, strategy in trained.items():
                if _is_due(name, repeat):
                    epochs, whole = strategy.epochs_of_next_task()
                    found[name] = statistics.median(epochs), whole / len(epochs)
            if repeat:
                for way, values in found.items():
                    seconds.setdefault(way, []).append(values)
                yield _table(seconds, len(labels)), True


def _is_due(way: str, repeat: int) -> bool:
    return repeat == 1 if way in SLOW else True


def _configs(sizes: "Sizes", tasks: int) -> dict[str, RunConfig]:
    common = [f"data={sizes.data}", f"device={sizes.device}", f"benchmark.n_tasks={tasks}", *COMMON]
    return {name: make_config(*common, *words) for name, words in STRATEGIES.items()}


def _loops(images: Tensor, labels: Tensor) -> dict[str, Callable[[], tuple[float, float]]]:
    """Return what measures each loop without this package: seconds of an epoch, and of a task by its epochs."""
    loops = {BARE: lambda: _repeated(lambda: bare_epoch(images, labels, BATCH)), STOCK: lambda: _stock(images, labels)}
    if images.is_cuda:
        loops[GRAPHED] = lambda: _graphed(images, labels)
    return loops


def _repeated(epoch: Callable[[], float]) -> tuple[float, float]:
    epochs = [epoch() for _ in range(EPOCHS)]
    return statistics.median(epochs), statistics.mean(epochs)


def _graphed(images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Time a bare loop as torch's documentation records it; the last samples, too few for a batch, are left out."""
    synchronize(images.device)
    start = time.perf_counter()
    epoch = graphed_loop(images, labels)
    synchronize(images.device)
    recording = time.perf_counter() - start
    typical, mean = _repeated(epoch)
    return typical, mean + recording / EPOCHS


def graphed_loop(images: Tensor, labels: Tensor) -> Callable[[], float]:
    """Record a step of the plain network, and return what trains it for an epoch and says the seconds."""
    shape = images.shape[1:]
    network = Classifier(mlp(shape, hidden=[100, 100], bias=False), shape, [10], bias=False).to(images.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=1e-4, fused=True)
    x, y = images[:BATCH].clone(), labels[:BATCH].clone()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step()

    def epoch() -> float:
        synchronize(images.device)
        start = time.perf_counter()
        for rows in torch.randperm(len(labels), device=images.device).split(BATCH):
            if len(rows) == BATCH:
                torch.index_select(images, 0, rows, out=x)
                torch.index_select(labels, 0, rows, out=y)
                graph.replay()
        synchronize(images.device)
        return time.perf_counter() - start

    return epoch


def _stock(images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Time stock Avalanche on some batches, and return what all would take."""
    count = min(STOCK_BATCHES * BATCH, len(labels))
    data = _make_taskaware_tensor_classification_dataset(images[:count].cpu(), labels[:count].cpu(), task_labels=0)
    benchmark = benchmark_from_datasets(train=[data])
    shape = images.shape[1:]
    network = Classifier(mlp(shape, hidden=[100, 100], bias=False), shape, [10], bias=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strategy = SupervisedTemplate(
            model=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            train_mb_size=BATCH,
            device=images.device,
            evaluator=EvaluationPlugin(accuracy_metrics(epoch=True), loss_metrics(epoch=True)),
        )
        synchronize(images.device)
        start = time.perf_counter()
        strategy.train(benchmark.train_stream[0])
    synchronize(images.device)
    seconds = (time.perf_counter() - start) * len(labels) / count
    return seconds, seconds


def _table(seconds: dict[str, list[tuple[float, float]]], images: int) -> pd.DataFrame:
    rows = []
    for way, values in seconds.items():
        row: dict[str, Any] = {"way": way, "epoch_s": statistics.median(epoch for epoch, _ in values)}
        row["task_s_an_epoch"] = statistics.median(task for _, task in values)
        for reference, name in ((GRAPHED, "graphed_loop"), (BARE, "bare_loop")):
            against = seconds.get(reference)
            row[f"epoch_by_{name}"] = _ratio(values, against, 0)
            row[f"task_by_{name}"] = _ratio(values, against, 1)
        rows.append(row | {"repeats": len(values), "images": images})
    return pd.DataFrame(rows)


def _ratio(values: Sequence[tuple[float, float]], against: Sequence[tuple[float, float]] | None, which: int) -> float:
    if against is None:
        return float("nan")
    return statistics.median(one[which] / other[which] for one, other in zip(values, against, strict=False))


class Profiled(SupervisedPlugin):  # type: ignore[misc]
    """Profiles one epoch of a task, after those in which steps are recorded."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.epoch = -1
        self.counts: dict[str, float] = {}

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.epoch += 1
        if self.epoch == EPOCHS - 2:
            self.context = _profile(self.device)
            self.context.__enter__()

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        if self.epoch == EPOCHS - 2:
            synchronize(self.device)
            self.context.__exit__(None, None, None)
            self.counts = _counts(self.context, len(strategy.dataloader))


def _profile(device: torch.device) -> profile:
    on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return profile(activities=[ProfilerActivity.CPU, *on_gpu])


def _counts(profiler: profile, steps: int) -> dict[str, float]:
    """Return how often something happens in a step: kernels on the GPU, launches of kernels and graphs, operations."""
    found = dict.fromkeys(("kernels", "kernel_launches", "graph_launches", "operations"), 0)
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        name = event.name()
        if event.device_type() == torch.autograd.DeviceType.CUDA:
            found["kernels"] += not name.startswith(("Memset", "Memcpy")) and not event.is_user_annotation()
        elif name.startswith(("cudaLaunchKernel", "cuLaunchKernel")):
            found["kernel_launches"] += 1
        elif name.startswith(("cudaGraphLaunch", "cuGraphLaunch")):
            found["graph_launches"] += 1
        elif name.startswith("aten::"):
            found["operations"] += 1
    return {name: count / steps for name, count in found.items()}


def measure_launches(sizes: "Sizes") -> "Tables":
    """Yield what a step launches: in the second task, whose first one's weights are frozen; and in bare loops."""
    device = choose_device(sizes.device)
    configs = _configs(sizes, 2)
    sequence = load_sequence(configs["naive"], device)
    split = sequence.tasks[0].train
    images, labels = split.images(), split.labels
    loops: dict[str, Callable[[], Any]] = {BARE: lambda: bare_epoch(images, labels, BATCH)}
    if device.type == "cuda":
        loops[GRAPHED] = graphed_loop(images, labels)
    rows = []
    for way, epoch in loops.items():
        epoch()
        with _profile(device) as profiler:
            epoch()
        rows.append({"way": way} | _counts(profiler, -(-len(labels) // BATCH)))
        yield pd.DataFrame(rows), False
    for name, config in configs.items():
        with contextlib.closing(Trained(config, sequence)) as trained:
            trained.epochs_of_next_task()
            profiled = Profiled(device)
            trained.parts.learner.plugins.append(profiled)
            trained.epochs_of_next_task()
        rows.append({"way": name} | profiled.counts)
        yield pd.DataFrame(rows), name == list(configs)[-1]
