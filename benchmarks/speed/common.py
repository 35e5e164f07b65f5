"""Shared by the parts of the speed benchmark: the bare loop, and a run that is trained one task at a time."""

import concurrent.futures
import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from cl_powerprop import Results
from cl_powerprop.assemble import assemble
from cl_powerprop.composition import compose
from cl_powerprop.config import RunConfig
from cl_powerprop.learning import measuring
from cl_powerprop.models.mlp import mlp
from cl_powerprop.networks.classifier import Classifier
from cl_powerprop.tasks import TaskSequence


def make_config(*overrides: str) -> RunConfig:
    """Compose a config as the command does."""
    return compose(["progress=false", *overrides])


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bare_epoch(images: Tensor, labels: Tensor, batch_size: int) -> float:
    """Return the seconds of one epoch of a plain loop, without validation, masks, metrics or events."""
    shape = images.shape[1:]
    network = Classifier(mlp(shape, hidden=[100, 100], bias=False), shape, [10], bias=False).to(images.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=1e-4, fused=True)
    synchronize(images.device)
    start = time.perf_counter()
    for rows in torch.randperm(len(labels), device=images.device).split(batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
        optimizer.step()
    synchronize(images.device)
    return time.perf_counter() - start


class Stopwatch(SupervisedPlugin):  # type: ignore[misc]
    """Times epochs; it is the last plugin, so that the work of the others at the end of an epoch counts."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[float] = []

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.start = time.perf_counter()

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        synchronize(strategy.device)
        self.epochs.append(time.perf_counter() - self.start)


class Trained:
    """A run as the command assembles it, which trains one more task at every call."""

    def __init__(self, config: RunConfig, sequence: TaskSequence) -> None:
        self.parts = assemble(config, sequence)
        self.experiences = iter(self.parts.curriculum)
        self.stopwatch = Stopwatch()
        self.contexts = contextlib.ExitStack()
        folder = self.contexts.enter_context(tempfile.TemporaryDirectory())
        results = Results.open(Path(folder) / "run", self.parts, config=config, progress=False)
        self.contexts.enter_context(results.recording(self.parts.steps(), self.parts.n_tasks))
        self.contexts.enter_context(measuring(self.parts, results))
        self.parts.learner.plugins.append(self.stopwatch)

    def close(self) -> None:
        """Remove the run folder."""
        self.contexts.close()

    def epochs_of_next_task(self) -> tuple[list[float], float]:
        """Return seconds: of each epoch, and of the whole training of the task."""
        synchronize(self.parts.learner.device)
        start = time.perf_counter()
        self.parts.train(next(self.experiences)[1])
        synchronize(self.parts.learner.device)
        whole = time.perf_counter() - start
        epochs, self.stopwatch.epochs = self.stopwatch.epochs, []
        return epochs, whole

    def train_next_task(self) -> tuple[float, float]:
        """Return seconds per epoch: (of the epochs alone, of the whole training of the task)."""
        epochs, whole = self.epochs_of_next_task()
        searching = self.parts.strategy.report().search_seconds
        return (sum(epochs) - searching) / len(epochs), whole / len(epochs)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``, called in a separate process to measure its peak memory alone."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()
