"""The data that a task sequence is made of, read once and put on the device."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch

from cl_powerprop.data.dataset import DataConfig, Dataset, Drawings, Images, StreamedImages, data_root, doubt
from cl_powerprop.registry import find
from cl_powerprop.tasks import Pixels

log = logging.getLogger("cl_powerprop")


class DataSource:
    """The data set of a config.

    Args:
        config: which one, where it lies, and whether to fetch it.
        device: where its images go.

    Attributes:
        dataset: the data set itself.
    """

    def __init__(self, config: DataConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self._make = find("data", config.name).make
        self.dataset: Dataset = self._make()
        if not config.normalize:
            self.dataset.mean, self.dataset.std = 0.0, 1.0

    @property
    def classes(self) -> int:
        """How many classes the images show."""
        known = self.dataset.classes
        return self._images().classes if known is None else known

    def pixels(self) -> tuple[Pixels, Pixels]:
        """Return training and test images.

        Raises:
            ConfigurationError: for a data set that is not divided into training and test images.
            DataError: if it is missing or damaged.
        """
        return self._images().pixels(self.dataset, self.device)

    def drawings(self) -> Drawings:
        """Return drawings of which it is known who made them.

        Raises:
            ConfigurationError: for a data set that does not say so.
            DataError: if it is missing or damaged.
        """
        drawings: Drawings = self._read("drawings")
        return drawings

    def _images(self) -> Images | StreamedImages:
        images: Images | StreamedImages = self._read("images")
        return images

    def _read(self, what: str) -> Any:
        root = data_root(self.config.root)
        if self.config.download:
            self.dataset.download(root)
        config: Callable[..., Any] = type(self.config)
        return _read(self._make, what, config, json.dumps(asdict(self.config) | {"root": str(root)}))


@lru_cache(maxsize=2)
def _read(make: Callable[[], Any], what: str, config: Callable[..., Any], options: str) -> Any:
    """Read a data set once a process, for the jobs of a multirun; ``options`` are JSON, which can be hashed."""
    settings = config(**json.loads(options))
    dataset, root = make(), data_root(settings.root)
    read = getattr(dataset, what)(root, settings)
    if told := doubt(dataset, root):
        log.warning(f"data={settings.name} is {told}")
    return read


def is_verified(config: DataConfig) -> bool:
    """Return whether all of a data set was compared with a checksum when it was read."""
    return not find("data", config.name).make().unverified(data_root(config.root))
