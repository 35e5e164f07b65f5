"""Run folders as pandas tables, read from the files of the run folders alone."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import track

from cl_powerprop.analysis.absent_options import with_absent_options
from cl_powerprop.analysis.finding import find_run_folders, run_names
from cl_powerprop.analysis.run_checks import find_incomplete
from cl_powerprop.analysis.run_record import read_config, read_record
from cl_powerprop.analysis.run_tables import (
    LARGEST_CSV,
    LARGEST_MATRIX,
    TIDY,
    Source,
    join_matrices,
    parse_matrix,
    reason_of,
)
from cl_powerprop.errors import RunFolderError
from cl_powerprop.files import read_file
from cl_powerprop.naming import flat
from cl_powerprop.privacy import redact
from cl_powerprop.registry import canonical
from cl_powerprop.shown import as_line

_MANY = 50  # from this many runs on, a progress bar is shown
_AT_A_TIME = 100  # files that are parsed together
_BYTES_AT_A_TIME = 2**26  # of them all, but for the last
_OF_MASKS = ("capacity", "reuse", "overlap")  # tables that a run has if it has masks
_OPTIONAL = ("pruning",)  # tables that a run may have

# Keys of run.json that become columns, besides metrics and seconds.
FACTS = (
    *("run_id", "status", "error", "benchmark", "scenario", "data", "strategy", "model", "alpha", "controller"),
    *(
        "target_sparsity",
        "optimizer",
        "seed",
        "n_tasks",
        "trained_tasks",
        "device",
        "host",
        "git_commit",
        "started",
        "finished",
        "peak_memory_mb",
    ),
    *("zero_forgetting_verified", "diverged_tasks", "messages"),
)
_ALREADY_FACTS = ("seed", "name")  # keys of the config whose values run.json has too
_NOT_SETTINGS = (
    "defaults",
    "run_dir",
    "progress",
    "save_model",
    "references",
    "references_dir",
    "logger",
    "checkpoint",
    "pruning",
    "resume",
    "seeds_together",
)


@dataclass(frozen=True)
class Runs:
    """Runs as tidy tables: one row per observation, with the run's name in the column ``run``.

    Attributes:
        runs: one row per run, indexed by ``run``: facts (strategy, seed, ...), settings (``optimizer.lr``), metrics,
            seconds and ``path``.
        metrics: the columns of ``runs`` that were among the metrics of some run.
        accuracy: run, trained_tasks (1 to T), eval_task (from 0), name, accuracy: the accuracy matrix.
        curves: run, and the columns of `curves.csv`.
        capacity: run, and the columns of `capacity.csv`; only of runs with masks.
        reuse: run, task, layer, from_task, weights; only of runs with masks.
        overlap: run, task, other, weights: how many weights two masks share; only of runs with masks.
        weights: run, layer, state, low, high, weights: the histogram of weight magnitudes at the end.
        sparsity: run, and the columns of `sparsity.csv`; only of runs that were trained sparsely.
        pruning: run, density, eval_task, accuracy, loss: of the trained network that was then pruned further; only of
            runs in which that was tested.
        problems: one line for each run folder, or file in one, that could not be read.
    """

    runs: pd.DataFrame
    metrics: list[str]
    accuracy: pd.DataFrame
    curves: pd.DataFrame
    capacity: pd.DataFrame
    reuse: pd.DataFrame
    overlap: pd.DataFrame
    weights: pd.DataFrame
    sparsity: pd.DataFrame
    pruning: pd.DataFrame
    problems: list[str] = field(default_factory=list)

    def select(self, names: Sequence[str]) -> "Runs":
        """Return the runs of these names only."""
        kept: dict[str, Any] = {}
        for table in ("accuracy", *TIDY):
            frame: pd.DataFrame = getattr(self, table)
            kept[table] = frame[frame["run"].isin(names)]
        return replace(self, runs=self.runs.loc[list(names)], **kept)


def each_row(frame: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows of a table with their columns as attributes."""
    return iter(frame.itertuples())


def load_runs(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], progress: bool = False) -> Runs:
    """Read all runs at or below some paths.

    A run whose files are damaged, or of another schema version, becomes a line of ``problems``; the others are loaded.

    Args:
        paths: run folders, or folders that contain them at any depth.
        progress: show a progress bar if there are many runs and the output is a terminal.

    Raises:
        RunFolderError: for a path that does not exist, or if no run could be read.
    """
    problems: list[str] = []
    folders = find_run_folders([paths] if isinstance(paths, str | os.PathLike) else paths, problems)
    console = Console(stderr=True)
    show = progress and len(folders) >= _MANY and console.is_terminal
    rows: dict[str, dict[str, Any]] = {}
    metrics: dict[str, None] = {}  # an ordered set
    reader = _Reader(problems)
    for name, folder in track(
        run_names(folders).items(), "reading runs", console=console, disable=not show, transient=True
    ):
        try:
            content = read_record(folder)
            if "strategy" not in content:
                problems.append(f"{name}: not a task sequence (a pruning experiment), left out")
                continue
            row = _row(folder, content)
            reader.read(name, folder, row)
        except (RunFolderError, OSError) as error:
            problems.append(f"{name}: {error}")
            continue
        rows[name] = row
        metrics |= dict.fromkeys(content.get("metrics") or {})
    tables = reader.tables()
    problems[:] = [as_line(redact(line)) for line in problems]
    if not rows:
        raise RunFolderError(f"no run could be read: {problems[0]}" + _and_more(len(problems) - 1))
    runs = pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
    return Runs(runs, list(metrics), **tables, problems=problems)


