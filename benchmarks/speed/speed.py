"""How much slower than a bare PyTorch loop is an epoch of each strategy? In one process, interleaved, medians.

    python benchmarks/speed/speed.py                                  # the embedded digits
    CL_POWERPROP_DATA=... python benchmarks/speed/speed.py data=mnist # as recorded in results.csv

Absolute times depend on the machine and on what else it does; the ratios are what to read. The bare loop trains the
plain 784-100-100-10 network on the very tensors of the task, without validation, masks, metrics or events.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from avalanche.core import SupervisedPlugin
from hydra import compose, initialize_config_module
from torch import nn

from cl_powerprop import build
from cl_powerprop.config import RunConfig, parse
from cl_powerprop.models.mlp import MLP
from cl_powerprop.sequences import Split, TaskSequence
from cl_powerprop.strategies import EPNPlugin
from cl_powerprop.training.benchmark import to_avalanche
from cl_powerprop.training.fast import FastSupervisedTemplate
from cl_powerprop.training.meters import TrainingMeter
from cl_powerprop.training.schedule import LearningRateSchedule

REPEATS = 5
VARIANTS = {
    "naive": ["strategy=naive", "model.alpha=1", "model.init_scale=1", "model.heads=shared", "optimizer.lr=0.1"],
    "naive, alpha 2": ["strategy=naive", "model.heads=shared", "optimizer.lr=0.1"],
    "packnet": ["strategy=packnet", "strategy.retrain_epochs=1", "model.alpha=1", "optimizer.lr=0.1"],
    "epn, alpha 2": ["strategy=epn", "strategy.retrain_epochs=1"],
}
COMMON = [f"benchmark.n_tasks={REPEATS + 1}", "train.epochs=2", "train.batch_size=128", "optimizer.weight_decay=1e-4"]


class Stopwatch(SupervisedPlugin):  # type: ignore[misc]
    """Times epochs; as the last plugin, so that what the others do at the end of an epoch counts."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[float] = []

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.start = time.perf_counter()

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        synchronize(strategy.device)
        self.epochs.append(time.perf_counter() - self.start)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bare_epoch(split: Split, config: RunConfig, device: torch.device) -> float:
    """Return the seconds of one epoch of the plain loop."""
    images, labels = split.images(), split.labels
    network = MLP(images[0].numel(), [100, 100], [10], bias=False).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=1e-4, fused=True)
    start = time.perf_counter()
    for rows in torch.randperm(len(labels), device=device).split(config.train.batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
        optimizer.step()
    synchronize(device)
    return time.perf_counter() - start


class Variant:
    """One strategy, trained a task further at every call."""

    def __init__(self, config: RunConfig, sequence: TaskSequence, device: torch.device) -> None:
        benchmark = to_avalanche(sequence)
        self.experiences = iter(benchmark.streams["train"])
        self.plugin = build.make_plugin(config, benchmark.streams["valid"])
        model = build.make_model(build.model_architecture(config, sequence), device)
        self.stopwatch = Stopwatch()
        schedule = LearningRateSchedule("cosine", build.phases(config))
        meter = TrainingMeter(lambda *_: None)
        self.strategy = FastSupervisedTemplate(
            model=model,
            optimizer=build.make_optimizer(config.optimizer, model, config.model.alpha),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=config.train.batch_size,
            train_epochs=config.train.epochs,
            eval_mb_size=config.train.eval_batch_size,
            device=device,
            plugins=[schedule, meter, self.plugin, self.stopwatch],
            evaluator=None,
        )

    def train_next_task(self) -> tuple[float, float]:
        """Return seconds an epoch: (of the epochs alone, of all that training the task took)."""
        start = time.perf_counter()
        self.strategy.train(next(self.experiences), eval_streams=[], reset_optimizer_state=True)
        whole = time.perf_counter() - start
        epochs, self.stopwatch.epochs = self.stopwatch.epochs, []
        searching = 0.0
        if isinstance(self.plugin, EPNPlugin):
            searching, self.plugin.search_seconds = self.plugin.search_seconds, 0.0
        return (sum(epochs) - searching) / len(epochs), whole / len(epochs)


def main() -> None:
    overrides = [*COMMON, *sys.argv[1:]]
    with initialize_config_module("cl_powerprop.conf", version_base="1.3"):
        configs = {name: parse(compose("run", [*overrides, *extra])) for name, extra in VARIANTS.items()}
    first = next(iter(configs.values()))
    torch.set_num_threads(first.train.threads)
    device = build.choose_device(first.device)
    sequence = build.load_sequence(first, device)
    variants = {name: Variant(config, sequence, device) for name, config in configs.items()}

    bare: list[float] = []
    epochs: dict[str, list[float]] = {name: [] for name in variants}
    tasks: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(REPEATS + 1):  # the first task warms up; nothing is frozen in it
        reference = bare_epoch(sequence.tasks[repeat].train, first, device)
        for name, variant in variants.items():
            epoch, whole = variant.train_next_task()
            if repeat:
                epochs[name].append(epoch / reference)
                tasks[name].append(whole / reference)
        if repeat:
            bare.append(reference)

    rows = [{"what": "bare loop", "seconds an epoch": statistics.median(bare), "epoch": 1.0, "task": 1.0}]
    for name in variants:
        ratio = statistics.median(epochs[name])
        row = {"what": name, "seconds an epoch": ratio * statistics.median(bare)}
        rows.append(row | {"epoch": ratio, "task": statistics.median(tasks[name])})
    table = pd.DataFrame(rows).round(3)
    images, batch, threads = len(sequence.tasks[0].train), first.train.batch_size, first.train.threads
    print(f"{images:,} images, batch {batch}, {device}, {threads} thread(s)")
    print("epoch: times the bare loop's; task: the same with all around the epochs counted (search, data, masks)")
    print(table.to_string(index=False))
    table.to_csv(Path(__file__).with_name("results.csv"), index=False)


if __name__ == "__main__":
    main()
