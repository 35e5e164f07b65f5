"""The CSV files of a run folder as tables, each checked so that no later step can fail on it."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cl_powerprop.errors import FileError
from cl_powerprop.shown import as_line

_LARGEST = 10**15  # no count, step or epoch of a run comes near it
LARGEST_CSV = 2**28  # bytes
LARGEST_MATRIX = 2**26
LONGEST_NAME = 200  # characters
_MOST_LAYERS = 10_000  # of a run
_SHOWN = 80  # characters of a wrong header that a message shows
_PLAIN = {  # what Python and pandas say of content that is damaged, and what it means
    r"UnicodeDecodeError": "it is not UTF-8 text",
    r"JSONDecodeError: (.*)": r"it is no JSON: \1",
    r"RecursionError": "it is nested too deeply",
    r"Overflow|too large|Exceeds the limit": "a number is too large",
    r"invalid literal for int\(\).*?: (.*)": r"\1 is no whole number",
    r"could not convert string to float: (.*)": r"\1 is no number",
    r"Unable to parse string (.*) at position": r"\1 is no number",
    r"cannot safely convert|NA values": "a number is missing, or is not whole",
    r"Expected \d+ fields": "a row has too many or too few fields",
    r"EOF inside string|unexpected end of data": "a quotation mark is not closed",
}
_TASKS = ("task", "eval_task", "other", "from_task")


@dataclass(frozen=True)
class Source:
    """A file of a run: the run's name and number of tasks, and the content of the file."""

    run: str
    n_tasks: int
    content: bytes


