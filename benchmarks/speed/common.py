"""What the parts of the speed benchmark share: the bare loop, and a strategy that trains one task at a time."""

import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from hydra import compose, initialize_config_module
from torch import Tensor, nn

from cl_powerprop import build
from cl_powerprop.config import RunConfig, parse
from cl_powerprop.models.classifier import Classifier
from cl_powerprop.models.mlp import mlp
from cl_powerprop.sequences import TaskSequence
from cl_powerprop.strategies.masking import MaskingPlugin
from cl_powerprop.training.benchmark import to_avalanche
from cl_powerprop.training.fast import FastSupervisedTemplate
from cl_powerprop.training.meters import TrainingMeter
from cl_powerprop.training.schedule import LearningRateSchedule


def make_config(*overrides: str) -> RunConfig:
    """Compose a config as the command does."""
    with initialize_config_module("cl_powerprop.conf", version_base="1.3"):
        return parse(compose("run", list(overrides)))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bare_epoch(images: Tensor, labels: Tensor, batch_size: int) -> float:
    """Return the seconds of one epoch of a plain loop: no validation, masks, metrics or events."""
    shape = images.shape[1:]
    network = Classifier(mlp(shape, hidden=[100, 100], bias=False), shape, [10], bias=False).to(images.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=1e-4, fused=True)
    start = time.perf_counter()
    for rows in torch.randperm(len(labels), device=images.device).split(batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
        optimizer.step()
    synchronize(images.device)
    return time.perf_counter() - start


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


class Trained:
    """One strategy with all that a run has around it, trained a task further at every call."""

    def __init__(self, config: RunConfig, sequence: TaskSequence, device: torch.device) -> None:
        benchmark = to_avalanche(sequence)
        self.experiences = iter(benchmark.streams["train"])
        self.plugin = build.make_plugin(config, benchmark.streams["valid"])
        self.model = build.make_model(build.model_architecture(config, sequence), device)
        self.stopwatch = Stopwatch()
        self.strategy = FastSupervisedTemplate(
            model=self.model,
            optimizer=build.make_optimizer(config.optimizer, self.model, config.model.alpha),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=config.train.batch_size,
            train_epochs=config.train.epochs,
            eval_mb_size=config.train.eval_batch_size,
            device=device,
            plugins=[
                LearningRateSchedule("cosine", build.phases(config)),
                TrainingMeter(lambda *_: None),
                self.plugin,
                self.stopwatch,
            ],
            evaluator=None,
            precision=config.train.precision,
            compile=config.train.compile,
        )

    def train_next_task(self) -> tuple[float, float]:
        """Return seconds an epoch: (of the epochs alone, of all that training the task took)."""
        start = time.perf_counter()
        self.strategy.train(next(self.experiences), eval_streams=[], reset_optimizer_state=True)
        whole = time.perf_counter() - start
        epochs, self.stopwatch.epochs = self.stopwatch.epochs, []
        searching = 0.0
        if isinstance(self.plugin, MaskingPlugin):
            searching, self.plugin.search_seconds = self.plugin.search_seconds, 0.0
        return (sum(epochs) - searching) / len(epochs), whole / len(epochs)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``, called in a process of its own: its peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()
