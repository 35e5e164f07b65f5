"""The display of a Hydra multirun: progress bars while jobs run in separate processes, and one table at the end."""

import json
import threading
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cl_powerprop.analysis.summary import print_runs

_SECONDS_A_LOOK = 0.5
_ROOM = 10  # lines of the screen that are reserved for running jobs


class MultirunDisplay(Callback):  # type: ignore[misc]
    """Follows the jobs of a multirun through their run folders, and prints the table over them when all are done."""

    def __init__(self) -> None:
        self._bars: _JobBars | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()  # Hydra pickles its callbacks with each job; the bars stay in this process

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Show one bar per job if several run in parallel; a job that runs in this process has its own display."""
        console = Console(stderr=True)
        in_parallel = config.hydra.launcher.get("n_jobs", 1) != 1
        if in_parallel and config.progress and console.is_terminal:
            self._bars = _JobBars(Path(config.hydra.sweep.dir), console)
            self._bars.start()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the table of all runs in the sweep folder."""
        if self._bars is not None:
            self._bars.stop()
        # Hydra writes the machine's absolute paths into this file; each job's config.yaml says what was run.
        (Path(config.hydra.sweep.dir) / "multirun.yaml").unlink(missing_ok=True)
        # A pruning experiment prints its own table.
        folders = [folder for folder in _run_folders(Path(config.hydra.sweep.dir)) if "strategy" in _read(folder)]
        if folders:
            print_runs(folders)


def _run_folders(sweep: Path) -> list[Path]:
    """Return the run folders of a sweep in the order of its jobs."""
    return sorted((path.parent for path in sweep.glob("*/run.json")), key=lambda path: (len(path.name), path.name))


def _read(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return record


class _JobBars(threading.Thread):
    """Reads at intervals from the run folders how many tasks each job has learned, and shows it."""

    def __init__(self, sweep: Path, console: Console) -> None:
        super().__init__(daemon=True)
        self._sweep = sweep
        self._done = set(_run_folders(sweep))  # folders of an earlier multirun, which do not change
        self._progress = Progress(
            TextColumn("job {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tasks  {task.fields[status]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._bars: dict[Path, TaskID] = {}
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
        for folder in _run_folders(self._sweep):
            if folder in self._done:
                continue
            record = _read(folder)
            if "strategy" not in record:  # a pruning experiment learns no tasks
                self._done.add(folder)
                continue
            if folder not in self._bars:
                about = f"{folder.name}: {record['strategy']}, seed {record['seed']}"
                self._bars[folder] = self._progress.add_task(about, total=record["n_tasks"], status="")
            bar = self._bars[folder]
            self._progress.update(bar, completed=record["trained_tasks"], status=record["status"])
            if record["status"] != "running":
                self._done.add(folder)
                self._progress.stop_task(bar)
                # Hide the bars of finished jobs when the screen is nearly full.
                self._progress.update(bar, visible=len(self._bars) < self._progress.console.height - _ROOM)
