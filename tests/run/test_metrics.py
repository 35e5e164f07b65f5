"""Metrics against matrices worked by hand, and against the formulas of design 2.6 written as loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cl_powerprop.evaluation import metrics

NAN = math.nan
LEARNED = np.array([[0.9, NAN, NAN], [0.7, 0.8, NAN], [0.6, 0.85, 0.5]])
FULL = np.array([[0.9, 0.3, 0.1], [0.7, 0.8, 0.2], [0.6, 0.85, 0.5]])

fractions = st.floats(0, 1, allow_nan=False)
squares = st.integers(1, 6).flatmap(lambda tasks: arrays(np.float64, (tasks, tasks), elements=fractions))


def lower(matrix: np.ndarray) -> np.ndarray:
    """The matrix of a masked strategy: NaN on tasks that are not learned yet."""
    return np.where(np.tri(len(matrix), dtype=bool), matrix, NAN)


@pytest.mark.parametrize("matrix", [LEARNED, FULL])
def test_a_matrix_worked_by_hand(matrix: np.ndarray) -> None:
    assert metrics.average_accuracy(matrix) == pytest.approx((0.6 + 0.85 + 0.5) / 3)
    assert metrics.learning_accuracy(matrix) == pytest.approx((0.9 + 0.8 + 0.5) / 3)
    assert metrics.forgetting(matrix) == pytest.approx([0.3, -0.05])
    assert metrics.average_forgetting(matrix) == pytest.approx(0.125)
    assert metrics.backward_transfer(matrix) == pytest.approx((-0.3 + 0.05) / 2)


def test_forgetting_is_from_the_best_not_from_the_first() -> None:
    matrix = np.array([[0.5, NAN, NAN], [0.9, 0.6, NAN], [0.4, 0.6, 0.7]])
    assert metrics.forgetting(matrix) == pytest.approx([0.5, 0.0])


def test_forward_transfer_by_hand() -> None:
    untrained = np.array([0.1, 0.12, 0.08])
    assert metrics.forward_transfer(FULL, untrained) == pytest.approx(((0.3 - 0.12) + (0.2 - 0.08)) / 2)


def test_forward_transfer_is_empty_where_unseen_tasks_were_not_evaluated() -> None:
    assert math.isnan(metrics.forward_transfer(LEARNED, np.zeros(3)))
    assert math.isnan(metrics.forward_transfer(FULL, np.full(3, NAN)))


def test_what_was_not_evaluated_is_left_out_or_nan() -> None:
    diagonal_and_last = np.array([[0.9, NAN, NAN], [NAN, 0.8, NAN], [0.6, 0.85, 0.5]])
    assert metrics.forgetting(diagonal_and_last) == pytest.approx([0.3, -0.05])
    assert metrics.backward_transfer(diagonal_and_last) == pytest.approx(-0.125)
    last = np.array([[NAN, NAN, NAN], [NAN, NAN, NAN], [0.6, 0.85, 0.5]])
    assert metrics.average_accuracy(last) == pytest.approx(0.65)
    assert np.isnan(metrics.forgetting(last)).all()
    for metric in (metrics.average_forgetting, metrics.backward_transfer, metrics.learning_accuracy):
        assert math.isnan(metric(last))
    mixed = np.array([[NAN, NAN, NAN], [0.7, 0.8, NAN], [0.6, 0.85, 0.5]])
    assert metrics.forgetting(mixed) == pytest.approx([0.1, -0.05]), "the best there was"


def test_a_single_task() -> None:
    matrix = np.array([[0.75]])
    assert metrics.average_accuracy(matrix) == metrics.learning_accuracy(matrix) == 0.75
    assert metrics.average_forgetting(matrix) == 0.0
    assert metrics.backward_transfer(matrix) == 0.0
    assert metrics.forgetting(matrix).shape == (0,)
    assert math.isnan(metrics.forward_transfer(matrix, np.array([0.1])))


@given(squares)
def test_formulas_as_loops_on_what_was_learned(matrix: np.ndarray) -> None:
    matrix, tasks = lower(matrix), len(matrix)
    last = tasks - 1
    assert metrics.average_accuracy(matrix) == pytest.approx(sum(matrix[last, j] for j in range(tasks)) / tasks)
    assert metrics.learning_accuracy(matrix) == pytest.approx(sum(matrix[j, j] for j in range(tasks)) / tasks)
    if tasks == 1:
        return
    forgotten = [max(matrix[i, j] for i in range(j, last)) - matrix[last, j] for j in range(last)]
    assert metrics.average_forgetting(matrix) == pytest.approx(sum(forgotten) / last)
    transfer = sum(matrix[last, j] - matrix[j, j] for j in range(last)) / last
    assert metrics.backward_transfer(matrix) == pytest.approx(transfer)
    assert metrics.average_forgetting(matrix) >= -metrics.backward_transfer(matrix) - 1e-12


@given(squares.filter(lambda matrix: len(matrix) > 1))
def test_forgetting_takes_the_best_of_all_earlier_rows_where_unseen_tasks_were_evaluated(matrix: np.ndarray) -> None:
    """Design 2.6: ``max_{i<T} R[i, j] - R[T, j]``."""
    last = len(matrix) - 1
    expected = [max(matrix[i, j] for i in range(last)) - matrix[last, j] for j in range(last)]
    assert metrics.forgetting(matrix) == pytest.approx(expected)


@given(arrays(np.float64, st.integers(1, 6), elements=fractions))
def test_columns_that_stay_are_not_forgotten_exactly(row: np.ndarray) -> None:
    matrix = lower(np.tile(row, (len(row), 1)))
    assert metrics.average_forgetting(matrix) == 0.0
    assert metrics.backward_transfer(matrix) == 0.0
    assert metrics.average_accuracy(matrix) == metrics.learning_accuracy(matrix)


@given(squares, st.floats(0.001, 0.5))
def test_losing_a_fixed_share_of_every_task_is_that_much_forgetting(matrix: np.ndarray, loss: float) -> None:
    tasks = len(matrix)
    kept = lower(np.tile(matrix[0], (tasks, 1)))
    kept[-1, :-1] -= loss
    assert metrics.average_forgetting(kept) == pytest.approx(loss if tasks > 1 else 0.0)


def test_against_reference_runs_by_hand() -> None:
    assert metrics.intransigence(LEARNED, np.array([0.95, 0.9, 0.4])) == pytest.approx((0.05 + 0.1 - 0.1) / 3)
    assert metrics.joint_gap(LEARNED, np.array([0.9, 0.9, 0.9])) == pytest.approx(0.9 - (0.6 + 0.85 + 0.5) / 3)
    unknown = np.full(3, NAN)
    assert math.isnan(metrics.intransigence(LEARNED, unknown))
    assert math.isnan(metrics.joint_gap(LEARNED, unknown))


def test_average_incremental_accuracy_by_hand() -> None:
    expected = (0.9 + (0.7 + 0.8) / 2 + (0.6 + 0.85 + 0.5) / 3) / 3
    assert metrics.average_incremental_accuracy(LEARNED) == pytest.approx(expected)
    assert metrics.average_incremental_accuracy(FULL) == pytest.approx(expected), "tasks to come do not count"
    gap = np.array([[0.9, NAN], [NAN, 0.8]])
    assert math.isnan(metrics.average_incremental_accuracy(gap))


# Task 0 is learned in the second evaluation, task 1 in the fourth, task 2 in the sixth.
WITHIN = np.array(
    [[0.5, NAN, NAN], [0.9, NAN, NAN], [0.4, 0.6, NAN], [0.7, 0.8, NAN], [0.55, 0.3, 0.2], [0.6, 0.85, 0.5]]
)


def test_the_worst_of_all_evaluations_by_hand() -> None:
    learned = [1, 3, 5]
    assert metrics.min_accuracy(WITHIN, learned) == pytest.approx((0.4 + 0.3) / 2), (
        "before it was learned does not count"
    )
    assert metrics.worst_case_accuracy(WITHIN, learned) == pytest.approx(0.5 / 3 + 2 / 3 * 0.35)
    assert math.isnan(metrics.min_accuracy(WITHIN[:2, :1], [1]))
    assert metrics.worst_case_accuracy(WITHIN[:2, :1], [1]) == 0.9
    assert math.isnan(metrics.min_accuracy(WITHIN[[1, 3]][:, :2] * [[1, 1], [NAN, 1]], [0, 1])), "never tested again"


@given(squares)
def test_properties_of_the_worst_case(matrix: np.ndarray) -> None:
    """Evaluated between tasks only, the worst case is no better than the end, and no evaluation is below it."""
    tasks = len(matrix)
    matrix = lower(matrix)
    worst = metrics.worst_case_accuracy(matrix, range(tasks))
    assert worst <= metrics.average_accuracy(matrix) + 1e-12
    if tasks > 1:
        later = [matrix[task + 1 :, task] for task in range(tasks - 1)]
        assert metrics.min_accuracy(matrix, range(tasks)) == pytest.approx(np.mean([column.min() for column in later]))
    constant = lower(np.tile(matrix.diagonal(), (tasks, 1)))
    assert metrics.worst_case_accuracy(constant, range(tasks)) == pytest.approx(metrics.average_accuracy(constant))


@given(squares)
def test_intransigence_and_joint_gap_are_differences_of_means(matrix: np.ndarray) -> None:
    reference = np.linspace(0.2, 0.9, len(matrix))
    total = metrics.intransigence(matrix, reference) + metrics.learning_accuracy(matrix)
    assert total == pytest.approx(reference.mean())
    assert metrics.joint_gap(matrix, matrix[-1]) == pytest.approx(0.0, abs=1e-12)
