"""Continual-learning metrics as pure functions of the accuracy matrix.

``R[i, j]`` is the accuracy on the test set of task j after training task i, NaN where it was not evaluated; T tasks.
Suites disagree on these definitions, so each names its source.
"""

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
