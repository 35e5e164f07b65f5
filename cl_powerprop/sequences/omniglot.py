"""Omniglot as a task sequence: one alphabet per task, or a hundred tasks of twelve characters in four rotations.

A classifier should generalise to the drawings of other people, so the data is split by drawer: no drawer of an alphabet
is in two splits, and every character is in all three. The last drawers of each alphabet are the test data, whatever the
seed; the seed decides which of the others are validation data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from cl_powerprop.data.dataset import Dataset, Drawings
from cl_powerprop.data.omniglot import DRAWERS
from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.seeding import generator
from cl_powerprop.sequences.base import SequenceConfig, check_n_tasks, register_sequence

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cl_powerprop.source import DataSource
    from cl_powerprop.tasks import Pixels, Scenario, Split, TaskSequence

Order = Literal["fixed", "random"]
SplitBy = Literal["drawer", "picture", "character"]
ValidateOn = Literal["held_out", "training"]

ORDERS = ("fixed", "random")
SPLITS_BY = ("drawer", "picture", "character")
VALIDATE_ON = ("held_out", "training")
CHARACTERS_A_TASK = 12
_ROTATIONS = 4


@dataclass(kw_only=True)
class OmniglotConfig(SequenceConfig):
    """Options of `benchmark=omniglot`.

    Attributes:
        test: drawers of each alphabet for testing: a share below 1, or a number of the 20.
        order: "fixed" or "random", see :func:`omniglot`.
    """

    test: float
    order: str
    needs: ClassVar[str] = "drawings"

    def check(self) -> None:
        super().check()
        check_choice("benchmark.order", self.order, ORDERS)
        self.check_division()

    def check_division(self) -> None:
        """Refuse numbers of drawers that leave a split without any.

        Raises:
            ConfigurationError: naming the options and what they can be.
        """
        check_drawers(self.validation, self.test)


@dataclass(kw_only=True)
class OmniglotRotationConfig(OmniglotConfig):
    """Options of `benchmark=omniglot_rotation`.

    Attributes:
        split_by: "drawer", "picture" or "character", see :func:`omniglot_rotation`.
        validate_on: "held_out" data or the "training" data.
    """

    split_by: str
    validate_on: str = "held_out"

    def check_division(self) -> None:
        check_choice("benchmark.split_by", self.split_by, SPLITS_BY)
        check_choice("benchmark.validate_on", self.validate_on, VALIDATE_ON)
        if self.split_by == "drawer":  # how many images there are is not known yet
            super().check_division()


def omniglot(
    dataset: Dataset,
    drawings: Drawings,
    device: torch.device,
    *,
    n_tasks: int,
    scenario: Scenario,
    order: Order,
    validation: float,
    test: float,
    seed: int,
) -> TaskSequence:
    """Return a sequence with one alphabet per task.

    Args:
        dataset, drawings: the data set, and the drawings that it has read.
        device: the device of the images.
        n_tasks: number of alphabets; the first ones of the order are used.
        scenario: labels count from 0 in each alphabet; with "class", over all alphabets.
        order: "fixed": as published, background alphabets before evaluation ones; "random": drawn from the seed.
        validation, test: drawers of each alphabet for validation and testing: a share below 1, or a number of the 20.
        seed: seed of the run.

    Raises:
        ConfigurationError: for too many tasks, an unknown order, or an empty split.
    """
    import torch

    from cl_powerprop.tasks import Task, TaskSequence, to_pixels

    names = _ordered(order, list(range(len(drawings.alphabets))), n_tasks, "alphabets", seed)
    pixels = to_pixels(dataset, drawings.images, drawings.character, device)
    alphabet, drawer = (torch.from_numpy(column).to(device) for column in (drawings.alphabet, drawings.drawer))
    counts = [int(pixels.labels[alphabet == index].unique().numel()) for index in names]
    parts = divide_drawers(drawer, alphabet, validation, test, seed)
    offset = 0
    tasks = []
    for index, count in zip(names, counts, strict=True):
        mine = alphabet == index
        first = int(pixels.labels[mine].min()) - (offset if scenario == "class" else 0)
        splits = [_split(pixels, mine & part, first) for part in parts]
        tasks.append(Task(drawings.alphabets[index], sum(counts) if scenario == "class" else count, *splits))
        offset += count
    return TaskSequence("omniglot", scenario, tasks)


def omniglot_rotation(
    dataset: Dataset,
    drawings: Drawings,
    device: torch.device,
    *,
    n_tasks: int,
    scenario: Scenario,
    order: Order,
    split_by: SplitBy,
    validation: float,
    test: float,
    seed: int,
    validate_on: ValidateOn = "held_out",
) -> TaskSequence:
    """Return tasks of twelve characters, each drawing in four rotations under one label.

    As used for winning subnetworks (Kang et al., "Forget-free Continual Learning with Winning Subnetworks", ICML 2022),
    but split by drawer. ``split_by="picture"`` splits the images of each task at random, and "character" those of each
    character, as they do: rotated copies of one drawing can be in different splits, so that a network is tested on
    drawings that it was trained on. Their public code also validates on the training data: ``validate_on="training"``.

    Args:
        n_tasks: up to 135; they have 100.
        order: order of the characters; "fixed" is as published, alphabet after alphabet.
        split_by: "drawer", "picture" or "character".
        validate_on: what is held out for validation ("held_out"), or it is trained on too, and all training data
            validates ("training").
        dataset, drawings, device, scenario, validation, test, seed: see :func:`omniglot`.

    Raises:
        ConfigurationError: for too many tasks, an unknown order or split, or an empty split.
    """
    import torch

    from cl_powerprop.tasks import Split, Task, TaskSequence, to_pixels

    characters = list(range(int(drawings.character.max()) + 1))
    most = len(characters) // CHARACTERS_A_TASK
    if check_n_tasks(n_tasks) > most:
        raise ConfigurationError(f"benchmark.n_tasks={n_tasks}: omniglot_rotation has {most} tasks of 12 characters")
    chosen = _ordered(order, characters, n_tasks * CHARACTERS_A_TASK, "characters", seed)
    check_choice("benchmark.split_by", split_by, SPLITS_BY)
    check_choice("benchmark.validate_on", validate_on, VALIDATE_ON)
    turned = np.concatenate([np.rot90(drawings.images, quarter, (1, 2)) for quarter in range(_ROTATIONS)])
    pixels = to_pixels(dataset, turned, np.tile(drawings.character, _ROTATIONS), device)
    drawer = torch.from_numpy(drawings.drawer).to(device).repeat(_ROTATIONS)
    alphabets = torch.from_numpy(drawings.alphabet).to(device).repeat(_ROTATIONS)
    by_drawer = divide_drawers(drawer, alphabets, validation, test, seed) if split_by == "drawer" else None
    # The position of each character in the sequence, -1 for characters in no task.
    positions = torch.full((len(characters),), -1, device=device)
    positions[chosen] = torch.arange(len(chosen), device=device)
    tasks = []
    for task in range(n_tasks):
        first = task * CHARACTERS_A_TASK
        position = positions[pixels.labels]
        mine = (position >= first) & (position < first + CHARACTERS_A_TASK)
        groups = (
            [position == first + index for index in range(CHARACTERS_A_TASK)] if split_by == "character" else [mine]
        )
        parts = by_drawer or _divide_images(groups, validation, test, seed, task)
        if validate_on == "training":
            parts = [parts[0] | parts[1], parts[0] | parts[1], parts[2]]
        offset = 0 if scenario == "class" else first
        splits = [
            Split(pixels, rows, position[rows] - offset) for rows in ((mine & part).nonzero()[:, 0] for part in parts)
        ]
        classes = n_tasks * CHARACTERS_A_TASK if scenario == "class" else CHARACTERS_A_TASK
        tasks.append(Task(f"characters_{first}_to_{first + CHARACTERS_A_TASK - 1}", classes, *splits))
    return TaskSequence("omniglot_rotation", scenario, tasks)


def divide_drawers(drawer: Tensor, alphabet: Tensor, validation: float, test: float, seed: int) -> list[Tensor]:
    """Return boolean masks of training, validation and test data, each shaped like ``drawer``.

    Args:
        drawer: int64, 0 to 19: who drew each image.
        alphabet: int64 of the same shape: of which alphabet it is; each alphabet has its own division.
        validation, test: drawers for validation and testing: a share below 1, or a number of the 20.
        seed: seed of the run.

    Raises:
        ConfigurationError: if one of the three would have no drawer.
    """
    import torch

    validating, testing = check_drawers(validation, test)
    tested = DRAWERS - testing
    roles = torch.zeros(int(alphabet.max()) + 1, DRAWERS, dtype=torch.int64)
    roles[:, tested:] = 2
    for index, role in enumerate(roles):
        role[torch.randperm(tested, generator=generator(seed, "drawers", index))[:validating]] = 1
    chosen = roles.to(drawer.device)[alphabet, drawer]
    return [chosen == part for part in range(3)]


def check_drawers(validation: float, test: float) -> tuple[int, int]:
    """Return how many of the 20 drawers are for validation and for testing.

    Raises:
        ConfigurationError: if these, or training, would have no drawer.
    """
    return _counts(validation, test, DRAWERS, "drawers")


def _divide_images(groups: Sequence[Tensor], validation: float, test: float, seed: int, task: int) -> list[Tensor]:
    """Return boolean masks of training, validation and test data, each with some images of every group.

    Args:
        groups: boolean masks of images.
        validation, test: images of each group for validation and testing: a share below 1, or a number.
        seed, task: what the draws depend on.
    """
    import torch

    draws = generator(seed, "pictures", task)
    parts = [torch.zeros_like(groups[0]) for _ in range(3)]
    for group in groups:
        rows = group.nonzero()[:, 0]
        validating, testing = _counts(validation, test, len(rows), "images")
        order = rows[torch.randperm(len(rows), generator=draws).to(rows.device)]
        sizes = [len(rows) - validating - testing, validating, testing]
        for part, chosen in zip(parts, order.split(sizes), strict=True):
            part[chosen] = True
    return parts


def _counts(validation: float, test: float, count: int, what: str) -> tuple[int, int]:
    sizes = [
        0 if not math.isfinite(size) else round(size * count) if size < 1 else int(size) for size in (validation, test)
    ]
    if min(sizes) < 1 or sum(sizes) >= count:
        raise ConfigurationError(
            f"benchmark.validation={validation} and benchmark.test={test} of {count} {what} leave nothing to train, to "
            f"validate or to test on; give shares in (0, 1) or numbers of {what}"
        )
    return sizes[0], sizes[1]


def _ordered(order: str, items: Sequence[int], count: int, what: str, seed: int) -> list[int]:
    """Return the first ``count`` items in the given order, "fixed" or "random"."""
    if not 1 <= count <= len(items):
        raise ConfigurationError(f"benchmark.n_tasks must be from 1 to {len(items)}, the number of {what}, not {count}")
    check_choice("benchmark.order", order, ORDERS)
    if order == "random":
        import torch

        shuffled = torch.randperm(len(items), generator=generator(seed, what))
        return [items[index] for index in shuffled[:count].tolist()]
    return list(items[:count])


def _split(pixels: Pixels, mine: Tensor, first: int) -> Split:
    from cl_powerprop.tasks import Split

    rows = mine.nonzero()[:, 0]
    return Split(pixels, rows, pixels.labels[rows] - first)


@register_sequence("omniglot", OmniglotConfig)
def _from_config(config: OmniglotConfig, data: DataSource, seed: int) -> TaskSequence:
    return omniglot(data.dataset, data.drawings(), data.device, **_options(config, seed))


@register_sequence("omniglot_rotation", OmniglotRotationConfig)
def _rotation_from_config(config: OmniglotRotationConfig, data: DataSource, seed: int) -> TaskSequence:
    options = {"split_by": config.split_by, "validate_on": config.validate_on, **_options(config, seed)}
    return omniglot_rotation(data.dataset, data.drawings(), data.device, **options)


def _options(config: OmniglotConfig, seed: int) -> dict[str, Any]:
    shared = ("n_tasks", "scenario", "order", "validation", "test")
    return {name: getattr(config, name) for name in shared} | {"seed": seed}
