"""`curves.csv`: all rows of the run, in tidy form."""

import csv
from dataclasses import astuple, fields

from cl_powerprop.errors import RunFolderError
from cl_powerprop.run_folder import RunFolder
from cl_powerprop.tracking.stream import Row


class CsvSink:
    """Collects rows and rewrites `curves.csv` at every flush.

    Args:
        folder: the run folder.
        run_id: id of the run, the first column.
        kept: number of rows to keep of the existing file; a resumed run has some.

    Raises:
        RunFolderError: if the file has fewer rows.
    """

    def __init__(self, folder: RunFolder, run_id: str, kept: int = 0) -> None:
        self._folder = folder
        self._run_id = run_id
        self._rows = read_rows(folder)[:kept] if kept else []
        if len(self._rows) < kept:
            raise RunFolderError(f"{folder.path / 'curves.csv'} has {len(self._rows)} rows of the {kept} that it had")

    def write(self, row: Row) -> None:
        """Keep the row."""
        self._rows.append(row)

    def flush(self) -> None:
        """Write all rows so far."""
        header = ["run_id", *(field.name for field in fields(Row))]
        self._folder.write_csv("curves.csv", header, ([self._run_id, *astuple(row)] for row in self._rows))


def read_rows(folder: RunFolder) -> list[Row]:
    """Return the rows of a run's `curves.csv`.

    Raises:
        RunFolderError: if it is missing or damaged.
    """
    path = folder.path / "curves.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))[1:]
        return [
            Row(int(trained), int(epoch), int(step), int(task), split, metric, float(value or "nan"))
            for _, trained, epoch, step, task, split, metric, value in lines
        ]
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
