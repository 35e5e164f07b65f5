"""Rotated images: every task has the same images, rotated by its own angle.

Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.seeding import generator
from cl_powerprop.sequences.base import SequenceConfig, check_n_tasks, refuse_class_scenario, register_sequence

if TYPE_CHECKING:
    from torch import Tensor

    from cl_powerprop.source import DataSource
    from cl_powerprop.tasks import Pixels, Scenario, TaskSequence

ORDERS = ("fixed", "random")
_AT_A_TIME = 2000  # images that are rotated together, to save memory


@dataclass(kw_only=True)
class RotatedConfig(SequenceConfig):
    """Options of `benchmark=rotated`; see :func:`angles`.

    Attributes:
        angles: the angle of each task in degrees; None for even steps from 0 to ``largest``, or random ones.
        largest: the largest angle, in degrees.
        order: "fixed" or "random".
    """

    angles: list[float] | None
    largest: float
    order: str
    needs: ClassVar[str] = "images"

    def check(self) -> None:
        super().check()
        refuse_class_scenario(self.name, self.scenario)
        if self.order == "fixed" or self.angles is not None:
            _check_angles(angles(self.n_tasks, self.angles, self.largest, self.order, seed=0))
        check_choice("benchmark.order", self.order, ORDERS)


@dataclass(frozen=True)
class Rotation:
    """Rotates images counter-clockwise about their centre, by bilinear interpolation; outside an image pixels are 0.

    Quarter turns of square images only move pixels, without interpolation.
    """

    degrees: float

    def __call__(self, pixels: Tensor) -> Tensor:
        import torch
        from torch.nn import functional

        if self.degrees % 90 == 0 and pixels.shape[-1] == pixels.shape[-2]:
            return pixels.rot90(int(self.degrees // 90), (2, 3))
        angle = math.radians(self.degrees)
        cosine, sine = math.cos(angle), math.sin(angle)
        height, width = pixels.shape[-2:]
        # The affine map from each output pixel to its source, in units of half a side; rows count downwards.
        matrix = torch.tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
        size = [1, 1, height, width]
        grid = functional.affine_grid(matrix.unsqueeze(0), size, align_corners=False).to(pixels.device)
        # All images become channels of one image, so that they share one grid.
        turned = [
            functional.grid_sample(part.flatten(0, 1).unsqueeze(0).float(), grid, align_corners=False)
            for part in pixels.split(_AT_A_TIME)
        ]
        return torch.cat(turned, dim=1).view(pixels.shape)


def angles(n_tasks: int, listed: Sequence[float] | None, largest: float, order: str, seed: int) -> list[float]:
    """Return the angle of each task in degrees.

    Args:
        n_tasks: number of tasks.
        listed: the angles themselves; None for angles from 0 to ``largest``.
        largest: the largest angle.
        order: "fixed" for even steps from 0 to ``largest``, or "random" to draw each angle from (seed, task).
        seed: seed of the run.

    Raises:
        ConfigurationError: if the number of listed angles is not ``n_tasks``, or for an unknown order.
    """
    check_n_tasks(n_tasks)
    if listed is not None:
        if len(listed) != n_tasks:
            raise ConfigurationError(f"benchmark.angles lists {len(listed)} angles for {n_tasks} tasks")
        return list(listed)
    check_choice("benchmark.order", order, ORDERS)
    if order == "random":
        import torch

        return [
            largest * float(torch.rand((), generator=generator(seed, "angle", task), dtype=torch.float64))
            for task in range(n_tasks)
        ]
    return [largest * task / max(1, n_tasks - 1) for task in range(n_tasks)]


def _check_angles(degrees: Sequence[float]) -> list[str]:
    """Return the name of each task.

    Raises:
        ConfigurationError: for an angle that is not finite or comes twice.
    """
    if not all(math.isfinite(angle) for angle in degrees) or len(set(degrees)) < len(degrees):
        raise ConfigurationError(f"benchmark.angles must be finite and differ from each other, not {list(degrees)}")
    names = [f"rotation_{angle:.6g}" for angle in degrees]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"benchmark.angles are closer together than six digits tell: {list(degrees)}")
    return names


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
    """Return a sequence with one task per angle.

    Args:
        train, test: the images.
        classes: number of classes.
        degrees: the angle of each task.
        scenario: "task" or "domain".
        validation, seed: see :func:`~cl_powerprop.tasks.split_validation`.

    Raises:
        ConfigurationError: for an angle that is not finite or comes twice, an empty split, or scenario "class".
    """
    from cl_powerprop.tasks import same_images

    names = _check_angles(degrees)
    views = {name: Rotation(angle) if angle else None for name, angle in zip(names, degrees, strict=True)}
    return same_images("rotated", train, test, classes, views, scenario=scenario, validation=validation, seed=seed)


@register_sequence("rotated", RotatedConfig, aliases=["rotated_mnist"])
def _from_config(config: RotatedConfig, data: DataSource, seed: int) -> TaskSequence:
    train, test = data.pixels()
    return rotated(
        train,
        test,
        data.classes,
        degrees=angles(config.n_tasks, config.angles, config.largest, config.order, seed),
        scenario=config.scenario,  # type: ignore[arg-type]
        validation=config.validation,
        seed=seed,
    )
