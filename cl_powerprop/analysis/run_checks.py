"""Whether the files of finished runs are whole: one that is cut off at the end of a line looks like a shorter one."""

from collections.abc import Callable, Mapping

import pandas as pd

Tables = Mapping[str, pd.DataFrame]
_MISSING = "rows are missing"
_OTHER = "its numbers do not fit those of capacity.csv"


def find_incomplete(tables: Tables, read: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, str]]:
    """Return by table, and by run, what is wrong with a file: its rows do not cover all tasks and layers.

    Args:
        tables: those of :class:`~cl_powerprop.analysis.runs.Runs` by their name, with any runs.
        read: for each table of a file, the complete runs whose file was read, and their number of tasks.
    """
    found: dict[str, dict[str, str]] = {}
    sound = dict(tables)
    for table, check in _CHECKS.items():  # capacity comes first; what is wrong with it is no measure for the others
        runs = read[table]
        frame = tables[table]
        sound[table] = frame[frame["run"].isin(list(runs))]
        found[table] = check(sound, runs)
        sound[table] = sound[table][~sound[table]["run"].isin(list(found[table]))]
    return found


def _curves(tables: Tables, runs: Mapping[str, int]) -> dict[str, str]:
    """Every accuracy of the matrix is a test accuracy in the curves."""
    curves, matrix = tables["curves"], tables["accuracy"]
    key = ["run", "trained_tasks", "eval_task"]
    tested = curves.loc[(curves["split"] == "test") & (curves["metric"] == "accuracy"), key].drop_duplicates()
    needed = matrix.loc[matrix["run"].isin(list(runs)), key]
    both = needed.merge(tested, how="left", on=key, indicator=True)
    return dict.fromkeys(both.loc[both["_merge"] == "left_only", "run"].unique(), _MISSING)


def _capacity(tables: Tables, runs: Mapping[str, int]) -> dict[str, str]:
    """Every masked layer has a row for each task."""
    absent = set(runs) - set(tables["capacity"]["run"])
    masked = _masked(tables)
    first = masked.groupby("run")["task"].transform("min")  # a learner may have known tasks before its run
    rows = masked.groupby(["run", "layer"])["task"].transform("size")
    short = masked.loc[rows != masked["run"].map(runs) - first, "run"].unique()
    return dict.fromkeys([*absent, *short], _MISSING)


def _reuse(tables: Tables, runs: Mapping[str, int]) -> dict[str, str]:
    """What a task reuses of a layer is the sum over the tasks that it takes weights from."""
    key = ["run", "task", "layer"]
    masked = _masked(tables)
    expected = masked[masked["run"].isin(list(runs))].set_index(key)["reused"]
    reuse = tables["reuse"]
    reuse = reuse[reuse["run"].isin(masked["run"])]
    return _unequal(expected, reuse.groupby(key)["weights"].sum())


def _overlap(tables: Tables, runs: Mapping[str, int]) -> dict[str, str]:
    """Every task has a row, and no mask has more weights than there are."""
    overlap = tables["overlap"]
    last = overlap.groupby("run")["task"].max()
    short = {run: _MISSING for run, tasks in runs.items() if last.get(run) != tasks - 1}
    there = _masked(tables).drop_duplicates(["run", "layer"]).groupby("run")["weights"].sum()
    beyond = overlap.loc[overlap["weights"] > overlap["run"].map(there), "run"].unique()
    return dict.fromkeys(beyond, _OTHER) | short


def _weights(tables: Tables, runs: Mapping[str, int]) -> dict[str, str]:
    """The histogram of a layer counts all its weights. Of a run without masks, nothing else says how many there are."""
    masked = _masked(tables)
    masked = masked[masked["run"].isin(list(runs))].drop_duplicates(["run", "layer"])
    weights = tables["weights"]
    weights = weights[weights["run"].isin(masked["run"])]
    return _unequal(masked.set_index(["run", "layer"])["weights"], weights.groupby(["run", "layer"])["weights"].sum())


def _sparsity(tables: Tables, runs: Mapping[str, int]) -> dict[str, str]:
    """Every task has rows, and whenever layers were counted, all were."""
    sparsity = tables["sparsity"]
    last = sparsity.groupby("run")["task"].max()
    counted = sparsity.groupby(["run", "task", "step"])["layer"].size().groupby("run").nunique()
    short = (run for run, tasks in runs.items() if last.get(run) != tasks - 1 or counted[run] > 1)
    return dict.fromkeys(short, _MISSING)


def _masked(tables: Tables) -> pd.DataFrame:
    capacity = tables["capacity"]
    return capacity[capacity["kind"] == "masked"]


def _unequal(expected: pd.Series, counted: pd.Series) -> dict[str, str]:
    """Return the runs in which two counts differ; the first level of both indices is the run, and no row counts 0."""
    differ = expected.astype(float).sub(counted.astype(float), fill_value=0.0)
    return dict.fromkeys(differ.index[differ != 0].get_level_values("run").unique(), _OTHER)


_CHECKS: dict[str, Callable[[Tables, Mapping[str, int]], dict[str, str]]] = {
    "capacity": _capacity,
    "curves": _curves,
    "reuse": _reuse,
    "overlap": _overlap,
    "weights": _weights,
    "sparsity": _sparsity,
}
