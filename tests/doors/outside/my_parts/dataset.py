"""A data set: bars at four places, drawn on the spot."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cl_powerprop import DataConfig, ImageDataset, Images, register_dataset


@dataclass(kw_only=True)
class BarsConfig(DataConfig):
    noise: int = 60


@register_dataset("bars", BarsConfig)
class Bars(ImageDataset):
    """Noisy bars of 8 x 8 pixels in four places."""

    name = "bars"
    classes = 4
    mean, std = 0.3, 0.3

    def read(self, root: Path, noise: int = 60) -> Images:
        draws = np.random.default_rng(0)
        labels = np.arange(400, dtype=np.int64) % 4
        images = draws.integers(0, noise, (400, 8, 8), dtype=np.uint8)
        images[np.arange(400), :, 2 * labels] += 150
        return Images(images[:300], labels[:300], images[300:], labels[300:])

    def images(self, root: Path, config: BarsConfig) -> Images:
        return self.read(root, config.noise)

    def status(self, root: Path) -> str:
        return "present: it is drawn when it is read"

    def download(self, root: Path, progress: object = None) -> None:
        pass
