"""Permuted pictures: every task shows the same pictures through a pixel permutation of its own.

Goodfellow et al., "An Empirical Investigation of Catastrophic Forgetting in Gradient-Based Neural Networks", 2013.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cl_powerprop.seeding import generator
from cl_powerprop.sequences.base import Pixels, Scenario, TaskSequence, check_n_tasks, same_pictures


@dataclass(frozen=True)
class Permutation:
    """Pixel i of a picture is shown pixel ``order[i]``; int64 ``[channels * height * width]`` on the device."""

    order: Tensor

    def __call__(self, pixels: Tensor) -> Tensor:
        flat = pixels.flatten(1)
        if flat.is_cpu:  # numpy does this five times as fast as torch
            return torch.from_numpy(np.take(flat.numpy(), self.order.numpy(), axis=1)).view_as(pixels)
        return flat.index_select(1, self.order).view_as(pixels)


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
    device, pixels = train.images.device, train.images[0].numel()

    def view(task: int) -> Permutation | None:
        if task == 0 and not permute_first:
            return None
        return Permutation(torch.randperm(pixels, generator=generator(seed, "permutation", task)).to(device))

    views = {f"permutation_{task}": view(task) for task in range(check_n_tasks(n_tasks))}
    return same_pictures(
        "permuted_mnist", train, test, classes, views, scenario=scenario, validation=validation, seed=seed
    )
