"""A task sequence as an Avalanche benchmark with the streams train, valid and test."""

from typing import Any

from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute, TaskLabels
from avalanche.benchmarks.utils.flat_data import ConstantSequence

from cl_powerprop.sequences import Split, TaskSequence
from cl_powerprop.training.tensor_data import SplitDataset


def to_avalanche(sequence: TaskSequence) -> CLScenario[Any]:
    """Return the benchmark of a sequence. Task labels count the tasks; the data stays where it is."""
    targets: dict[int, DataAttribute[int]] = {}

    def dataset(split: Split, task: int) -> TaskAwareSupervisedClassificationDataset:
        # Avalanche wants labels as a Python list; tasks that share a label tensor share the list too.
        shared = targets.setdefault(id(split.labels), DataAttribute(split.labels.tolist(), "targets"))
        labels = TaskLabels(ConstantSequence(task, len(split)))
        return TaskAwareSupervisedClassificationDataset([SplitDataset(split)], data_attributes=[shared, labels])

    streams = {
        name: [dataset(getattr(task, name), index) for index, task in enumerate(sequence.tasks)]
        for name in ("train", "valid", "test")
    }
    benchmark = with_classes_timeline(with_task_labels(benchmark_from_datasets(**streams)))
    for stream in benchmark.streams.values():
        for experience in stream:
            # Avalanche leaves a set here, which its own MultiHeadClassifier cannot index.
            experience.classes_in_this_experience = sorted(experience.classes_in_this_experience)
    return benchmark
