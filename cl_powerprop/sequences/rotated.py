"""Rotated pictures: every task shows the same pictures turned by an angle of its own.

Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.seeding import generator
from cl_powerprop.sequences.base import Pixels, Scenario, TaskSequence, check_n_tasks, same_pictures

_AT_A_TIME = 2000  # pictures, so that a task's floats are not held twice


@dataclass(frozen=True)
class Rotation:
    """Turns pictures counter-clockwise about their centre, by bilinear interpolation; what comes in from outside is 0.

    Quarter turns of square pictures move pixels and interpolate nothing.
    """

    degrees: float

    def __call__(self, pixels: Tensor) -> Tensor:
        if self.degrees % 90 == 0 and pixels.shape[-1] == pixels.shape[-2]:
            return pixels.rot90(int(self.degrees // 90), (2, 3))
        angle = math.radians(self.degrees)
        cosine, sine = math.cos(angle), math.sin(angle)
        height, width = pixels.shape[-2:]
        # The grid says, in units of half a side, where each pixel comes from; rows count downwards.
        matrix = torch.tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
        size = [1, 1, height, width]
        grid = functional.affine_grid(matrix.unsqueeze(0), size, align_corners=False).to(pixels.device)
        # As channels of one picture, all share one grid.
        turned = [
            functional.grid_sample(part.flatten(0, 1).unsqueeze(0).float(), grid, align_corners=False)
            for part in pixels.split(_AT_A_TIME)
        ]
        return torch.cat(turned, dim=1).view(pixels.shape)


def angles(n_tasks: int, listed: Sequence[float] | None, largest: float, order: str, seed: int) -> list[float]:
    """Return the angle of each task in degrees.

    Args:
        n_tasks: how many there are.
        listed: the angles themselves, or None for even steps from 0 up to ``largest``.
        largest: the last of the even steps.
        order: "fixed", or "random" to draw each angle between 0 and ``largest`` from (seed, task).
        seed: of the run.

    Raises:
        ConfigurationError: if as many angles as tasks are not listed, or for an unknown order.
    """
    check_n_tasks(n_tasks)
    if listed is not None:
        if len(listed) != n_tasks:
            raise ConfigurationError(f"benchmark.angles lists {len(listed)} angles for {n_tasks} tasks")
        return list(listed)
    if order == "random":
        return [
            largest * float(torch.rand((), generator=generator(seed, "angle", task), dtype=torch.float64))
            for task in range(n_tasks)
        ]
    if order != "fixed":
        raise ConfigurationError(f"benchmark.order must be one of fixed, random, not {order!r}")
    return [largest * task / max(1, n_tasks - 1) for task in range(n_tasks)]


def rotated(
    train: Pixels,
    test: Pixels,
    classes: int,
    *,
    degrees: Sequence[float],
    scenario: Scenario,
    validation: float,
    seed: int,
) -> TaskSequence:
    """Return one task an angle.

    Raises:
        ConfigurationError: for an angle that is not finite or comes twice, an empty split, or scenario "class".
    """
    if not all(math.isfinite(angle) for angle in degrees) or len(set(degrees)) < len(degrees):
        raise ConfigurationError(f"benchmark.angles must be finite and differ from each other, not {list(degrees)}")
    views = {f"rotation_{angle:.6g}": Rotation(angle) if angle else None for angle in degrees}
    if len(views) < len(degrees):
        raise ConfigurationError(f"benchmark.angles are closer together than six digits tell: {list(degrees)}")
    return same_pictures(
        "rotated_mnist", train, test, classes, views, scenario=scenario, validation=validation, seed=seed
    )
