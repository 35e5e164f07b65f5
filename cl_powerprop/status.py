"""`cl-powerprop status`: how far each run of a folder is, from its `run.json` and the header of its checkpoint."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cl_powerprop.analysis.finding import find_run_folders
from cl_powerprop.documents import read_json
from cl_powerprop.errors import FileError, RunFolderError
from cl_powerprop.files import open_file
from cl_powerprop.launching.job_list import COMPLETE, FAILED, NAME, PRUNED, WAITING, ListedJob, read_jobs
from cl_powerprop.output import duration, say
from cl_powerprop.process import FAULT
from cl_powerprop.run_folder import CHECKPOINT
from cl_powerprop.run_lock import holder_of
from cl_powerprop.shown import as_line, printable
from cl_powerprop.tensor_header import is_whole, read_header

UNFINISHED = 3
"""Exit code if nothing failed, and something is left to do."""

RUNNING, CUT_OFF = "running", "cut off"
_STATES = (COMPLETE, PRUNED, RUNNING, WAITING, CUT_OFF, FAILED)
_DONE = (COMPLETE, PRUNED)
_LONGEST = 100  # characters of a message
_SECONDS_A_LOOK = 2.0
_SECONDS_OF_REST = 20.0  # without any run at work, after which nobody watches on


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        name: of its folder, and of the job if it is one of a multirun.
        state: complete, pruned (a trial that is not to learn all tasks), running, waiting (not begun), cut off
            (interrupted, or its process is gone), or failed.
        progress: tasks and epochs that it has trained, as text.
        seconds_left: as the tasks before let expect; None if that is not known.
        message: the last one.
    """

    name: str
    state: str
    progress: str = ""
    seconds_left: float | None = None
    message: str = ""


def statuses(folder: Path) -> list[RunStatus]:
    """Return how far the runs at or below a folder are, with jobs of multiruns that have no run folder yet.

    Raises:
        RunFolderError: if the folder holds neither, or cannot be read.
    """
    try:
        return _statuses(folder)
    except PermissionError as error:
        raise RunFolderError(f"{error.filename} cannot be read: {error.strerror}") from error


def _statuses(folder: Path) -> list[RunStatus]:
    jobs = {
        job.path(file.parent).absolute(): job
        for file in (sorted(folder.rglob(NAME)) if folder.is_dir() else ())
        for job in read_jobs(file.parent).values()
    }
    try:
        runs = find_run_folders([folder], [])
    except RunFolderError:
        if not jobs:
            raise
        runs = []
    found: dict[Path, RunStatus] = {}
    for run in runs:
        place = run.absolute()
        job = jobs.get(place)
        if job is None and (group := jobs.get(place.parent)) is not None:  # of several seeds, which the folders name
            job = replace(group, name=group.name.partition(", seed ")[0])
        found[place] = _of_run(run, _name(place, folder, job), job)
    begun = {place.parent for place in found} | found.keys()
    for place, job in jobs.items():
        if place not in begun:
            state = FAILED if job.state == FAILED else WAITING  # a complete one was removed since
            found[place] = RunStatus(_name(place, folder, job), state, message=as_line(job.message, _LONGEST))
    return [found[place] for place in sorted(found, key=_order)]


def _order(place: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() and part.isascii() and len(part) < 10 else -1, part) for part in place.parts]


def _name(place: Path, folder: Path, job: ListedJob | None) -> str:
    shown = printable(os.path.relpath(place, folder.absolute()))
    return f"{shown}: {as_line(job.name)}" if job is not None else shown


