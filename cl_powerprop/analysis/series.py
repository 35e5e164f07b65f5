"""The numbers behind the figures of a comparison, as tidy tables; image files and report draw the same ones."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.statistics import Estimate, estimate, t_quantile

AVERAGE = "average"  # instead of a task: the mean over the tasks learned so far
_WITHOUT_LIMIT = ("total_size", "wsn_capacity")  # shares of one network, and above 1 with masks, heads and buffers


def forgetting_curves(comparison: Comparison) -> pd.DataFrame:
    """Return test accuracy over the sequence: group, task, progress, n, mean, low, high.

    ``task`` is a task's number or :data:`AVERAGE`. ``progress`` is the number of tasks trained, with a fraction for an
    evaluation in the middle of a task. A task's curve begins with its own training. low and high are the 95 %
    t-interval over seeds, as far as it lies within 0 and 1.
    """
    points = _points(comparison)
    averaged = _average(points)
    points["task"] = points["eval_task"].astype(str)
    both = pd.concat([averaged, points[["run", "task", "progress", "value"]]], ignore_index=True)
    return over_runs(comparison, both, ["task", "progress"])


def _points(comparison: Comparison) -> pd.DataFrame:
    """Return run, eval_task, progress, trained_tasks, value: accuracy on tasks during and after their training."""
    curves = comparison.runs.curves
    tested = curves[(curves["split"] == "test") & (curves["metric"] == "accuracy")]
    # The end of a task's training is where its validation accuracy is measured, even if nothing is tested there.
    valid = curves[(curves["split"] == "valid") & (curves["metric"] == "accuracy")]
    learned = pd.concat([valid, tested[~tested["run"].isin(valid["run"].unique())]])
    ends = learned[learned["trained_tasks"] > 0].groupby(["run", "trained_tasks"])["step"].min().reset_index()
    ends_of = {str(run): ([0, *rows["step"]], [0, *rows["trained_tasks"]]) for run, rows in ends.groupby("run")}
    tested = tested.astype({"trained_tasks": int, "eval_task": int, "step": int, "value": float})
    progress = tested["trained_tasks"].to_numpy(float)
    for run, rows in tested.groupby("run", sort=False).indices.items():
        if str(run) in ends_of:
            progress[rows] = np.interp(tested["step"].to_numpy()[rows], *ends_of[str(run)])
    measured = tested[["run", "eval_task", "trained_tasks", "value"]].assign(progress=np.round(progress, 4))
    matrix = comparison.runs.accuracy
    matrix = matrix[~matrix["run"].isin(tested["run"].unique())].rename(columns={"accuracy": "value"})
    matrix = matrix.assign(progress=matrix["trained_tasks"].astype(float))
    points = pd.concat([measured, matrix[measured.columns]], ignore_index=True)
    return points[points["progress"] > points["eval_task"]]


def _average(points: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over the tasks whose training is finished, at the points where all of them were tested."""
    finished = points[points["eval_task"] < points["trained_tasks"]]
    groups = finished.groupby(["run", "progress"])
    table = groups.agg(value=("value", "mean"), tested=("eval_task", "nunique"), learned=("trained_tasks", "max"))
    whole = table[table["tested"] == table["learned"]].reset_index()
    return whole.assign(task=AVERAGE)[["run", "task", "progress", "value"]]


def over_runs(comparison: Comparison, rows: pd.DataFrame, keys: list[str], most: float = 1.0) -> pd.DataFrame:
    """Return n, mean, low and high of ``value`` over the seeds of each group.

    low and high are the part of the 95 % t-interval within 0 and ``most``; NaN for one seed.
    """
    seeds = comparison.runs.runs["seed"]
    rows = rows.assign(group=rows["run"].map(comparison.group_of), seed=rows["run"].map(seeds))
    single = rows.groupby(["group", "seed", *keys], sort=False)["value"].mean().reset_index()
    table = single.groupby(["group", *keys], sort=False)["value"].agg(["count", "mean", "std"]).reset_index()
    table = table.rename(columns={"count": "n"})
    quantiles = {n: t_quantile(int(n) - 1) for n in table["n"].unique() if n > 1}
    half = table["n"].map(quantiles) * table["std"] / table["n"] ** 0.5
    table["low"], table["high"] = (table["mean"] - half).clip(lower=0.0), (table["mean"] + half).clip(upper=most)
    table = (
        table.sort_values(keys, kind="stable") if keys[0] != "task" else table.sort_values("progress", kind="stable")
    )
    table = table.iloc[np.argsort(table["group"].map(comparison.position), kind="stable")]
    return table.drop(columns="std").reset_index(drop=True)


