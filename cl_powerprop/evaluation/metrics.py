"""Continual-learning metrics: pure functions of the accuracy matrix, and the list of those that a run reports.

``R[i, j]`` is the accuracy on the test set of task j after training task i, NaN where it was not evaluated; T is the
number of tasks. Definitions differ between papers, so each function names its source. Runs, tables, comparisons and
dashboards all read the list at the end of this file; :func:`register_metric` adds to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.record import RESERVED
from cl_powerprop.registry import add_metric

if TYPE_CHECKING:  # numpy is imported when a metric is computed: `cl-powerprop list` names them without it
    import numpy as np
    from numpy.typing import NDArray

Matrix: TypeAlias = "NDArray[np.float64]"

DIRECTIONS = ("max", "min", None)
LEVELS = ("headline", "table", "detail")


@dataclass(frozen=True)
class Measurements:
    """The measurements of a finished run, from which every metric is computed.

    Attributes:
        matrix: ``[T, T]``, the accuracy matrix.
        evaluations: ``[E, T]``, accuracy on each task in all E evaluations in order, including those within tasks; NaN
            where a task was not tested. None if there were none within tasks.
        learned: ``[T]``, index of the first evaluation after each task's training.
        references: accuracy ``[T]`` of the reference runs "joint", "independent" and "untrained", if known.
        validation: accuracy on each task's validation data at the end, for tasks that have some.
        identified: share of test samples whose task was inferred correctly, by task; empty without task inference.
        capacity_used: share of the maskable weights that at least one task uses.
        dense_weights: number of parameters of single tasks that no mask covers: heads, biases, norms.
        mask_bits: size of the masks with one bit for each weight and task.
        mask_bits_stored, total_size, wsn_capacity: see :class:`~cl_powerprop.evaluation.cost.Cost`.
        sparsity, training_flops, inference_flops: see :class:`~cl_powerprop.results.efficiency.Efficiency`.
    """

    matrix: Matrix
    evaluations: Matrix | None = None
    learned: Sequence[int] = ()
    references: Mapping[str, Matrix] = field(default_factory=dict)
    validation: Mapping[int, float] = field(default_factory=dict)
    identified: Mapping[int, float] = field(default_factory=dict)
    capacity_used: float = 1.0
    dense_weights: int = 0
    mask_bits: int = 0
    mask_bits_stored: int = 0
    total_size: float | None = None
    wsn_capacity: float | None = None
    sparsity: float | None = None
    training_flops: float | None = None
    inference_flops: float | None = None

    def reference(self, name: str) -> Matrix:
        """Return the accuracy ``[T]`` of a reference run; NaN if there was none."""
        import numpy as np

        return self.references.get(name, np.full(len(self.matrix), np.nan))


@dataclass(frozen=True)
class Metric:
    """One number by which runs are compared.

    Attributes:
        name: its key in ``metrics`` of `run.json`, and its column in tables.
        label: its name in tables and charts.
        unit: "" for a plain number, "%" for a share that is shown in per cent, or the unit it is counted in.
        direction: whether higher is better ("max"), lower ("min"), or neither (None).
        function: computes it; NaN and None become an empty field. None for a value that `run.json` has outside
            ``metrics``.
        level: "headline" metrics are in every table and in pairwise tests, "table" metrics in longer tables, and
            "detail" metrics in the report only.
        aliases: other names by which it can be asked for, besides its label.
        needs_test: whether it is measured on test data; `cl-powerprop tune` can have others as objectives only.
    """

    name: str
    label: str
    unit: str
    direction: Literal["max", "min"] | None
    function: Callable[[Measurements], float | None] | None
    level: Literal["headline", "table", "detail"] = "table"
    aliases: tuple[str, ...] = ()
    needs_test: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """All names by which it can be asked for; its own comes first."""
        return (self.name, self.label, *self.aliases)

    @property
    def is_share(self) -> bool:
        """Whether it is a share of something, as accuracies and capacities are, which is never below 0."""
        return self.unit == "%" or self.name.endswith("_accuracy")

    @property
    def is_whole(self) -> bool:
        """Whether it is shown without decimals."""
        return self.unit in ("bits", "weights", "s", "MiB")


def register_metric(metric: Metric) -> Metric:
    """Compute a metric at the end of every run, and show it in tables, comparisons and dashboards.

    Raises:
        ConfigurationError: for a name that is taken, by another metric or by what `run.json` says anyway.
    """
    if not isinstance(metric, Metric):
        raise ConfigurationError(f"register_metric takes a Metric(name, label, ...), not {metric!r}")
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", metric.name):
        raise ConfigurationError(f"metric {metric.name!r}: a name has letters, digits, _ . and - only")
    if metric.direction not in DIRECTIONS or metric.level not in LEVELS:
        raise ConfigurationError(
            f"metric {metric.name!r}: direction is one of {', '.join(map(str, DIRECTIONS))}, and level of "
            f"{', '.join(LEVELS)}; not {metric.direction} and {metric.level}"
        )
    if metric.function is not None and metric.name in RESERVED:
        raise ConfigurationError(f"metric {metric.name!r}: run.json has something else of that name; choose another")
    add_metric(metric.name, metric, "" if metric.function is None else metric.function.__module__)
    return metric


def find_metric(name: str, known: Mapping[str, Metric]) -> Metric | None:
    """Return the metric of that name, label or alias, None if there is none; case, spaces, _ and - do not matter.

    Args:
        name: as a user wrote it.
        known: the metrics there are, by name.
    """
    if name in known:
        return known[name]
    wanted = _plain(name)
    return next((metric for metric in known.values() if wanted in map(_plain, metric.names)), None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def average_accuracy(matrix: Matrix) -> float:
    """Return ``mean_j R[T, j]``: accuracy over all tasks at the end (Lopez-Paz & Ranzato, GEM, 2017, eq. 2)."""
    return float(matrix[-1].mean())


def learning_accuracy(matrix: Matrix) -> float:
    """Return ``mean_j R[j, j]``: accuracy on each task just after it was learned (Riemer et al., MER, 2019)."""
    return float(matrix.diagonal().mean())


def forgetting(matrix: Matrix) -> NDArray[np.float64]:
    """Return ``max_{i<T} R[i, j] - R[T, j]`` for each task j < T, shape ``[T - 1]`` (Chaudhry et al., RWalk, 2018).

    The maximum is over the evaluations there were; NaN for a task that was not evaluated before the end.
    """
    import numpy as np

    before = matrix[:-1, :-1]
    best = np.where(np.isnan(before), -np.inf, before).max(axis=0, initial=-np.inf)
    return np.where(np.isinf(best), np.nan, best) - matrix[-1, :-1]


def average_forgetting(matrix: Matrix) -> float:
    """Return the mean of :func:`forgetting` over tasks; 0 for a single task."""
    return float(forgetting(matrix).mean()) if len(matrix) > 1 else 0.0


def backward_transfer(matrix: Matrix) -> float:
    """Return ``mean_{j<T} R[T, j] - R[j, j]`` (Lopez-Paz & Ranzato 2017, eq. 3); 0 for a single task."""
    return float((matrix[-1, :-1] - matrix.diagonal()[:-1]).mean()) if len(matrix) > 1 else 0.0


def forward_transfer(matrix: Matrix, untrained: NDArray[np.float64]) -> float:
    """Return ``mean_{j>1} R[j-1, j] - b_j`` (Lopez-Paz & Ranzato 2017, eq. 4); NaN if unseen tasks were not evaluated.

    Args:
        matrix: the accuracy matrix.
        untrained: ``[T]``, accuracy ``b_j`` of the network before any training.
    """
    if len(matrix) < 2:
        return float("nan")
    return float((matrix.diagonal(offset=1) - untrained[1:]).mean())


def intransigence(matrix: Matrix, independent: NDArray[np.float64]) -> float:
    """Return ``mean_j a_j - R[j, j]``: the accuracy that a task loses by being learned in a sequence.

    After Chaudhry et al., RWalk, 2018, section 3.2. Their reference is a network trained on all tasks so far; here it
    is a separate network for each task, trained with the same settings. Below 0 if earlier tasks help.

    Args:
        matrix: the accuracy matrix.
        independent: ``[T]``, accuracy ``a_j`` of a network that learned task j alone.
    """
    return float((independent - matrix.diagonal()).mean())


def joint_gap(matrix: Matrix, joint: NDArray[np.float64]) -> float:
    """Return ``mean_j m_j - R[T, j]``: how far the final accuracy is below that of training on all tasks at once.

    Args:
        matrix: the accuracy matrix.
        joint: ``[T]``, accuracy ``m_j`` of one network trained on the mixed samples of all tasks.
    """
    return float((joint - matrix[-1]).mean())


def min_accuracy(evaluations: Matrix, learned: Sequence[int]) -> float:
    """Return the mean over earlier tasks of the lowest accuracy since each was learned (De Lange et al. 2023, sec. 3).

    Args:
        evaluations: ``[E, T]``, accuracy on each task in all evaluations in order, including those within tasks; NaN
            where a task was not tested.
        learned: ``[T]``, index of the first evaluation after each task's training.

    Returns:
        NaN for a single task, or if an earlier task was never tested again.
    """
    import numpy as np

    tasks = evaluations.shape[1]
    if tasks < 2:
        return float("nan")
    lowest = [
        np.where(np.isnan(later), np.inf, later).min(initial=np.inf)
        for later in (evaluations[learned[task] + 1 :, task] for task in range(tasks - 1))
    ]
    return float(np.mean(lowest)) if np.isfinite(lowest).all() else float("nan")


def worst_case_accuracy(evaluations: Matrix, learned: Sequence[int]) -> float:
    """Return ``R[T, T] / T + (1 - 1 / T) * min_accuracy`` (De Lange et al. 2023, sec. 3).

    A lower bound on the average accuracy at any time: the accuracy on the last task, and for each earlier task the
    lowest one since it was learned. Arguments are those of :func:`min_accuracy`.
    """
    tasks = evaluations.shape[1]
    last = float(evaluations[learned[-1], -1])
    return last if tasks == 1 else last / tasks + (1.0 - 1.0 / tasks) * min_accuracy(evaluations, learned)


def average_incremental_accuracy(matrix: Matrix) -> float:
    """Return ``mean_i mean_{j<=i} R[i, j]``: the accuracy on all tasks so far, averaged over the sequence.

    Rebuffi et al., iCaRL, 2017. NaN unless every task was tested after each later one.
    """
    import numpy as np

    rows = [matrix[index, : index + 1].mean() for index in range(len(matrix))]
    return float(np.mean(rows))


def _min_accuracy(run: Measurements) -> float | None:
    return None if run.evaluations is None else min_accuracy(run.evaluations, run.learned)


def _worst_case_accuracy(run: Measurements) -> float | None:
    return None if run.evaluations is None else worst_case_accuracy(run.evaluations, run.learned)


def _mean(values: Mapping[int, float]) -> float | None:
    import numpy as np

    return float(np.mean(list(values.values()))) if values else None


OF_SPARSE_TRAINING = ("sparsity", "training_flops", "inference_flops")
"""Metrics that are headline metrics where some run trains sparsely; of other runs they say little."""


_OF_SEQUENCES = ("average_forgetting", "learning_accuracy", "capacity_used")


def headline_for(metrics: Mapping[str, Metric], controllers: Iterable[object], n_tasks: int) -> dict[str, Metric]:
    """Return the metrics with those of sparse training as headline metrics if some run trains sparsely.

    On a single task, they take the place of those that only say something of a sequence.

    Args:
        metrics: by name.
        controllers: of each run; None for none.
        n_tasks: the most that a run has.
    """
    if not any(isinstance(name, str) for name in controllers):
        return dict(metrics)
    levels: dict[str, Any] = dict.fromkeys(OF_SPARSE_TRAINING, "headline")
    if n_tasks == 1:
        levels |= dict.fromkeys(_OF_SEQUENCES, "detail")
    return {name: replace(metric, level=levels.get(name, metric.level)) for name, metric in metrics.items()}


# In the order of tables; time and memory come last.
for _metric in (
    Metric(
        "average_accuracy",
        "average accuracy",
        "",
        "max",
        lambda run: average_accuracy(run.matrix),
        "headline",
        ("accuracy",),
    ),
    Metric(
        "average_forgetting",
        "average forgetting",
        "",
        "min",
        lambda run: average_forgetting(run.matrix),
        "headline",
        ("forgetting",),
    ),
    Metric("learning_accuracy", "learning accuracy", "", "max", lambda run: learning_accuracy(run.matrix), "headline"),
    Metric(
        "backward_transfer",
        "backward transfer",
        "",
        "max",
        lambda run: backward_transfer(run.matrix),
        "detail",
        ("bwt",),
    ),
    Metric(
        "forward_transfer",
        "forward transfer",
        "",
        "max",
        lambda run: forward_transfer(run.matrix, run.reference("untrained")),
        aliases=("fwt",),
    ),
    Metric(
        "average_incremental_accuracy",
        "average incremental accuracy",
        "",
        "max",
        lambda run: average_incremental_accuracy(run.matrix),
        "detail",
    ),
    Metric("min_accuracy", "min-accuracy", "", "max", _min_accuracy),
    Metric("worst_case_accuracy", "worst-case accuracy", "", "max", _worst_case_accuracy),
    Metric(
        "intransigence", "intransigence", "", "min", lambda run: intransigence(run.matrix, run.reference("independent"))
    ),
    Metric("joint_gap", "gap to joint training", "", "min", lambda run: joint_gap(run.matrix, run.reference("joint"))),
    Metric("task_identification", "tasks identified", "%", "max", lambda run: _mean(run.identified), "headline"),
):
    register_metric(_metric)
for _metric in (  # without test data
    Metric("capacity_used", "capacity used", "%", "min", lambda run: run.capacity_used, "headline", ("capacity",)),
    Metric("total_size", "total size", "%", "min", lambda run: run.total_size, aliases=("size",)),
    Metric("wsn_capacity", "capacity as in WSN", "%", "min", lambda run: run.wsn_capacity, "detail", ("cap",)),
    Metric("sparsity", "sparsity", "%", None, lambda run: run.sparsity),
    Metric("training_flops", "training FLOPs", "%", "min", lambda run: run.training_flops),
    Metric("inference_flops", "inference FLOPs", "%", "min", lambda run: run.inference_flops, aliases=("flops",)),
    Metric("dense_weights", "weights beside masks", "weights", None, lambda run: run.dense_weights, "detail"),
    Metric("mask_bits", "bits of masks", "bits", "min", lambda run: run.mask_bits, "detail"),
    Metric("mask_bits_stored", "bits of masks as stored", "bits", "min", lambda run: run.mask_bits_stored, "detail"),
    Metric("validation_accuracy", "validation accuracy", "", "max", lambda run: _mean(run.validation), "detail"),
    Metric("seconds.total", "seconds", "s", "min", None, "detail", ("time",)),
    Metric("peak_memory_mb", "peak memory (MiB)", "MiB", "min", None, "detail", ("peak_memory", "memory")),
):
    register_metric(replace(_metric, needs_test=False))
