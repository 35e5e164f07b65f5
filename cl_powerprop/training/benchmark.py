"""Avalanche benchmarks whose samples are tensors on the device, made from a task sequence or another benchmark."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
from avalanche.benchmarks.utils.data import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute, TaskLabels
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.tasks import Split, TaskSequence
from cl_powerprop.training.streamed_data import streamed
from cl_powerprop.training.tensor_data import Samples, TensorDataset, Transform, join, one_by_one
from cl_powerprop.training.with_datasets import describe_classes, list_classes, with_datasets

_READ_AT_A_TIME = 1000


def to_avalanche(
    sequence: TaskSequence,
    train_transform: Transform | None = None,
    trained: Sequence[Samples] | None = None,
    crop: float = 1.0,
) -> CLScenario[Any]:
    """Return the Avalanche benchmark of a sequence, with the streams train, valid and test.

    Task labels are the indices of the tasks; the data is not copied.

    Args:
        sequence: the tasks.
        train_transform: applied to batches that are trained on, and to no others.
        trained: the samples of each experience of the train stream; None for each task's training samples.
        crop: the least area of the random crops with which pictures are trained on that are read from files whenever
            they are needed, as a share of the picture; 1 for their centres.

    Raises:
        ConfigurationError: for samples of several tasks in one experience whose pictures are read from files.
    """
    streams: dict[str, Sequence[Samples]] = {
        "train": [task.train for task in sequence.tasks] if trained is None else trained,
        "valid": [task.valid for task in sequence.tasks],
        "test": [task.test for task in sequence.tasks],
    }
    targets: dict[int, DataAttribute[int]] = {}

    def labelled(samples: Samples, data: Any, task: int) -> AvalancheDataset[Any]:
        labels = samples.labels
        # Avalanche wants labels as a Python list; tasks that share a label tensor share the list too.
        if id(labels) not in targets:
            targets[id(labels)] = DataAttribute(labels.tolist(), "targets")
        attributes = [targets[id(labels)], TaskLabels(ConstantSequence(task, len(samples)))]
        return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)

    def data(name: str, stream: Sequence[Samples]) -> list[Any]:
        change, least = (train_transform, crop) if name == "train" else (None, 1.0)
        if sequence.workers is None:
            return join([TensorDataset(samples, change) for samples in stream])
        return [_streamed(samples, least, change) for samples in stream]

    datasets = {
        name: [labelled(*part, task) for task, part in enumerate(zip(stream, data(name, stream), strict=True))]
        for name, stream in streams.items()
    }
    benchmark = with_classes_timeline(with_task_labels(benchmark_from_datasets(**datasets)))
    for stream in benchmark.streams.values():
        list_classes(stream)
        stream.benchmark = benchmark
        for experience in stream:
            experience.benchmark = benchmark
    describe_classes(benchmark)
    return benchmark


def _streamed(samples: Samples, crop: float, transform: Transform | None) -> Any:
    if not isinstance(samples, Split) or samples.source.pictures is None:
        raise ConfigurationError(
            "pictures of several tasks can be mixed, as by strategy=joint, only in memory: use data.in_memory=true"
        )
    return streamed(samples, samples.source.pictures, crop, transform)


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
    parts: dict[str, list[TensorDataset]] = {name: [] for name in benchmark.streams}
    shown = track(experiences, "reading samples", console=console, disable=not progress or not console.is_terminal)
    for name, experience in shown:
        samples = _read(experience, f"experience {len(parts[name])} of stream {name}", device, num_workers)
        parts[name].append(TensorDataset(samples, train_transform, eval_transform))
    transforms = one_by_one(train_transform, eval_transform)
    data = {name: iter(join(stream, transforms)) for name, stream in parts.items()}
    datasets: dict[str, list[AvalancheDataset[Any]]] = {name: [] for name in benchmark.streams}
    for name, experience in experiences:
        datasets[name].append(_replaced(experience.dataset, next(data[name])))
    return with_datasets(benchmark, datasets)


def _replaced(dataset: AvalancheDataset[Any], data: Any) -> AvalancheDataset[Any]:
    """Return a data set with its samples replaced, and its labels and other attributes kept."""
    group = dataset._flat_data._transform_groups.current_group
    result = copy(dataset)
    result._flat_data = data.with_transforms(group if group == "eval" else "train")
    result.collate_fn = default_collate
    return result


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
