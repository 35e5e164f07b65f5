"""Which weights are active while a network trains sparsely: `sparsity.csv`; and `pruning.csv`, after training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cl_powerprop.results.tables import SPARSITY as TABLE
from cl_powerprop.results.tables import Tables, read_rows
from cl_powerprop.run_folder import RunFolder
from cl_powerprop.tracking.stream import SPARSITY, Row

if TYPE_CHECKING:
    from cl_powerprop.training.meters import Measured

_COUNTS = ("weights", "active", "ever_active", "dropped", "grown", "regrown", "dead_units")
_MOMENT = ("task", "epoch", "step")
COLUMNS = ("run_id", *_MOMENT, "layer", *_COUNTS)
"""Of the file. Epochs are those of the task; steps are counted from the beginning of the run."""


class SparsityTable:
    """The rows of `sparsity.csv`, in the order they were measured.

    Attributes:
        rows: each has :data:`COLUMNS` but the run's id; without a controller there are none.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._written = 0

    def add(self, trained: int, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Row, list[Row]]]:
        """Enter the layers at one or more moments of training.

        Args:
            trained: tasks whose training is finished.
            rows: in the order they were measured.

        Yields:
            For each moment, its sparsity as a row of `curves.csv`, and that of each layer, for dashboards.
        """
        for (task, epoch, step), layers in itertools.groupby(rows, key=lambda row: tuple(row[key] for key in _MOMENT)):
            new = [{name: row[name] for name in COLUMNS[1:]} for row in layers]
            self.rows += new
            where = (trained, epoch, step, task, "train")
            each = [Row(*where, f"{SPARSITY}/{row['layer']}", count_sparsity([row])) for row in new]
            yield Row(*where, SPARSITY, count_sparsity(new)), each

    @property
    def last(self) -> float | None:
        """Share of the masked weights that were not active when they were last counted; None if they never were."""
        last = list(itertools.takewhile(lambda row: row["step"] == self.rows[-1]["step"], reversed(self.rows)))
        return count_sparsity(last) if last else None

    def write(self, tables: Tables, run_id: str) -> None:
        """Add the rows that are new to the table."""
        new, self._written = self.rows[self._written :], len(self.rows)
        tables.add(TABLE, COLUMNS, ([run_id, *row.values()] for row in new))

    def load(self, tables: Mapping[str, bytes]) -> None:
        """Take back the rows that the table had.

        Raises:
            RunFolderError: if it is damaged.
        """
        self.rows = read_rows(
            TABLE,
            tables.get(TABLE, b""),
            lambda row: {name: row[name] if name == "layer" else int(row[name]) for name in COLUMNS[1:]},
        )
        self._written = len(self.rows)


def count_sparsity(rows: Iterable[Mapping[str, Any]]) -> float:
    """Return the share of the weights of some layers that are not active."""
    active, weights = map(sum, zip(*((row["active"], row["weights"]) for row in rows), strict=True))
    return float(1.0 - active / weights)


def write_pruning(folder: RunFolder, run_id: str, measured: Mapping[float, Mapping[int, Measured]]) -> None:
    """Write `pruning.csv`, what each task measures at each density of a trained network, if anything was measured."""
    rows = [
        [run_id, density, task, value.accuracy, value.loss]
        for density, tasks in measured.items()
        for task, value in tasks.items()
    ]
    if rows:
        folder.write_csv("pruning.csv", ["run_id", "density", "eval_task", "accuracy", "loss"], rows)
