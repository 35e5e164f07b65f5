"""A run's figures as pictures, for the dashboards that show some."""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.errors import UserError

# Curves are charts there already; what is left are the matrices.
_SHOWN = ("accuracy_matrix", "mask_composition", "mask_overlap")


class RunPictures:
    """The figures that `compare` would draw of one run alone, drawn at most once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @functools.cached_property
    def images(self) -> dict[str, NDArray[np.uint8]]:
        """Pictures by name, each ``[height, width, 3]``; none of a run that failed before there was one to draw."""
        from cl_powerprop.analysis.comparison import compare_runs
        from cl_powerprop.analysis.figures import figure_images
        from cl_powerprop.analysis.runs import load_runs

        try:
            comparison = compare_runs(load_runs(self._folder))
        except UserError:
            return {}
        return figure_images(comparison, _SHOWN)
