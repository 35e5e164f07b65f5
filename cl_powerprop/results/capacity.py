"""What each task holds of the network: `capacity.csv` and `reuse.csv`, and at the end `weights.csv` and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any, Literal

from cl_powerprop.evaluation.weights import WeightCount
from cl_powerprop.results.tables import CAPACITY, REUSE, Tables, read_rows
from cl_powerprop.run_folder import RunFolder
from cl_powerprop.sparsity import LayerCapacity

if TYPE_CHECKING:
    from cl_powerprop.evaluation.cost import Cost
    from cl_powerprop.strategies.base import Summary

_CAPACITY_COLUMNS = ("task", "layer", "kind", "weights", "kept", "newly_frozen", "reused", "free")
_REUSE_COLUMNS = ("task", "layer", "from_task", "weights")


class CapacityTable:
    """One row a task and tensor, in the order they were reported.

    Attributes:
        rows: without masks there are none.
        entered: the rows of tasks that were tested as well, which dashboards show at the moment of that test.
        used: share of the maskable weights that some task holds.
    """

    def __init__(self) -> None:
        self.rows: list[LayerCapacity] = []
        self.entered: list[LayerCapacity] = []
        self.used = 1.0
        self._written = 0

    @property
    def dense_weights(self) -> int:
        """Parameters that tasks have to themselves beside masked weights."""
        return sum(row.weights for row in self.rows if row.kind == "dense")

    def add(self, rows: Sequence[LayerCapacity], used: float) -> None:
        """Enter what a task holds, and what all hold together now."""
        self.rows += rows
        self.used = used

    def enter(self, tasks: int) -> None:
        """Let dashboards show the rows of the first ``tasks`` tasks."""
        self.entered += [row for row in self.rows[len(self.entered) :] if row.task < tasks]

    def write(self, tables: Tables) -> None:
        """Add the rows that are new to both tables."""
        new, self._written = self.rows[self._written :], len(self.rows)
        tables.add(
            CAPACITY,
            _CAPACITY_COLUMNS,
            (
                [row.task, row.layer, row.kind, row.weights, row.kept, row.newly_frozen, row.reused, row.free]
                for row in new
            ),
        )
        tables.add(
            REUSE,
            _REUSE_COLUMNS,
            ([row.task, row.layer, source, weights] for row in new for source, weights in enumerate(row.reused_from)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what is not in the tables."""
        return {"used": self.used}

    def load_state_dict(self, state: Mapping[str, Any], tables: Mapping[str, bytes]) -> None:
        """Take back what :meth:`state_dict` returned, and the rows that the tables had.

        Raises:
            RunFolderError: if a table is damaged.
        """
        self.used = state["used"]
        if "rows" in state:  # of an earlier version
            self.rows[:] = [LayerCapacity(**{**row, "reused_from": tuple(row["reused_from"])}) for row in state["rows"]]
            return
        reused: dict[tuple[str, str], list[int]] = {}

        def reuse(row: dict[str, str]) -> None:
            reused.setdefault((row["task"], row["layer"]), []).append(int(row["weights"]))

        def capacity(row: dict[str, str]) -> LayerCapacity:
            counts = {name: int(row[name]) for name in ("task", "weights", "kept", "newly_frozen", "free")}
            kind: Literal["masked", "dense"] = "masked" if row["kind"] == "masked" else "dense"
            sources = tuple(reused.get((row["task"], row["layer"]), ()))
            return LayerCapacity(layer=row["layer"], kind=kind, reused_from=sources, **counts)

        read_rows(REUSE, tables.get(REUSE, b""), reuse)
        self.rows[:] = read_rows(CAPACITY, tables.get(CAPACITY, b""), capacity)
        self._written = len(self.rows)


def write_summary(folder: RunFolder, summary: Summary, cost: Cost) -> None:
    """Write what is kept, how large the weights are at the end and, of a strategy with masks, how far these overlap."""
    folder.write_csv("cost.csv", ["item", "bits"], cost.rows())
    header = [each.name for each in fields(WeightCount)]
    folder.write_csv("weights.csv", header, map(astuple, summary.weights))
    if summary.overlaps is not None:
        table = summary.overlaps.tolist()
        pairs = ([task, other, table[task][other]] for task in range(len(table)) for other in range(task + 1))
        folder.write_csv("mask_overlap.csv", ["task", "other", "weights"], pairs)
