"""Permuted pixels: every task has the same images, with its own permutation of the pixels.

Goodfellow et al., "An Empirical Investigation of Catastrophic Forgetting in Gradient-Based Neural Networks", 2013.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cl_powerprop.seeding import generator
from cl_powerprop.sequences.base import SequenceConfig, check_n_tasks, refuse_class_scenario, register_sequence

if TYPE_CHECKING:
    from torch import Tensor

    from cl_powerprop.source import DataSource
    from cl_powerprop.tasks import Pixels, Scenario, TaskSequence


@dataclass(kw_only=True)
class PermutedConfig(SequenceConfig):
    """Options of `benchmark=permuted`.

    Attributes:
        permute_first: permute the pixels of task 0 too.
    """

    permute_first: bool
    needs: ClassVar[str] = "images"

    def check(self) -> None:
        super().check()
        refuse_class_scenario(self.name, self.scenario)


@dataclass(frozen=True)
class Permutation:
    """Reorders pixels: pixel i of the result is pixel ``order[i]``; int64 ``[height * width]``.

    The colours of a pixel stay together.
    """

    order: Tensor

    def __call__(self, pixels: Tensor) -> Tensor:
        import torch

        flat = pixels.reshape(-1, len(self.order))  # each channel of each image
        if flat.is_cpu:  # numpy is five times as fast as torch here
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

    Args:
        train, test: the images.
        classes: number of classes.
        n_tasks: number of tasks.
        scenario: "task" or "domain".
        permute_first: permute the pixels of task 0 too.
        validation, seed: see :func:`~cl_powerprop.tasks.split_validation`.

    Raises:
        ConfigurationError: for ``n_tasks`` below 1, an empty split, or scenario "class" (tasks share their classes).
    """
    import torch

    from cl_powerprop.tasks import same_images

    device, pixels = train.images.device, math.prod(train.images.shape[2:])

    def view(task: int) -> Permutation | None:
        if task == 0 and not permute_first:
            return None
        return Permutation(torch.randperm(pixels, generator=generator(seed, "permutation", task)).to(device))

    views = {f"permutation_{task}": view(task) for task in range(check_n_tasks(n_tasks))}
    return same_images("permuted", train, test, classes, views, scenario=scenario, validation=validation, seed=seed)


@register_sequence("permuted", PermutedConfig, aliases=["permuted_mnist"])
def _from_config(config: PermutedConfig, data: DataSource, seed: int) -> TaskSequence:
    train, test = data.pixels()
    return permuted(
        train,
        test,
        data.classes,
        n_tasks=config.n_tasks,
        permute_first=config.permute_first,
        scenario=config.scenario,  # type: ignore[arg-type]
        validation=config.validation,
        seed=seed,
    )
