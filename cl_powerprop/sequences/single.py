"""One task: the whole data set, as for sparse training.

Images are divided as in other sequences. Drawings are divided by drawer, so that a network is tested on the drawings of
people whom it has not seen; every character is in all three splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cl_powerprop.data.dataset import Dataset
from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.sequences.base import SequenceConfig, register_sequence
from cl_powerprop.sequences.omniglot import check_drawers, divide_drawers

if TYPE_CHECKING:
    from cl_powerprop.source import DataSource
    from cl_powerprop.tasks import Task, TaskSequence

VALIDATION_FROM = ("random", "end")


@dataclass(kw_only=True)
class SingleConfig(SequenceConfig):
    """Options of `benchmark=single`.

    Attributes:
        validation_from: "random", or "end" to validate on the last training images.
        test: drawers of each alphabet for testing, for a data set of drawings: a share below 1, or a number of the 20.
    """

    n_tasks: int = 1
    validation_from: str = "random"
    test: float = 0.2
    needs: ClassVar[str] = ""

    def check(self) -> None:
        super().check()
        check_choice("benchmark.validation_from", self.validation_from, VALIDATION_FROM)
        if self.n_tasks != 1:
            raise ConfigurationError(f"benchmark=single is one task; benchmark.n_tasks must be 1, not {self.n_tasks}")

    def check_data(self, dataset: Dataset) -> None:
        super().check_data(dataset)
        if dataset.offers("drawings"):
            check_drawers(self.validation, self.test)
            if self.validation_from != "random":
                raise ConfigurationError(
                    f"data={dataset.name} is validated on drawers, which the seed chooses: "
                    "benchmark.validation_from must be random"
                )


@register_sequence("single", SingleConfig)
def single(config: SingleConfig, data: DataSource, seed: int) -> TaskSequence:
    """Return a sequence of one task, named after the data set, with all of its classes.

    Raises:
        ConfigurationError: if a split would be empty.
    """
    from cl_powerprop.tasks import TaskSequence

    make = _of_drawings if data.dataset.offers("drawings") else _of_images
    return TaskSequence("single", config.scenario, [make(config, data, seed)], is_whole=True)  # type: ignore[arg-type]


def _of_images(config: SingleConfig, data: DataSource, seed: int) -> Task:
    from cl_powerprop.tasks import Split, Task, divide

    parts = divide(*data.pixels(), config.validation, seed, config.validation_from)  # type: ignore[arg-type]
    splits = [Split(source, rows, source.labels[rows]) for source, rows in parts]
    return Task(data.dataset.name, data.classes, *splits)


def _of_drawings(config: SingleConfig, data: DataSource, seed: int) -> Task:
    import torch

    from cl_powerprop.tasks import Split, Task, to_pixels

    drawings = data.drawings()
    pixels = to_pixels(data.dataset, drawings.images, drawings.character, data.device)
    drawer, alphabet = (torch.from_numpy(column).to(data.device) for column in (drawings.drawer, drawings.alphabet))
    parts = divide_drawers(drawer, alphabet, config.validation, config.test, seed)
    splits = [Split(pixels, rows, pixels.labels[rows]) for rows in (part.nonzero()[:, 0] for part in parts)]
    return Task(data.dataset.name, int(pixels.labels.max()) + 1, *splits)
