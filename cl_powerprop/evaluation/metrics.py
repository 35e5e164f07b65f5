"""Continual-learning metrics as pure functions of the accuracy matrix.

``R[i, j]`` is the accuracy on the test set of task j after training task i, NaN where it was not evaluated; T tasks.
Suites disagree on these definitions, so each names its source.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


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
    before = matrix[:-1, :-1]
    best = np.where(np.isnan(before), -np.inf, before).max(axis=0, initial=-np.inf)
    return np.where(np.isinf(best), np.nan, best) - matrix[-1, :-1]


def average_forgetting(matrix: Matrix) -> float:
    """Return the mean of :func:`forgetting`; 0 for a single task."""
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
    """Return ``mean_j a_j - R[j, j]``: what learning in a sequence costs a task when it is learned.

    After Chaudhry et al., RWalk, 2018, section 3.2, whose reference is a network trained on all tasks so far; here it
    is one network for each task, trained alike. Below 0 if earlier tasks help.

    Args:
        matrix: the accuracy matrix.
        independent: ``[T]``, accuracy ``a_j`` of a network that learned task j alone.
    """
    return float((independent - matrix.diagonal()).mean())


def joint_gap(matrix: Matrix, joint: NDArray[np.float64]) -> float:
    """Return ``mean_j m_j - R[T, j]``: how far the end of the sequence is below training on all tasks at once.

    Args:
        matrix: the accuracy matrix.
        joint: ``[T]``, accuracy ``m_j`` of one network trained on the mixed samples of all tasks.
    """
    return float((joint - matrix[-1]).mean())


def min_accuracy(evaluations: Matrix, learned: Sequence[int]) -> float:
    """Return the mean over earlier tasks of the lowest accuracy since each was learned (De Lange et al. 2023, sec. 3).

    Args:
        evaluations: ``[E, T]``, accuracy on each task in every evaluation, within tasks too, in the order they were
            made; NaN where a task was not tested.
        learned: ``[T]``, which evaluation was the first after each task's training.

    Returns:
        NaN for a single task, or if an earlier task was never tested again.
    """
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

    A lower bound on what a user of the network met at any time: accuracy on the last task, and the lowest ever since on
    each earlier one. Arguments as for :func:`min_accuracy`.
    """
    tasks = evaluations.shape[1]
    last = float(evaluations[learned[-1], -1])
    return last if tasks == 1 else last / tasks + (1.0 - 1.0 / tasks) * min_accuracy(evaluations, learned)


def average_incremental_accuracy(matrix: Matrix) -> float:
    """Return ``mean_i mean_{j<=i} R[i, j]``: accuracy on the tasks learned so far, over the sequence (iCaRL, 2017).

    NaN if some task was not tested after some later one.
    """
    rows = [matrix[index, : index + 1].mean() for index in range(len(matrix))]
    return float(np.mean(rows))
