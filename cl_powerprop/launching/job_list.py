"""The list of a multirun's jobs in its folder: which config each number stands for, and how its job ended.

`jobs.jsonl` has a JSON object a line: each says what is new of a job, and the last one of a number holds. What a run
has done stands in its own `run.json`; the list knows those too that never got as far.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cl_powerprop.documents import parse_json
from cl_powerprop.errors import FileError
from cl_powerprop.files import append, read_file
from cl_powerprop.privacy import redact

NAME = "jobs.jsonl"
STUDY = "study.db"
"""Beside the list if the jobs are the trials of a study of `cl-powerprop tune`."""
WAITING, COMPLETE, FAILED, PRUNED = "waiting", "complete", "failed", "pruned"


@dataclass(frozen=True)
class ListedJob:
    """A job as the list has it.

    Attributes:
        job: its number.
        config: hash of its config; "" for a trial, which may have failed although its run is complete.
        name: by what differs among the jobs.
        folder: of its run, or of those of its seeds, from the folder of the multirun.
        state: waiting, complete, failed; or pruned, as trials of `cl-powerprop tune` are, also one that has diverged.
        message: what it failed of.
    """

    job: int
    config: str
    name: str
    folder: str
    state: str = WAITING
    message: str = ""

    def path(self, sweep: Path) -> Path:
        """Return its folder, below that of the multirun."""
        return sweep / self.folder


def is_study(folder: Path) -> bool:
    """Return whether a folder is that of a study: its trials are for `cl-powerprop tune` to run."""
    return os.path.lexists(folder / STUDY)


def read_jobs(sweep: Path) -> dict[int, ListedJob]:
    """Return the jobs in the list of a multirun's folder by number; none if there is no list.

    A line that is damaged, as the last one by a power cut, is left out, and so is one that leads out of the folder.

    Raises:
        OSError: if the list cannot be read.
    """
    try:
        content = read_file(sweep / NAME)
    except (FileNotFoundError, NotADirectoryError, FileError):
        return {}
    found = (_job(line) for line in content.splitlines())
    return {job.job: job for job in found if job is not None}


def _job(line: bytes) -> ListedJob | None:
    try:
        values = parse_json(line)
        job = ListedJob(**{each.name: each.type(values[each.name]) for each in fields(ListedJob)})  # type: ignore[operator]
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None
    folder = Path(job.folder)
    return None if folder.is_absolute() or ".." in folder.parts or job.job < 0 else job


def add_jobs(sweep: Path, jobs: Iterable[ListedJob], begins: bool = False) -> None:
    """Add lines to the list.

    Args:
        sweep: folder of the multirun.
        jobs: what is new of them.
        begins: put an empty line before them: the last one there may be cut off.

    Raises:
        OSError: if it cannot be written.
    """
    lines = [json.dumps(_shareable(job)) for job in jobs]
    if lines:
        append(sweep / NAME, "".join(f"{line}\n" for line in ([""] if begins else []) + lines).encode())


def _shareable(job: ListedJob) -> dict[str, Any]:
    values = asdict(job)
    return values | {"name": redact(job.name), "message": redact(job.message)}
