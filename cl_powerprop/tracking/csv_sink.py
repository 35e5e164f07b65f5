"""`curves.csv`: every row of the run, tidy."""

from dataclasses import astuple, fields

from cl_powerprop.run_folder import RunFolder
from cl_powerprop.tracking.stream import Row


class CsvSink:
    """Collects rows and rewrites `curves.csv` at every flush."""

    def __init__(self, folder: RunFolder, run_id: str) -> None:
        self._folder = folder
        self._run_id = run_id
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        """Keep the row."""
        self._rows.append(row)

    def flush(self) -> None:
        """Write all rows so far."""
        header = ["run_id", *(field.name for field in fields(Row))]
        self._folder.write_csv("curves.csv", header, ([self._run_id, *astuple(row)] for row in self._rows))

    def close(self) -> None:
        """Nothing is left to write: every row has been flushed."""

    def abort(self) -> None:
        """Nothing is held open."""