def _of_run(folder: Path, name: str, job: ListedJob | None) -> RunStatus:
    try:
        record = read_json(folder / "run.json")
    except (OSError, ValueError, FileError) as error:
        return RunStatus(name, CUT_OFF, message=as_line(f"run.json cannot be read: {error}", _LONGEST))
    record = record if isinstance(record, dict) else {}
    is_judged = job is not None and (job.state == PRUNED or (job.state == FAILED and not job.config))  # as a trial
    state = job.state if job and is_judged else record.get("status")
    if state not in (*_DONE, FAILED):
        state = RUNNING if holder_of(folder) is not None else FAILED if job and job.state == FAILED else CUT_OFF
    trained, total = (record.get(key) for key in ("trained_tasks", "n_tasks"))
    message = record.get("error") or (job.message if job and state == FAILED else "") or _last(record.get("messages"))
    progress, left = "", None
    if is_whole(trained, 0) and is_whole(total, 1):
        epochs = 0 if state in _DONE else _epochs(folder)
        progress = f"task {trained}/{total}" + (f" + {epochs} epochs" if epochs else "")
        if state == RUNNING and trained:
            left = _seconds(record) / trained * (total - trained)
    return RunStatus(name, state, progress, left, as_line(str(message), _LONGEST))


def _last(messages: Any) -> str:
    return str(messages[-1]) if isinstance(messages, list) and messages else ""


def _seconds(record: Mapping[str, Any]) -> float:
    seconds = record.get("seconds")
    total = seconds.get("total") if isinstance(seconds, dict) else None
    return float(total) if isinstance(total, int | float) and total >= 0 else 0.0


def _epochs(folder: Path) -> int:
    """Return how many epochs of the task in training the checkpoint has; 0 if it has none, or cannot be read."""
    try:
        with open_file(folder / CHECKPOINT) as descriptor:
            state = json.loads(read_header(descriptor).metadata["state"])
        epochs = state["task"].get("epochs")
    except (OSError, FileError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return 0
    return epochs if is_whole(epochs, 0) else 0


def as_text(runs: Sequence[RunStatus], rows: int | None = None) -> str:
    """Return a line for each run, and one that counts them.

    Args:
        runs: how far each is.
        rows: how many lines there may be; runs that are complete or waiting are left out first. None for all.
    """
    shown = runs if rows is None else _most_telling(runs, rows - 1)
    cells = [[run.name, run.state, run.progress, _left(run.seconds_left), run.message] for run in shown]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    counts = Counter(run.state for run in runs)
    summary = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    missing = f", {len(runs) - len(shown)} of which are not shown" if len(shown) < len(runs) else ""
    return "\n".join([*lines, f"{len(runs)} run{'s' * (len(runs) != 1)}: {summary}{missing}"])


def _most_telling(runs: Sequence[RunStatus], most: int) -> list[RunStatus]:
    first = (RUNNING, FAILED, CUT_OFF, WAITING, PRUNED, COMPLETE)
    kept = {id(run) for run in sorted(runs, key=lambda run: first.index(run.state))[: max(1, most)]}
    return [run for run in runs if id(run) in kept]


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration(seconds)} left"


def show(folder: Path, watch: bool = False) -> int:
    """Print how far the runs at or below a folder are, and return the exit code.

    Args:
        folder: to look into.
        watch: on a terminal, print it anew every 2 seconds, until all has ended, or nothing has run for a while.

    Raises:
        RunFolderError: if the folder holds no run.
    """
    runs = statuses(folder)
    if watch and sys.stdout.isatty():
        console = Console()
        with Live(_fitting(runs, console), console=console, auto_refresh=False) as live:
            last_at_work = time.monotonic()
            while _is_open(runs) and time.monotonic() - last_at_work < _SECONDS_OF_REST:
                time.sleep(_SECONDS_A_LOOK)
                runs = statuses(folder)
                live.update(_fitting(runs, console), refresh=True)
                if any(run.state == RUNNING for run in runs):
                    last_at_work = time.monotonic()
    else:
        say(as_text(runs))
    states = {run.state for run in runs}
    return FAULT if FAILED in states else 0 if states.issubset(_DONE) else UNFINISHED


def _fitting(runs: Sequence[RunStatus], console: Console) -> Text:
    return Text(as_text(runs, console.height), no_wrap=True, overflow="ellipsis")


def _is_open(runs: Sequence[RunStatus]) -> bool:
    return any(run.state not in (*_DONE, FAILED) for run in runs)
