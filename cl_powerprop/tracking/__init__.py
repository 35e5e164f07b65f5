"""A run's measurements as one stream of rows, and the sinks that they are sent to."""

from cl_powerprop.tracking.stream import Row, RowStream, Sink

__all__ = ["Row", "RowStream", "Sink"]
