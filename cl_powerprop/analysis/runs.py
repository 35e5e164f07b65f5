"""Run folders as pandas tables, read from the files of the run folders alone."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.progress import track

from cl_powerprop.errors import RunFolderError
from cl_powerprop.naming import flat
from cl_powerprop.registry import canonical
from cl_powerprop.run_folder import COPY, SCHEMA_VERSION

_MANY = 50  # from this many runs on, a progress bar is shown

# Keys of run.json that become columns, besides metrics and seconds.
_FACTS = (
    *("run_id", "status", "error", "benchmark", "scenario", "data", "strategy", "model", "alpha", "optimizer", "seed"),
    *("n_tasks", "trained_tasks", "device", "host", "git_commit", "started", "finished", "peak_memory_mb"),
    *("zero_forgetting_verified", "diverged_tasks", "messages"),
)
_ALREADY_FACTS = ("seed", "name")  # keys of the config whose values run.json has too
_NOT_SETTINGS = ("defaults", "run_dir", "progress", "save_model", "references", "references_dir", "logger", "pruning")


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
    problems: list[str] = field(default_factory=list)

    def select(self, names: Sequence[str]) -> "Runs":
        """Return the runs of these names only."""
        kept: dict[str, Any] = {}
        for table in ("accuracy", *_TIDY):
            frame: pd.DataFrame = getattr(self, table)
            kept[table] = frame[frame["run"].isin(names)]
        return replace(self, runs=self.runs.loc[list(names)], **kept)


# The tidy files of a run folder, and the columns each must have. A file that is absent is an empty table.
_TIDY: dict[str, tuple[str, ...]] = {
    "curves": ("run_id", "trained_tasks", "epoch", "step", "eval_task", "split", "metric", "value"),
    "capacity": ("task", "layer", "kind", "weights", "kept", "newly_frozen", "reused", "free"),
    "reuse": ("task", "layer", "from_task", "weights"),
    "overlap": ("task", "other", "weights"),
    "weights": ("layer", "state", "low", "high", "weights"),
}
_FILES = {"overlap": "mask_overlap.csv"}


def each_row(frame: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows of a table with their columns as attributes."""
    return iter(frame.itertuples())


def find_run_folders(paths: Iterable[str | os.PathLike[str]], problems: list[str]) -> list[Path]:
    """Return the run folders at or below some paths, each once, in the order of the paths.

    Folders whose name begins with a dot are skipped, and so are the copies kept for a dashboard. A path without a run
    becomes a line of ``problems``.

    Raises:
        RunFolderError: for a path that does not exist, or if there is no run at all.
    """
    found: dict[Path, Path] = {}
    empty = []
    for path in map(Path, paths):
        if not path.is_dir():
            reason = "is not a folder" if path.exists() else "does not exist"
            raise RunFolderError(f"{path} {reason}; give run folders, or folders that hold them")
        below = list(_walk(path))
        if not below:
            empty.append(f"{path} holds no run: no run.json was found at or below it")
        for folder in below:
            found.setdefault(folder.resolve(), folder)
    if not found:
        raise RunFolderError("; ".join(empty) or "no run folder was given")
    problems += empty
    return list(found.values())


def _walk(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # reached through a symbolic link before
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted((name for name in subfolders if not name.startswith(".") and name != COPY), key=_natural)
        if "run.json" in files:
            subfolders.clear()
            yield Path(folder)


def _natural(name: str) -> tuple[int, str]:
    """Return a sort key under which 2 comes before 10."""
    return (len(name), name) if name.isdecimal() else (0, name)


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
    names = _names(folders)
    console = Console(stderr=True)
    show = progress and len(folders) >= _MANY and console.is_terminal
    rows: dict[str, dict[str, Any]] = {}
    metrics: dict[str, None] = {}  # an ordered set
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in ("accuracy", *_TIDY)}
    for folder in track(folders, "reading runs", console=console, disable=not show, transient=True):
        try:
            content = _read_json(folder)
            if "strategy" not in content:
                problems.append(f"{folder}: not a task sequence (a pruning experiment), left out")
                continue
            row = _row(folder, content)
            read = _read_tables(folder, row, problems)
        except (RunFolderError, OSError) as error:
            problems.append(f"{folder}: {error}")
            continue
        name = names[folder]
        rows[name] = row
        metrics |= dict.fromkeys(content.get("metrics") or {})
        for table, frame in read.items():
            frame.insert(0, "run", name)
            tables[table].append(frame)
    if not rows:
        raise RunFolderError(f"no run could be read: {problems[0]}" + _and_more(len(problems) - 1))
    runs = pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
    joined = {
        table: pd.concat(frames, ignore_index=True) if frames else _empty(table) for table, frames in tables.items()
    }
    return Runs(runs, list(metrics), **joined, problems=problems)


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count > 0 else ""


