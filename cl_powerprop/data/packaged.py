"""Images that come with an installed package, as numbers in a CSV file."""

import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.errors import DataError


def packaged_table(package: str, distribution: str, file: str, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return the whole numbers ``[rows, columns]`` of a CSV file, without importing its package, which may be slow.

    Args:
        package: name of the package.
        distribution: what pip calls it.
        file: its path in the package; may be compressed.
        shape: that the table must have.

    Raises:
        DataError: if the package is not installed, or the file is missing or has another shape.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError(f"{distribution}, which holds the images, is not installed: pip install {distribution}")
    try:
        table = np.loadtxt(Path(spec.origin).parent / file, delimiter=",", dtype=np.int64, ndmin=2)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DataError(f"the images in {distribution} cannot be read: {error}; reinstall {distribution}") from error
    if table.shape != shape:
        raise DataError(
            f"the images in {distribution} have the shape {table.shape}, not {shape}; reinstall {distribution}"
        )
    return table
