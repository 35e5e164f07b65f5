"""The data sets by name. A new one is one file, one line here and one file in `conf/data/`."""

from functools import lru_cache
from pathlib import Path

from cl_powerprop.data.dataset import Dataset, Images
from cl_powerprop.data.mnist import MNIST
from cl_powerprop.data.mnist5k import MNIST5k
from cl_powerprop.errors import ConfigurationError

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (MNIST5k(), MNIST())}


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
def read_cached(name: str, root: Path) -> Images:
    """Read a data set once a process, for the jobs of a multirun."""
    return get_dataset(name).read(root)
