"""Curves of each layer's capacity and reuse over tasks, which dashboards show in addition to a run's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cl_powerprop.sparsity import LayerCapacity

_SHARES = ("kept", "newly_frozen", "reused", "free")


class LayerCurves:
    """Turns the allocator's new rows into values of the curves `capacity/LAYER/SHARE`.

    Args:
        capacity: the allocator's rows; one per layer is added when a task has been tested.
    """

    def __init__(self, capacity: Sequence[LayerCapacity]) -> None:
        self._capacity = capacity
        self._seen = len(capacity)  # a resumed run has logged these before

    def new(self) -> dict[str, float]:
        """Return the shares of each layer that the last task keeps, freezes, reuses and leaves free, by curve."""
        layers = [layer for layer in self._capacity[self._seen :] if layer.kind == "masked"]
        self._seen = len(self._capacity)
        return {
            f"capacity/{layer.layer}/{share}": getattr(layer, share) / layer.weights
            for layer in layers
            for share in _SHARES
        }
