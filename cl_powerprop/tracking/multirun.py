"""The display of a Hydra multirun: progress bars while jobs run in separate processes, and one table at the end."""

import contextlib
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cl_powerprop import naming
from cl_powerprop.analysis.finding import find_run_folders
from cl_powerprop.analysis.summary import print_runs, settings_of
from cl_powerprop.documents import read_json
from cl_powerprop.errors import RunFolderError
from cl_powerprop.naming import Row
from cl_powerprop.tracking.job_folders import JobFolders, remove_hydras_file

_SECONDS_A_LOOK = 0.5
_ROOM = 10  # lines of the screen that are reserved for running jobs


class MultirunDisplay(JobFolders):
    """Follows the jobs of a multirun through their run folders, and prints the table over them when all are done.

    Args:
        told: the folder in which each job says where it runs; None outside of a job of a multirun.
    """

    def __init__(self, told: Path | None = None) -> None:
        super().__init__(told)
        self._bars: _JobBars | None = None
        self._before: set[Path] = set()  # folders of earlier multiruns, which do not change
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Show one bar per job if they run in other processes; a job that runs in this one has its own display."""
        console = Console(stderr=True)
        self._temporary = tempfile.TemporaryDirectory()
        self._told = Path(self._temporary.name)
        self._before = set(_run_folders(config, self._told))
        in_processes = any(option in config.hydra.launcher for option in ("n_jobs", "retries"))
        if in_processes and config.progress and console.is_terminal:
            self._bars = _JobBars(config, self._told, self._before, console)
            self._bars.start()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the table of all jobs in the sweep folder."""
        if self._bars is not None:
            self._bars.stop()
        sweep = Path(config.hydra.sweep.dir)
        remove_hydras_file(config)
        with contextlib.suppress(OSError):
            sweep.rmdir()  # only if it is empty, as where the jobs' options led all of them to other folders
        # Deeper in the folder, what was there before need not be a job at all.
        folders = _run_folders(config, self._told)
        # Jobs of several seeds have a run folder for each.
        above = {place.absolute() for place in (sweep, *_told_places(self._told))}
        jobs = [folder for folder in folders if folder not in self._before or folder.absolute().parent in above]
        if self._temporary is not None:
            self._temporary.cleanup()
        # A pruning experiment of an earlier version has no strategy. What cannot be read is a line below the table.
        read = {folder: content for folder in jobs if "strategy" in (content := _read(folder)) or not content}
        if read:
            print_runs(sorted(read, key=lambda folder: _order(read[folder])))


def _run_folders(config: DictConfig, told: Path | None) -> list[Path]:
    """Return the run folders below the folder of a sweep, at any depth, and where its jobs say that they run.

    Reference runs are no jobs.
    """
    references = OmegaConf.select(config, "references_dir")
    sweep, here = Path(config.hydra.sweep.dir), Path.cwd()
    places = _told_places(told)
    if not sweep.is_absolute():
        places = [place.relative_to(here) if place.is_relative_to(here) else place for place in places]
    try:
        folders = find_run_folders([place for place in (sweep, *places) if place.is_dir()], [])
    except RunFolderError:  # there is none yet
        return []
    return [
        folder for folder in folders if not references or Path(references).absolute() not in folder.absolute().parents
    ]


def _told_places(told: Path | None) -> list[Path]:
    """Return where the jobs say that they run."""
    return [Path(os.fsdecode(path.read_bytes())) for path in told.glob("*.path")] if told is not None else []


def _read(folder: Path) -> dict[str, Any]:
    """Return the content of `run.json`; nothing if it is damaged."""
    try:
        record = read_json(folder / "run.json")
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _order(record: dict[str, Any]) -> tuple[int, int]:
    """Return the number of the job and the seed of a run; runs without a job keep their order, behind the others."""
    job, seed = record.get("job"), record.get("seed")
    return (job, seed if isinstance(seed, int) else 0) if isinstance(job, int) else (sys.maxsize, 0)


class _JobBars(threading.Thread):
    """Reads at intervals from the run folders how many tasks each job has learned, and shows it.

    Args:
        config: of the multirun.
        told: the folder in which each job says where it runs.
        before: folders that are none of its jobs.
        console: where to show it.
    """

    def __init__(self, config: DictConfig, told: Path, before: set[Path], console: Console) -> None:
        super().__init__(daemon=True)
        self._config, self._told = config, told
        self._done = set(before)
        self._rows: dict[Path, Row] = {}
        self._progress = Progress(
            TextColumn("job {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tasks  {task.fields[status]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._bars: dict[Path, TaskID] = {}
        self._numbers: dict[Path, str] = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        with self._progress:
            while not self._stopped.wait(_SECONDS_A_LOOK):
                self._look()
            self._look()

    def stop(self) -> None:
        """Leave the bars as they are at the end."""
        self._stopped.set()
        self.join()

    def _look(self) -> None:
        for folder in _run_folders(self._config, self._told):
            if folder in self._done:
                continue
            record = _read(folder)
            if "strategy" not in record:  # a pruning experiment of an earlier version
                self._done.add(folder)
                continue
            if folder not in self._bars:
                self._add(folder, record)
            bar = self._bars[folder]
            self._progress.update(bar, completed=record["trained_tasks"], status=record["status"])
            if record["status"] != "running":
                self._done.add(folder)
                self._progress.stop_task(bar)
                # Hide the bars of finished jobs when the screen is nearly full.
                self._progress.update(bar, visible=len(self._bars) < self._progress.console.height - _ROOM)

    def _add(self, folder: Path, record: dict[str, Any]) -> None:
        """Add a bar, and name all anew: what differs may be another setting now."""
        self._bars[folder] = self._progress.add_task("", total=record["n_tasks"], status="")
        self._rows[folder] = settings_of(folder, record)
        self._numbers[folder] = folder.name if record.get("job") is None else str(record["job"])
        for job, name in zip(self._bars, naming.run_names(list(self._rows.values())), strict=True):
            self._progress.update(self._bars[job], description=f"{self._numbers[job]}: {name}")
