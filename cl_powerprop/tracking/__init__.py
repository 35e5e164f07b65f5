"""One stream of rows from a run, and a small sink for each place they go to."""

from cl_powerprop.tracking.stream import Row, RowStream, Sink

__all__ = ["Row", "RowStream", "Sink"]
