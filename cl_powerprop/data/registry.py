"""The data sets by name. A new one is one file, one line here and one file in `conf/data/`."""

from functools import lru_cache
from pathlib import Path

from cl_powerprop.data.dataset import Dataset, ImageDataset, Images
from cl_powerprop.data.digits import Digits
from cl_powerprop.data.fashion_mnist import FashionMNIST
from cl_powerprop.data.kmnist import KMNIST
from cl_powerprop.data.mnist import MNIST
from cl_powerprop.data.mnist5k import MNIST5k
from cl_powerprop.data.omniglot import Drawings, Omniglot
from cl_powerprop.errors import ConfigurationError

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset for dataset in (MNIST5k(), MNIST(), FashionMNIST(), KMNIST(), Digits(), Omniglot())
}


def get_dataset(name: str) -> Dataset:
    """Return the data set of that name.

    Raises:
        ConfigurationError: if there is none, naming those there are.
    """
    try:
        return DATASETS[name]
    except KeyError:
        raise ConfigurationError(f"unknown data {name!r}; choose from: {', '.join(DATASETS)}") from None


@lru_cache(maxsize=2)
def read_cached(dataset: ImageDataset, root: Path) -> Images:
    """Read a data set once a process, for the jobs of a multirun."""
    return dataset.read(root)


@lru_cache(maxsize=2)
def read_omniglot_cached(dataset: Omniglot, root: Path, size: int) -> Drawings:
    """Read Omniglot once a process, for the jobs of a multirun."""
    return dataset.read(root, size)
