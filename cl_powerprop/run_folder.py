"""The files of one run. Each is written to a temporary file and then renamed, so a reader never sees half of one."""

import csv
import io
import json
import math
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from cl_powerprop.errors import RunFolderError
from cl_powerprop.privacy import redact, redact_all
from cl_powerprop.run_lock import is_lock

SCHEMA_VERSION = 1
COPY = "run_folder"  # a folder of this name holds a copy of a run's files, for a dashboard, and is no run of its own

_HYDRA_FILES = {"config.yaml", "hydra.yaml", "overrides.yaml"}


class RunFolder:
    """A folder that belongs to one run from its start. What Hydra was told to write there itself may lie in it.

    Raises:
        RunFolderError: if it holds a run already, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            occupied = not is_free(path)
        except OSError as error:
            raise RunFolderError(f"the run folder {path} cannot be written: {error.strerror}") from error
        if occupied:
            raise taken(path)

    @classmethod
    def reopen(cls, path: Path) -> "RunFolder":
        """Return the folder of a run that was begun before."""
        folder = cls.__new__(cls)
        folder.path = path
        return folder

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run, replacing an earlier version of it; keys and a user's paths are taken out."""
        part = self.path / f"{name}.part"
        part.write_text(redact(text), encoding="utf-8")
        os.replace(part, self.path / name)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file; a number that is not finite becomes null."""
        self.write_text(name, json.dumps(finite(redact_all(content)), indent=2) + "\n")

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write a CSV file; None and NaN become empty fields."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([["" if _is_nan(value) else value for value in row] for row in rows])
        self.write_text(name, text.getvalue())


class UnwrittenFolder(RunFolder):
    """The folder of a run that another process writes: this one writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_text(self, name: str, text: str) -> None:
        """Write nothing."""


def is_free(path: Path, besides: Collection[str] = ()) -> bool:
    """Return whether a run can begin in a folder: it is absent, or holds nothing.

    Args:
        path: of the folder.
        besides: names of files that do not count. What Hydra writes does not either.

    Raises:
        OSError: if it cannot be read.
    """
    try:
        return all(entry.name in besides or is_lock(entry.name) or _is_of_hydra(entry) for entry in path.iterdir())
    except FileNotFoundError:
        return True


def taken(path: Path) -> RunFolderError:
    """Return the error for a folder that holds something."""
    return RunFolderError(f"the run folder {path} exists already and is never overwritten; choose another run_dir")


def _is_of_hydra(entry: Path) -> bool:
    """Whether Hydra has written this: the folder `hydra.output_subdir`, or the file of `hydra/job_logging`."""
    if not entry.is_dir():
        return entry.suffix == ".log"
    inside = {file.name for file in entry.rglob("*") if not file.is_dir()}
    return bool(inside) and inside <= _HYDRA_FILES


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def finite(value: Any) -> Any:
    """Return nested values with null for every number that is not finite, as JSON needs."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
