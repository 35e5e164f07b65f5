"""Capacity and reuse of each layer over tasks, as dashboards show them beside a run's rows."""

from collections.abc import Sequence

from cl_powerprop.sparsity import LayerCapacity

_SHARES = ("kept", "newly_frozen", "reused", "free")


class LayerCurves:
    """Turns what the allocator reported since the last call into values of curves `capacity/LAYER/SHARE`.

    Args:
        capacity: grows by one entry a layer and task.
    """

    def __init__(self, capacity: Sequence[LayerCapacity]) -> None:
        self._capacity = capacity
        self._seen = len(capacity)  # a run that is resumed has told of these before

    def new(self) -> dict[str, float]:
        """Return what the last task keeps, freezes, reuses and leaves free, as shares of each layer's weights."""
        layers = [layer for layer in self._capacity[self._seen :] if layer.kind == "masked"]
        self._seen = len(self._capacity)
        return {
            f"capacity/{layer.layer}/{share}": getattr(layer, share) / layer.weights
            for layer in layers
            for share in _SHARES
        }