def task_names(accuracy: pd.DataFrame, tasks: int) -> list[str]:
    """Return the name of each task of an accuracy table; "task 3" where its runs differ in the name.

    With a random order of the tasks, the first task of one seed is not that of another.
    """
    names = accuracy.groupby("eval_task")["name"].unique()
    return [str(names[task][0]) if task in names and len(names[task]) == 1 else f"task {task}" for task in range(tasks)]


def task_labels(names: list[str]) -> list[str]:
    """Return "task 3: name" for each task; "task 3" if its name says no more."""
    return [
        f"task {task}" if name in (f"task {task}", f"task_{task}", str(task)) else f"task {task}: {name}"
        for task, name in enumerate(names)
    ]


def accuracy_matrices(comparison: Comparison) -> dict[str, pd.DataFrame]:
    """Return each group's mean accuracy matrix: a row for each number of trained tasks, a column for each task."""
    accuracy = comparison.runs.accuracy
    accuracy = accuracy.assign(group=accuracy["run"].map(comparison.group_of))
    matrices = {}
    for label in comparison.groups:
        rows = accuracy[accuracy["group"] == label]
        tasks = int(comparison.runs.runs.loc[comparison.groups[label], "n_tasks"].max())
        matrix = rows.pivot_table(index="trained_tasks", columns="eval_task", values="accuracy")
        matrix = matrix.reindex(index=range(1, tasks + 1), columns=range(tasks)).astype(float)
        matrix.columns = pd.Index(task_names(rows, tasks))
        matrices[label] = matrix
    return matrices


def capacity_growth(comparison: Comparison) -> pd.DataFrame:
    """Return the share of the maskable weights in use, of groups with masks: group, tasks, n, mean, low, high."""
    masked = comparison.runs.capacity
    masked = masked[masked["kind"] == "masked"]
    if masked.empty:
        return pd.DataFrame(columns=["group", "tasks", "n", "mean", "low", "high"])
    total = masked.groupby(["run", "task"], sort=False)[["weights", "free"]].sum().reset_index()
    rows = pd.DataFrame(
        {"run": total["run"], "tasks": total["task"] + 1, "value": 1.0 - total["free"] / total["weights"]}
    )
    return over_runs(comparison, rows, ["tasks"])


def mask_composition(comparison: Comparison) -> pd.DataFrame:
    """Return the composition of each task's mask: group, task, source, share of the maskable weights (mean over runs).

    ``source`` is the task that froze the weights: an earlier one, or the task itself.
    """
    runs = comparison.runs
    masked = runs.capacity[runs.capacity["kind"] == "masked"]
    if masked.empty:
        return pd.DataFrame(columns=["group", "task", "source", "share"])
    reused = masked.groupby("run")["reused"].sum()
    known = {*reused[reused == 0].index, *runs.reuse["run"]}  # the reuse.csv of the others is damaged
    masked = masked[masked["run"].isin(known)]
    totals = masked.groupby(["run", "task"])[["weights", "newly_frozen"]].sum().reset_index()
    own = totals.assign(source=totals["task"], held=totals["newly_frozen"])[["run", "task", "source", "held"]]
    names = masked.drop_duplicates(["run", "layer"])[["run", "layer"]]
    reuse = runs.reuse.merge(names, on=["run", "layer"])
    taken = reuse.groupby(["run", "task", "from_task"])["weights"].sum().rename("held").reset_index()
    rows = pd.concat([own, taken.rename(columns={"from_task": "source"})], ignore_index=True)
    rows = rows.merge(totals[["run", "task", "weights"]], on=["run", "task"])
    rows["share"] = rows["held"].astype(float) / rows["weights"].astype(float)  # a single task's reuse.csv is empty
    rows["group"] = rows["run"].map(comparison.group_of)
    return rows.groupby(["group", "task", "source"])["share"].mean().reset_index()