def _empty(table: str) -> pd.DataFrame:
    columns = ("trained_tasks", "eval_task", "name", "accuracy") if table == "accuracy" else _TIDY[table]
    return pd.DataFrame(columns=["run", *columns])


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """Return each folder's path below the folder they have in common; a single folder's own name."""
    shared = os.path.commonpath([folder.absolute() for folder in folders]) if len(folders) > 1 else None
    return {
        folder: folder.name if shared is None else folder.absolute().relative_to(shared).as_posix()
        for folder in folders
    }


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        version = content["schema_version"]
    except (ValueError, TypeError, KeyError) as error:
        raise RunFolderError(f"run.json is damaged ({type(error).__name__}: {error})") from error
    if version != SCHEMA_VERSION:
        raise RunFolderError(f"schema version {version}; this version of cl-powerprop reads {SCHEMA_VERSION}")
    return content


def _row(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return a run's row of the table of runs.

    Raises:
        RunFolderError: if `run.json` or `config.yaml` is damaged.
    """
    missing = [key for key in ("run_id", "status", "benchmark", "n_tasks", "seed") if key not in content]
    if missing:
        raise RunFolderError(f"run.json is damaged: it has no {', '.join(missing)}")
    if not isinstance(content["seed"], int):
        raise RunFolderError(f"run.json is damaged: its seed is {content['seed']}")
    if content["status"] == "complete" and not content.get("metrics"):
        raise RunFolderError("run.json is damaged: it is complete and has no metrics")
    row = read_settings(folder) | {key: content.get(key) for key in _FACTS}
    row["benchmark"] = canonical("benchmark", content["benchmark"])  # which may have been renamed since the run
    row |= content.get("metrics") or {}
    row |= {f"seconds.{part}": value for part, value in (content.get("seconds") or {}).items()}
    row["path"] = str(folder)
    return row


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the config with dotted keys; lists become text, so that runs can be grouped by them.

    Raises:
        RunFolderError: if it cannot be read.
    """
    try:
        loaded = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, yaml.YAMLError) as error:
        raise RunFolderError(f"config.yaml cannot be read ({type(error).__name__})") from error
    if not isinstance(loaded, dict):
        raise RunFolderError("config.yaml is damaged")
    options = flat({key: value for key, value in loaded.items() if key not in _NOT_SETTINGS})
    return {key: value for key, value in options if key.rpartition(".")[2] not in _ALREADY_FACTS}


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _read_tables(folder: Path, row: dict[str, Any], problems: list[str]) -> dict[str, pd.DataFrame]:
    """Return the CSV files as tables; a damaged one becomes a line of ``problems`` and is left out.

    Raises:
        RunFolderError: if the accuracy matrix of a complete run is damaged.
    """
    tables: dict[str, pd.DataFrame] = {}
    try:
        tables["accuracy"] = _read_matrix(folder / "accuracy_matrix.csv", row["n_tasks"])
    except (OSError, ValueError) as error:
        if row["status"] == "complete":
            raise RunFolderError(f"accuracy_matrix.csv is damaged ({_first_line(error)})") from error
    for table, columns in _TIDY.items():
        path = folder / _FILES.get(table, f"{table}.csv")
        if not path.exists():
            continue
        try:
            frame = pd.read_csv(path, dtype={"layer": str})  # of a Sequential, layers are named by numbers
            if list(frame.columns) != list(columns):
                raise ValueError(f"its columns are {', '.join(map(str, frame.columns))}")
            if frame[columns[-1]].isna().any() and table != "curves":
                raise ValueError("its last line is cut off")
            tables[table] = frame.drop(columns="run_id", errors="ignore")
        except (OSError, ValueError) as error:
            problems.append(f"{folder}: {path.name} is damaged and left out ({_first_line(error)})")
    return tables


def _read_matrix(path: Path, n_tasks: int) -> pd.DataFrame:
    matrix = pd.read_csv(path, skip_blank_lines=False)
    if matrix.shape != (n_tasks, n_tasks):
        raise ValueError(f"it has {len(matrix)} rows and {len(matrix.columns)} columns for {n_tasks} tasks")
    matrix = matrix.astype(float)
    names = list(matrix.columns)
    matrix.columns = pd.RangeIndex(n_tasks)
    tidy = matrix.rename_axis("row").reset_index().melt("row", var_name="eval_task", value_name="accuracy").dropna()
    return pd.DataFrame(
        {
            "trained_tasks": tidy["row"] + 1,
            "eval_task": tidy["eval_task"].astype(int),
            "name": tidy["eval_task"].map(dict(enumerate(names))),
            "accuracy": tidy["accuracy"],
        }
    ).sort_values(["trained_tasks", "eval_task"], ignore_index=True)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