class _Reader:
    """Reads the tables of runs, many files at a time."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems
        self._matrices: dict[str, pd.DataFrame] = {}
        # Of each table, the complete runs whose file was read, and their number of tasks.
        self._complete: dict[str, dict[str, int]] = {table: {} for table in TIDY}
        self._waiting: dict[str, list[Source]] = {table: [] for table in TIDY}
        self._frames: dict[str, list[pd.DataFrame]] = {table: [] for table in TIDY}

    def read(self, name: str, folder: Path, row: Mapping[str, Any]) -> None:
        """Read the CSV files of a run; a damaged one becomes a line of the problems and is left out.

        Raises:
            RunFolderError: if the accuracy matrix of a complete run is damaged.
        """
        try:
            content = read_file(folder / "accuracy_matrix.csv", LARGEST_MATRIX)
            self._matrices[name] = parse_matrix(content, row["n_tasks"], row["status"] == "complete")
            tested = not pd.isna(row.get("average_accuracy"))  # with evaluation.schedule=never it is not
            if self._matrices[name].empty and row["status"] == "complete" and tested:
                raise ValueError("it has no accuracy")
        except (OSError, ValueError) as error:
            if row["status"] == "complete":
                raise RunFolderError(f"accuracy_matrix.csv is damaged ({reason_of(error)})") from error
        there = {table: os.path.lexists(folder / tidy.file) for table, tidy in TIDY.items()}
        masks = (row.get("mask_bits") or 0) > 0 or any(there[table] for table in _OF_MASKS)
        needed = {table for table in TIDY if table not in (*_OF_MASKS, *_OPTIONAL, "sparsity")}
        needed |= ({*_OF_MASKS} if masks else set()) | ({"sparsity"} if row["controller"] else set())
        for table, tidy in TIDY.items():
            if there[table]:
                try:
                    content = read_file(folder / tidy.file, LARGEST_CSV)
                    self._waiting[table].append(Source(name, row["n_tasks"], content))
                    if row["status"] == "complete":
                        self._complete[table][name] = row["n_tasks"]
                except (OSError, ValueError) as error:
                    self._leave_out(table, name, reason_of(error))
            elif row["status"] == "complete" and table in needed:
                self._problems.append(f"{name}: {tidy.file} is missing")
            waiting = self._waiting[table]
            if len(waiting) == _AT_A_TIME or sum(len(each.content) for each in waiting) >= _BYTES_AT_A_TIME:
                self._parse(table)

    def _leave_out(self, table: str, name: str, reason: str) -> None:
        self._complete[table].pop(name, None)
        self._problems.append(f"{name}: {TIDY[table].file} is damaged and left out ({reason})")

    def _parse(self, table: str) -> None:
        frames, wrong = TIDY[table].read(self._waiting[table])
        self._frames[table] += frames
        self._waiting[table].clear()
        for name, reason in wrong.items():
            self._leave_out(table, name, reason)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return all that was read, as the tables of :class:`Runs`."""
        for table in TIDY:
            self._parse(table)
        joined = {table: tidy.table(self._frames.pop(table)) for table, tidy in TIDY.items()}
        joined["accuracy"] = join_matrices(self._matrices)
        for table, wrong in find_incomplete(joined, self._complete).items():
            for name, reason in wrong.items():
                self._leave_out(table, name, reason)
            if wrong:
                joined[table] = joined[table][~joined[table]["run"].isin(list(wrong))].reset_index(drop=True)
        return joined


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count > 0 else ""


def _row(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return a run's row of the table of runs.

    Raises:
        RunFolderError: if `config.yaml` is damaged, or a metric has the name of another column.
    """
    row = read_settings(folder, content) | {key: content.get(key) for key in FACTS}
    row["benchmark"] = canonical("benchmark", content["benchmark"])  # which may have been renamed since the run
    row |= {f"seconds.{part}": value for part, value in (content.get("seconds") or {}).items()}
    metrics = content.get("metrics") or {}
    if taken := row.keys() & metrics.keys():
        raise RunFolderError(f"run.json is damaged: a setting has the name of the metric {', '.join(sorted(taken))}")
    return row | metrics | {"path": str(folder)}


def read_settings(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with dotted keys; lists become text, so that runs can be grouped by them.

    Args:
        folder: of the run.
        record: the content of its `run.json`.

    Raises:
        RunFolderError: if it is damaged.
    """
    config = with_absent_options(read_config(folder, record))
    options = flat({key: value for key, value in config.items() if key not in _NOT_SETTINGS})
    return {key: value for key, value in options if key.rpartition(".")[2] not in _ALREADY_FACTS}
