"""What each task holds of the network: `capacity.csv` and `reuse.csv`, and at the end `weights.csv` and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields
from typing import TYPE_CHECKING, Any

from cl_powerprop.evaluation.weights import WeightCount
from cl_powerprop.run_folder import RunFolder
from cl_powerprop.sparsity import LayerCapacity

if TYPE_CHECKING:
    from cl_powerprop.strategies.base import Summary


class CapacityTable:
    """One row a task and tensor, in the order they were reported.

    Attributes:
        rows: without masks there are none.
        used: share of the maskable weights that some task holds.
    """

    def __init__(self) -> None:
        self.rows: list[LayerCapacity] = []
        self.used = 1.0

    @property
    def dense_weights(self) -> int:
        """Parameters that tasks have to themselves beside masked weights."""
        return sum(row.weights for row in self.rows if row.kind == "dense")

    def add(self, rows: Sequence[LayerCapacity], used: float) -> None:
        """Enter what a task holds, and what all hold together now."""
        self.rows += rows
        self.used = used

    def write(self, folder: RunFolder) -> None:
        """Write both files, if there is anything to write."""
        if not self.rows:
            return
        folder.write_csv(
            "capacity.csv",
            ["task", "layer", "kind", "weights", "kept", "newly_frozen", "reused", "free"],
            (
                [row.task, row.layer, row.kind, row.weights, row.kept, row.newly_frozen, row.reused, row.free]
                for row in self.rows
            ),
        )
        folder.write_csv(
            "reuse.csv",
            ["task", "layer", "from_task", "weights"],
            (
                [row.task, row.layer, source, weights]
                for row in self.rows
                for source, weights in enumerate(row.reused_from)
            ),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all rows as JSON values."""
        return {"rows": [asdict(row) for row in self.rows], "used": self.used}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        self.rows[:] = [LayerCapacity(**{**row, "reused_from": tuple(row["reused_from"])}) for row in state["rows"]]
        self.used = state["used"]


def write_summary(folder: RunFolder, summary: Summary) -> None:
    """Write how large the weights are at the end and, of a strategy with masks, how far they overlap."""
    header = [each.name for each in fields(WeightCount)]
    folder.write_csv("weights.csv", header, map(astuple, summary.weights))
    if summary.overlaps is not None:
        table = summary.overlaps.tolist()
        pairs = ([task, other, table[task][other]] for task in range(len(table)) for other in range(task + 1))
        folder.write_csv("mask_overlap.csv", ["task", "other", "weights"], pairs)
