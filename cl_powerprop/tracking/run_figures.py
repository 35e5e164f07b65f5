"""A run's figures as images, for the dashboards that show them."""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.errors import UserError

# Dashboards draw curves themselves; only figures of matrices are sent as images.
_SHOWN = ("accuracy_matrix", "mask_composition", "mask_overlap")


class RunFigures:
    """The figures that `compare` draws of a single run; they are drawn at most once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @functools.cached_property
    def images(self) -> dict[str, NDArray[np.uint8]]:
        """Images by name, uint8 ``[height, width, 3]``; empty if the run failed before there was a figure to draw."""
        from cl_powerprop.analysis.comparison import compare_runs
        from cl_powerprop.analysis.figures import figure_images
        from cl_powerprop.analysis.runs import load_runs

        try:
            comparison = compare_runs(load_runs(self._folder))
        except UserError:
            return {}
        return figure_images(comparison, _SHOWN)
