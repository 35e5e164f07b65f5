"""Avalanche benchmarks whose samples are tensors on the device, made from a task sequence or another benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils.classification_dataset import (
    ClassificationDataset,
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.data import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute, TaskLabels
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.tasks import TaskSequence
from cl_powerprop.training.tensor_data import Samples, TensorDataset, Transform

_READ_AT_A_TIME = 1000


def to_avalanche(
    sequence: TaskSequence, train_transform: Transform | None = None, trained: Sequence[Samples] | None = None
) -> CLScenario[Any]:
    """Return the Avalanche benchmark of a sequence, with the streams train, valid and test.

    Task labels are the indices of the tasks; the data is not copied.

    Args:
        sequence: the tasks.
        train_transform: applied to batches that are trained on, and to no others.
        trained: the samples of each experience of the train stream; None for each task's training samples.
    """
    streams: dict[str, list[tuple[TensorDataset, int | None]]] = {
        name: [(TensorDataset(getattr(task, name)), index) for index, task in enumerate(sequence.tasks)]
        for name in ("valid", "test")
    }
    trained = [task.train for task in sequence.tasks] if trained is None else trained
    train: list[tuple[TensorDataset, int | None]] = [
        (TensorDataset(samples, train_transform), index) for index, samples in enumerate(trained)
    ]
    return _benchmark({"train": train, **streams})


@dataclass(frozen=True)
class TensorSamples:
    """Samples in two tensors on one device: ``inputs [n, *sample]`` and ``labels`` int64 ``[n]``."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, which: Tensor | slice = slice(None)) -> Tensor:
        """Return the samples at the given positions, all by default."""
        return self.inputs[which]

    def subset(self, which: Tensor) -> "TensorSamples":
        """Return the samples at the given positions as a separate object."""
        which = which.to(self.labels.device)
        return TensorSamples(self.inputs[which], self.labels[which])


def in_memory(
    benchmark: CLScenario[Any],
    device: torch.device | str = "cpu",
    *,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> CLScenario[Any]:
    """Return an Avalanche benchmark with all its samples read into tensors on the device.

    :class:`~cl_powerprop.training.fast.FastSupervisedTemplate` then trains and evaluates on whole batches of it, never
    on single samples. Streams, experiences, labels, task labels and the order of samples stay the same.

    Each sample is read once, through the transforms that Avalanche has for evaluation. Random augmentation for
    training belongs into ``train_transform`` instead.

    Args:
        benchmark: any benchmark whose samples have one shape and fit into the device's memory.
        device: the device of the samples and the model.
        train_transform: ``(batch, generator) -> batch`` on the device, for training batches; if it draws only from the
            generator, the learner's seed makes it repeatable.
        eval_transform: the same for evaluation batches; every evaluation draws the same numbers.
        num_workers: number of processes that read the samples.
        progress: show a progress bar while reading, on a terminal.

    Raises:
        ConfigurationError: if an experience has several task labels, or samples that differ in shape.
    """
    experiences = [(name, experience) for name, stream in benchmark.streams.items() for experience in stream]
    console = Console(stderr=True)
    streams: dict[str, list[tuple[TensorDataset, int | None]]] = {name: [] for name in benchmark.streams}
    shown = track(experiences, "reading samples", console=console, disable=not progress or not console.is_terminal)
    for name, experience in shown:
        samples = _read(experience, f"experience {len(streams[name])} of stream {name}", device, num_workers)
        dataset = TensorDataset(samples, train_transform, eval_transform)
        streams[name].append((dataset, getattr(experience, "task_label", None)))
    return _benchmark(streams)


def _read(experience: Any, where: str, device: torch.device | str, num_workers: int) -> TensorSamples:
    labels = getattr(experience, "task_labels", [None])
    if len(labels) != 1:
        raise ConfigurationError(f"{where} has the task labels {sorted(labels)}; in_memory needs one per experience")
    dataset = experience.dataset.eval()
    loader = DataLoader(
        dataset,
        batch_size=_READ_AT_A_TIME,
        num_workers=num_workers,
        collate_fn=getattr(dataset, "collate_fn", None),
    )
    try:
        inputs, targets = zip(*(batch[:2] for batch in loader), strict=True)
        return TensorSamples(torch.cat(inputs).to(device), torch.cat(targets).to(device))
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(f"{where} cannot be held as one tensor: {error}") from error


def _benchmark(streams: Mapping[str, Sequence[tuple[TensorDataset, int | None]]]) -> CLScenario[Any]:
    """Return the benchmark of the given streams; each experience is (samples, task label)."""
    targets: dict[int, DataAttribute[int]] = {}
    labelled = all(task is not None for stream in streams.values() for _, task in stream)

    def dataset(data: TensorDataset, task: int | None) -> AvalancheDataset[Any]:
        labels = data.samples.labels
        # Avalanche wants labels as a Python list; tasks that share a label tensor share the list too.
        if id(labels) not in targets:
            targets[id(labels)] = DataAttribute(labels.tolist(), "targets")
        attributes = [targets[id(labels)]]
        if task is None:
            return ClassificationDataset([data], data_attributes=attributes)
        attributes.append(TaskLabels(ConstantSequence(task, len(data))))
        return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)

    made = benchmark_from_datasets(
        **{name: [dataset(*experience) for experience in stream] for name, stream in streams.items()}
    )
    benchmark = with_classes_timeline(with_task_labels(made) if labelled else made)
    for stream in benchmark.streams.values():
        for experience in stream:
            # Avalanche stores a set here, which its own MultiHeadClassifier cannot index.
            experience.classes_in_this_experience = sorted(experience.classes_in_this_experience)
    return benchmark
