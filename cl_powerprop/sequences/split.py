"""Split pictures: the classes are divided over the tasks.

Scenarios as in van de Ven & Tolias, "Three scenarios for continual learning", 2019: with "task" and "domain" labels
count from 0 in each task, with "class" they are those of the data set.
"""

import torch
from torch import Tensor

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sequences.base import Pixels, Scenario, Split, Task, TaskSequence, check_n_tasks, split_validation


def split_by_class(
    train: Pixels, test: Pixels, classes: int, *, n_tasks: int, scenario: Scenario, validation: float, seed: int
) -> TaskSequence:
    """Return ``n_tasks`` tasks of ``classes / n_tasks`` neighbouring classes each.

    Raises:
        ConfigurationError: if the classes do not divide evenly, or a split would be empty.
    """
    check_n_tasks(n_tasks)
    if classes % n_tasks:
        divisors = ", ".join(str(n) for n in range(1, classes + 1) if classes % n == 0)
        raise ConfigurationError(
            f"{classes} classes cannot be divided over {n_tasks} tasks; benchmark.n_tasks can be {divisors}"
        )
    per_task = classes // n_tasks
    device = train.images.device
    train_rows, valid_rows = (rows.to(device) for rows in split_validation(len(train.labels), validation, seed))
    test_rows = torch.arange(len(test.labels), device=device)

    def view(source: Pixels, rows: Tensor, first: int) -> Split:
        labels = source.labels[rows]
        mine = (labels >= first) & (labels < first + per_task)
        shown = labels[mine] if scenario == "class" else labels[mine] - first
        return Split(source, rows[mine], shown)

    def make(task: int) -> Task:
        first = task * per_task
        name = "classes_" + "_".join(str(label) for label in range(first, first + per_task))
        splits = (view(train, train_rows, first), view(train, valid_rows, first), view(test, test_rows, first))
        return Task(name, classes if scenario == "class" else per_task, *splits)

    return TaskSequence("split_mnist", scenario, [make(task) for task in range(n_tasks)])