def mask_overlaps(comparison: Comparison) -> dict[str, np.ndarray]:
    """Return the Jaccard index of each pair of masks, ``[T, T]``, for each group with masks (mean over runs)."""
    found: dict[str, np.ndarray] = {}
    overlap = comparison.runs.overlap
    by_run = dict(list(overlap.groupby("run"))) if len(overlap) else {}
    for label, names in comparison.groups.items():
        matrices = []
        for name in names:
            if name not in by_run:
                continue
            rows = by_run[name]
            tasks = int(rows["task"].max()) + 1
            shared = np.zeros((tasks, tasks))
            shared[rows["task"], rows["other"]] = rows["weights"]
            shared = np.maximum(shared, shared.T)
            sizes = shared.diagonal()
            either = sizes[:, None] + sizes[None, :] - shared
            matrices.append(np.divide(shared, either, out=np.zeros_like(shared), where=either > 0))
        shapes = {matrix.shape for matrix in matrices}
        if len(shapes) == 1:
            found[label] = np.mean(matrices, axis=0)
    return found


def weight_sizes(comparison: Comparison) -> pd.DataFrame:
    """Return the histogram of the magnitudes of the used weights: group, low, high, share (mean over runs)."""
    weights = comparison.runs.weights
    used = weights[weights["state"] == "used"]
    if used.empty:
        return pd.DataFrame(columns=["group", "low", "high", "share"])
    counts = used.groupby(["run", "low", "high"])["weights"].sum().reset_index()
    counts["share"] = counts["weights"] / counts.groupby("run")["weights"].transform("sum")
    counts["group"] = counts["run"].map(comparison.group_of)
    sizes = counts.groupby("group")["run"].nunique()
    table = counts.groupby(["group", "low", "high"])["share"].sum().reset_index()
    table["share"] = table["share"] / table["group"].map(sizes)
    return table


def histogram_outline(rows: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Return the corners (x, y) of a group's histogram of magnitudes, to be drawn as steps that hold each y.

    ``rows`` has low, high and share; bins that hold no weight are absent, and are drawn as zero.
    """
    rows = rows.sort_values("low")
    x, y = [float(rows["low"].iloc[0])] * 2, [0.0, 0.0]
    for low, high, share in zip(rows["low"], rows["high"], rows["share"], strict=True):
        if low > x[-1] * 1.01:  # edges are rounded in the file
            x.append(low)
            y.append(0.0)
        y[-1] = share
        x.append(high)
        y.append(0.0)
    return x, y


def error_bars(of: Estimate, metric: str = "average_accuracy") -> tuple[float, float]:
    """Return how far the t-interval of a share reaches below and above the mean, within 0 and 1; NaN for one seed.

    Several networks together have more weights than one, and a capacity above 1 with no upper limit. Nor has the size
    of all that is stored one.
    """
    most = 1.0 if of.mean <= 1.0 and metric not in _WITHOUT_LIMIT else np.inf
    below, above = of.mean - np.maximum(of.t_low, 0.0), np.minimum(of.t_high, most) - of.mean
    return float(np.maximum(below, 0.0)), float(np.maximum(above, 0.0))  # rounding can make a share less than 0


def source_ranges(tasks: int, most: int = 25) -> list[range]:
    """Return the tasks in up to ``most`` ranges of equal length, in which masks of many tasks are drawn."""
    length = -(-tasks // most)
    return [range(start, min(start + length, tasks)) for start in range(0, tasks, length)]


def tick_step(count: int, most: int = 10) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, ... that gives up to ``most`` ticks for ``count`` tasks."""
    power = 1
    while count > 5 * power * most:
        power *= 10
    return next(step * power for step in (1, 2, 5) if count <= step * power * most)


@dataclass(frozen=True)
class Size:
    """A measure of what a method keeps, against which accuracy is shown.

    Attributes:
        metric: its name.
        label: of it in titles.
        axis: title of its axis.
        note: what to know of it.
    """

    metric: str
    label: str
    axis: str
    note: str


SIZES = (
    Size(
        "capacity_used",
        "capacity",
        "capacity used",
        "A network without masks uses every weight for every task: 100 %; independent networks use 100 % each.",
    ),
    Size(
        "total_size",
        "total size",
        "total size, in dense networks",
        "All that is kept counts: weights in use, compressed masks, heads, biases and norms, samples, importances.",
    ),
)


def pareto_points(comparison: Comparison, size: Size) -> Iterator[tuple[str, Estimate, Estimate]]:
    """Yield (group, estimate of the size, estimate of average accuracy)."""
    if not {size.metric, "average_accuracy"} <= set(comparison.runs.runs):
        return
    for label in comparison.groups:
        kept = estimate(comparison.values(label, size.metric).to_numpy())
        accuracy = estimate(comparison.values(label, "average_accuracy").to_numpy())
        if kept.n and accuracy.n:
            yield label, kept, accuracy
