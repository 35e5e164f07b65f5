"""A small benchmark made with Avalanche alone, and the model and plugin of a user's own script."""

import io
from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.logging import TextLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn

from ..devices import device

CLASSES, SIDE = 3, 4
OPTIMIZERS = {
    "sgd_momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "sgd_nesterov_decay": lambda parameters: torch.optim.SGD(
        parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3
    ),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
}


def make_tensors(task: int, part: str, count: int) -> tuple[Tensor, Tensor]:
    """Noisy copies of one image per class; every task has different images."""
    images = torch.randn(CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(task))
    source = torch.Generator().manual_seed(1000 * (task + 1) + len(part))
    labels = torch.randint(CLASSES, (count,), generator=source)
    return images[labels] + 0.8 * torch.randn(count, 1, SIDE, SIDE, generator=source), labels


def make_benchmark(n_tasks: int, count: int = 64, labels: Sequence[int] | None = None) -> Any:
    streams = {
        part: [
            _make_taskaware_tensor_classification_dataset(
                *make_tensors(task, part, size), task_labels=task if labels is None else labels[task]
            )
            for task in range(n_tasks)
        ]
        for part, size in (("train", count), ("valid", 40), ("test", 40))
    }
    benchmark = with_classes_timeline(with_task_labels(benchmark_from_datasets(**streams)))
    for stream in benchmark.streams.values():
        for experience in stream:  # Avalanche stores a set here, which its MultiHeadClassifier cannot index
            experience.classes_in_this_experience = sorted(experience.classes_in_this_experience)
    return benchmark


def conv_net() -> nn.Module:
    """A model as a user writes it: convolution, BatchNorm, one output layer for all tasks."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, CLASSES),
    ).to(device())


def dense_net(hidden: int = 12) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))
    return network.to(device())


class Rows(nn.Module):
    """Reads an image row by row, by an LSTM or a Transformer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind == "lstm":
            self.reader: nn.Module = nn.LSTM(SIDE, 8, batch_first=True)
        else:
            self.reader = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.embed = nn.Identity() if kind == "lstm" else nn.Linear(SIDE, 8)
        self.classifier = nn.Linear(8 * SIDE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        read = self.reader(self.embed(x.flatten(0, 1)))
        return self.classifier((read[0] if isinstance(read, tuple) else read).flatten(1))


def rows_net(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return Rows(kind).to(device())


class LogitsOf(SupervisedPlugin):
    """A user's own plugin: keeps the logits of the last evaluation, by task label."""

    def __init__(self) -> None:
        super().__init__()
        self.logits: dict[int, list[float]] = {}

    def before_eval(self, strategy: Any, **_: Any) -> None:
        self.logits = {}

    def after_eval_iteration(self, strategy: Any, **_: Any) -> None:
        self.logits.setdefault(strategy.experience.task_label, []).extend(strategy.mb_output.flatten().tolist())


def make_strategy(
    model: nn.Module,
    plugins: Sequence[SupervisedPlugin],
    optimizer: torch.optim.Optimizer | str = "sgd_momentum",
    kind: type[SupervisedTemplate] = SupervisedTemplate,
    epochs: int = 3,
    **options: Any,
) -> SupervisedTemplate:
    if isinstance(optimizer, str):
        optimizer = OPTIMIZERS[optimizer](model.parameters())
    options.setdefault(
        "evaluator",
        EvaluationPlugin(
            accuracy_metrics(epoch=True, experience=True, stream=True),
            loss_metrics(minibatch=True),
            loggers=[TextLogger(io.StringIO())],
        ),
    )
    return kind(
        model=model,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=16,
        eval_mb_size=64,
        train_epochs=epochs,
        plugins=list(plugins),
        device=device(),
        **options,
    )
