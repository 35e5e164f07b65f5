"""Permuted pictures: every task shows the same pictures through a pixel permutation of its own.

Goodfellow et al., "An Empirical Investigation of Catastrophic Forgetting in Gradient-Based Neural Networks", 2013.
"""

import torch

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.seeding import generator
from cl_powerprop.sequences.base import (
    Pixels,
    Scenario,
    Split,
    Task,
    TaskSequence,
    check_n_tasks,
    split_validation,
)


def permuted(
    train: Pixels,
    test: Pixels,
    classes: int,
    *,
    n_tasks: int,
    scenario: Scenario,
    permute_first: bool,
    validation: float,
    seed: int,
) -> TaskSequence:
    """Return ``n_tasks`` permuted tasks; task k's permutation depends on (seed, k) alone.

    Raises:
        ConfigurationError: for ``n_tasks`` below 1, an empty split, or scenario "class" (tasks share their classes).
    """
    check_n_tasks(n_tasks)
    if scenario == "class":
        raise ConfigurationError("permuted_mnist has the same classes in every task: scenario is task or domain")
    device = train.images.device
    train_rows, valid_rows = (rows.to(device) for rows in split_validation(len(train.labels), validation, seed))
    test_rows = torch.arange(len(test.labels), device=device)
    pixels = train.images[0].numel()
    # Shared by all tasks, so that a task costs one permutation and nothing else.
    parts = [
        (source, rows, source.labels[rows])
        for source, rows in ((train, train_rows), (train, valid_rows), (test, test_rows))
    ]

    def make(task: int) -> Task:
        permutation = None
        if task > 0 or permute_first:
            permutation = torch.randperm(pixels, generator=generator(seed, "permutation", task)).to(device)
        splits = [Split(source, rows, labels, permutation) for source, rows, labels in parts]
        return Task(f"permutation_{task}", classes, *splits)

    return TaskSequence("permuted_mnist", scenario, [make(task) for task in range(n_tasks)])
