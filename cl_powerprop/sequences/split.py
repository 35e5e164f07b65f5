"""Split classes: the classes are divided among the tasks.

Scenarios are those of van de Ven & Tolias, "Three scenarios for continual learning", 2019: with "task" and "domain",
labels count from 0 in each task; with "class", they are those of the data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sequences.base import SequenceConfig, check_n_tasks, register_sequence

if TYPE_CHECKING:
    from torch import Tensor

    from cl_powerprop.data.dataset import Dataset
    from cl_powerprop.source import DataSource
    from cl_powerprop.tasks import Pixels, Scenario, Split, Task, TaskSequence


@dataclass(kw_only=True)
class SplitConfig(SequenceConfig):
    """Options of `benchmark=split`.

    Attributes:
        classes: the classes of each task; None: see :func:`class_groups`.
    """

    classes: list[list[int]] | None = None
    needs: ClassVar[str] = "images"

    def check_data(self, dataset: Dataset) -> None:
        super().check_data(dataset)
        if dataset.classes is not None:
            class_groups(dataset.classes, self.n_tasks, self.classes)


def class_groups(classes: int, n_tasks: int, listed: Sequence[Sequence[int]] | None = None) -> list[list[int]]:
    """Return the classes of each task: those listed, or consecutive classes in groups of equal size.

    Raises:
        ConfigurationError: if the classes do not divide evenly, or the list does not give each task at least one class
            and each class to at most one task.
    """
    check_n_tasks(n_tasks)
    if listed is None:
        if classes % n_tasks:
            divisors = ", ".join(str(n) for n in range(1, classes + 1) if classes % n == 0)
            raise ConfigurationError(
                f"{classes} classes cannot be divided over {n_tasks} tasks; benchmark.n_tasks can be {divisors}, "
                "or benchmark.classes can list the classes of each task, as in [[0,1,2],[3,4]]"
            )
        each = classes // n_tasks
        return [list(range(first, first + each)) for first in range(0, classes, each)]
    groups = [list(group) for group in listed]
    if len(groups) != n_tasks:
        raise ConfigurationError(f"benchmark.classes lists the classes of {len(groups)} tasks; n_tasks is {n_tasks}")
    named = [label for group in groups for label in group]
    if not all(groups) or len(set(named)) < len(named) or not set(named) <= set(range(classes)):
        raise ConfigurationError(
            f"benchmark.classes must name classes from 0 to {classes - 1}, each at most once and some for each task, "
            f"not {groups}"
        )
    return groups


def split_by_class(
    train: Pixels,
    test: Pixels,
    classes: int,
    *,
    groups: Sequence[Sequence[int]],
    scenario: Scenario,
    validation: float,
    seed: int,
) -> TaskSequence:
    """Return a sequence with one task per group of classes, each with the images of its classes.

    Args:
        train, test: the images.
        classes: number of classes in the data set.
        groups: the classes of each task, see :func:`class_groups`.
        scenario: "task", "domain" or "class".
        validation, seed: see :func:`~cl_powerprop.tasks.split_validation`.

    Raises:
        ConfigurationError: if a split would be empty.
    """
    import torch

    from cl_powerprop.tasks import Split, Task, TaskSequence, divide

    parts = [(source, rows, source.labels[rows]) for source, rows in divide(train, test, validation, seed)]

    def view(source: Pixels, rows: Tensor, labels: Tensor, task_labels: Tensor) -> Split:
        mine = task_labels[labels] >= 0
        return Split(source, rows[mine], (labels if scenario == "class" else task_labels[labels])[mine])

    def make(group: Sequence[int]) -> Task:
        # The label of each class within the task, -1 for classes of other tasks.
        task_labels = torch.full((classes,), -1, device=train.labels.device)
        task_labels[list(group)] = torch.arange(len(group), device=task_labels.device)
        name = "classes_" + "_".join(map(str, group))
        count = classes if scenario == "class" else len(group)
        task = Task(name, count, *(view(*part, task_labels) for part in parts))
        if not all(len(split) for split in (task.train, task.valid, task.test)):
            raise ConfigurationError(f"{name} has an empty split; raise benchmark.validation")
        return task

    return TaskSequence("split", scenario, [make(group) for group in groups])


@register_sequence("split", SplitConfig, aliases=["split_mnist"])
def _from_config(config: SplitConfig, data: DataSource, seed: int) -> TaskSequence:
    train, test = data.pixels()
    return split_by_class(
        train,
        test,
        data.classes,
        groups=class_groups(data.classes, config.n_tasks, config.classes),
        scenario=config.scenario,  # type: ignore[arg-type]
        validation=config.validation,
        seed=seed,
    )