@dataclass(frozen=True)
class Tidy:
    """A file of a run folder with one observation a row, and the table that holds it for many runs.

    Attributes:
        file: its name in a run folder.
        columns: its columns, in order, with what they hold.
        key: columns that no two rows of a run have alike; empty if rows may repeat.
        check: refuses, by a ValueError, what no run writes.
    """

    file: str
    columns: Mapping[str, type]
    key: tuple[str, ...]
    check: Callable[[pd.DataFrame], None]

    def read(self, sources: Sequence[Source]) -> tuple[list[pd.DataFrame], dict[str, str]]:
        """Return the files as tables with a first column ``run``; of each damaged one, its run and what is wrong.

        Files are parsed together, which is many times faster than one by one; if one of them is damaged, each half of
        them is parsed again.
        """
        if not sources:
            return [], {}
        try:
            return [self._parse(sources)], {}
        except (ValueError, TypeError, ArithmeticError, LookupError, MemoryError) as error:
            if len(sources) == 1:
                return [], {sources[0].run: reason_of(error)}
            half = len(sources) // 2
            (before, wrong), (after, also_wrong) = self.read(sources[:half]), self.read(sources[half:])
            return before + after, wrong | also_wrong

    def table(self, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Return one table of the tables that :meth:`read` returned; with its columns even if there is none."""
        if frames:
            return pd.concat(frames, ignore_index=True)
        kinds = {"run": str} | {name: kind for name, kind in self.columns.items() if name != "run_id"}
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})

    def _parse(self, sources: Sequence[Source]) -> pd.DataFrame:
        header = ",".join(self.columns).encode()
        lines = []
        for source in sources:
            first, _, body = source.content.partition(b"\n")
            if first.rstrip(b"\r") != header:
                raise ValueError(f"its columns are {as_line(first[:_SHOWN].decode(errors='replace'))}")
            if body and not body.endswith(b"\n"):
                raise ValueError("its last line is cut off")
            lines.append(body)
        counts = [body.count(b"\n") for body in lines]
        with np.errstate(invalid="ignore"):  # a whole number that is none is an error below
            frame = pd.read_csv(
                io.BytesIO(b"".join([header, b"\n", *lines])),
                dtype=dict(self.columns),
                keep_default_na=False,
                na_values={"value": [""], "loss": [""]},  # a curve has gaps, nothing else has
            )
        if len(frame) != sum(counts) or list(frame.columns) != list(self.columns):
            raise ValueError("a row has too many or too few fields")
        frame = frame.drop(columns="run_id", errors="ignore")
        frame.insert(0, "run", np.repeat(np.array([source.run for source in sources], dtype=object), counts))
        tasks = np.repeat([source.n_tasks for source in sources], counts)
        for column, kind in self.columns.items():
            if kind is int:
                most = tasks - 1 if column in _TASKS else tasks if column == "trained_tasks" else _LARGEST
                if not frame[column].between(0, most).all():
                    raise ValueError(f"a number in its column {column} is impossible")
            elif kind is str and column in frame:
                _check_names(frame, column)
        if self.key and frame.duplicated(["run", *self.key]).any():
            raise ValueError("a row is repeated")
        self.check(frame)
        return frame


def _check_names(frame: pd.DataFrame, column: str) -> None:
    for name in frame[column].unique():
        if not (name.isprintable() and len(name) <= LONGEST_NAME):
            raise ValueError(f"a name in its column {column} cannot be printed, or is too long")
    if (frame.groupby("run")[column].nunique() > _MOST_LAYERS).any():
        raise ValueError(f"its column {column} has more than {_MOST_LAYERS} names")


def _check_curves(frame: pd.DataFrame) -> None:
    _check_shares(frame.loc[frame["metric"] == "accuracy", "value"].to_numpy(float))


def _check_capacity(frame: pd.DataFrame) -> None:
    if (frame["weights"] == 0).any():
        raise ValueError("a layer has no weights")
    if (frame[["kept", "free"]].max(axis="columns") > frame["weights"]).any():
        raise ValueError("more weights are kept or free than there are")
    if (frame["kept"] != frame["newly_frozen"] + frame["reused"]).any():
        raise ValueError("the weights kept are not those newly frozen and those reused")


def _check_reuse(frame: pd.DataFrame) -> None:
    if (frame["from_task"] >= frame["task"]).any():
        raise ValueError("a task reuses weights of a later one")


def _check_overlap(frame: pd.DataFrame) -> None:
    sizes = frame.groupby("run")["task"].agg(["size", "max"])
    if (sizes["size"] != (sizes["max"] + 1) * (sizes["max"] + 2) // 2).any() or (frame["other"] > frame["task"]).any():
        raise ValueError("a pair of tasks is missing")
    own = frame[frame["task"] == frame["other"]].set_index(["run", "task"])["weights"]
    for column in ("task", "other"):
        most = own.loc[pd.MultiIndex.from_frame(frame[["run", column]])].to_numpy()
        if (frame["weights"] > most).any():
            raise ValueError("two tasks share more weights than one of them has")


def _check_weights(frame: pd.DataFrame) -> None:
    if not (frame["low"].ge(0) & frame["high"].gt(frame["low"]) & frame["high"].lt(np.inf)).all():
        raise ValueError("a bin of the histogram is empty")
    if not frame["state"].isin(["used", "free"]).all():
        raise ValueError("a state is neither used nor free")
    if not frame.groupby("run")["weights"].sum().gt(0).all():
        raise ValueError("it counts no weights")


def _check_sparsity(frame: pd.DataFrame) -> None:
    if (frame["weights"] == 0).any():
        raise ValueError("a layer has no weights")
    if (frame["active"] > frame["ever_active"]).any() or (frame["ever_active"] > frame["weights"]).any():
        raise ValueError("more weights are active than there are, or than ever were")
    if (frame["regrown"] > frame["grown"]).any():
        raise ValueError("more weights were grown again than were grown")


def _check_pruning(frame: pd.DataFrame) -> None:
    _check_shares(frame["accuracy"].to_numpy(float))
    if not (frame["density"].gt(0) & frame["density"].le(1)).all():
        raise ValueError("a density is not within 0 and 1")


TIDY: dict[str, Tidy] = {
    "curves": Tidy(
        "curves.csv",
        {"run_id": str, "trained_tasks": int, "epoch": int, "step": int}
        | {"eval_task": int, "split": str, "metric": str, "value": float},
        (),
        _check_curves,
    ),
    "capacity": Tidy(
        "capacity.csv",
        {"task": int, "layer": str, "kind": str, "weights": int, "kept": int, "newly_frozen": int}
        | {"reused": int, "free": int},
        ("task", "layer", "kind"),
        _check_capacity,
    ),
    "reuse": Tidy(
        "reuse.csv",
        {"task": int, "layer": str, "from_task": int, "weights": int},
        ("task", "layer", "from_task"),
        _check_reuse,
    ),
    "overlap": Tidy("mask_overlap.csv", {"task": int, "other": int, "weights": int}, ("task", "other"), _check_overlap),
    "weights": Tidy(
        "weights.csv",
        {"layer": str, "state": str, "low": float, "high": float, "weights": int},
        ("layer", "state", "low"),
        _check_weights,
    ),
    "sparsity": Tidy(
        "sparsity.csv",
        {"run_id": str, "task": int, "epoch": int, "step": int, "layer": str, "weights": int, "active": int}
        | dict.fromkeys(("ever_active", "dropped", "grown", "regrown", "dead_units"), int),
        ("task", "step", "layer"),
        _check_sparsity,
    ),
    "pruning": Tidy(
        "pruning.csv",
        {"run_id": str, "density": float, "eval_task": int, "accuracy": float, "loss": float},
        ("density", "eval_task"),
        _check_pruning,
    ),
}
"""The tidy files of a run folder, by the name of their table. A file that is absent adds nothing to it."""


def parse_matrix(content: bytes, n_tasks: int, is_complete: bool = True) -> pd.DataFrame:
    """Return `accuracy_matrix.csv` as trained_tasks, eval_task, name, accuracy.

    Args:
        content: of the file.
        n_tasks: how many columns it has, and rows of a complete run.
        is_complete: whether the run is; one that goes on has fewer rows.

    Raises:
        ValueError: if it is damaged, saying how.
    """
    if not content.endswith(b"\n"):
        raise ValueError("its last line is cut off")
    count = content.count(b"\n") - 1
    # A cell takes a byte at least.
    if count > n_tasks or (is_complete and count < n_tasks) or len(content) < count * n_tasks:
        raise ValueError(f"it has {count} rows for {n_tasks} tasks, or rows that are too short")
    lines = csv.reader(io.StringIO(content.decode(), newline=""))
    try:
        names = next(lines)
        if len(names) != n_tasks:
            raise ValueError(f"it has {len(names)} columns for {n_tasks} tasks")
        if not all(name.isprintable() and len(name) <= LONGEST_NAME for name in names):
            raise ValueError("the name of a task cannot be printed, or is too long")
        matrix = np.full((count, n_tasks), np.nan)
        for row, cells in enumerate(lines):
            if len(cells or [""]) != n_tasks:  # for a single empty field, csv returns none
                raise ValueError(f"its row {row} has {len(cells)} columns for {n_tasks} tasks")
            matrix[row] = [float(cell or "nan") for cell in cells or [""]]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    _check_shares(matrix)
    trained, tested = np.nonzero(~np.isnan(matrix))
    return pd.DataFrame(
        {
            "trained_tasks": trained + 1,
            "eval_task": tested,
            "name": np.array(names, dtype=object)[tested],
            "accuracy": matrix[trained, tested],
        }
    )


def join_matrices(matrices: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one table, with a first column ``run``, of what :func:`parse_matrix` returned for each run."""
    kinds: dict[str, Any] = {"run": str, "trained_tasks": int, "eval_task": int, "name": str, "accuracy": float}
    parts = [frame for frame in matrices.values() if len(frame)]
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "run", np.repeat(np.array(list(matrices), dtype=object), list(map(len, matrices.values()))))
    return table


def reason_of(error: Exception) -> str:
    """Return in one line, and in plain words, why a file cannot be read."""
    if isinstance(error, FileError):
        return f"it {str(error).partition(' ')[2]}"
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    said = as_line((str(error) or type(error).__name__).strip().splitlines()[0])
    for pattern, plain in _PLAIN.items():
        if found := re.search(pattern, f"{type(error).__name__}: {said}"):
            return found.expand(plain)
    return said


def _check_shares(values: np.ndarray) -> None:
    wrong = values[(values < 0) | (values > 1)]
    if len(wrong):
        raise ValueError(f"an accuracy is {wrong[0]:g}")
