"""The 1,797 digits of 8 x 8 pixels that come with scikit-learn (UCI, E. Alpaydin, C. Kaynak); the smallest data set."""

from pathlib import Path

import numpy as np

from cl_powerprop.data.dataset import ImageDataset, Images, Progress, every_fifth, register_dataset
from cl_powerprop.data.packaged import packaged_table


@register_dataset("digits")
class Digits(ImageDataset):
    """About 180 digits per class. Every fifth image of a class is test data: 1,442 for training, 355 for testing."""

    name = "digits"
    classes = 10
    mean, std = 0.3053, 0.3761
    sha256 = "4dc113311cc02a176ed9dbfac385d611507437d5969526153624bf5bb7d41dd1"

    def status(self, root: Path) -> str:
        return "present in the installed package scikit-learn"

    def read(self, root: Path) -> Images:
        table = packaged_table("sklearn", "scikit-learn", "datasets/data/digits.csv.gz", (1797, 65))
        images = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        labels = table[:, -1].copy()
        test = every_fifth(labels)
        return Images(images[~test], labels[~test], images[test], labels[test])

    def download(self, root: Path, progress: Progress | None = None) -> None:
        """Do nothing: the digits come with the installation."""
