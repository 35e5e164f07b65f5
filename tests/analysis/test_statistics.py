"""Intervals and tests against those of scipy, and against values computed by hand."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_powerprop.analysis.statistics import bootstrap_interval, estimate, holm, sign_flip_p, t_quantile

values = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=2, max_size=7)


@given(values)
@settings(max_examples=30, deadline=None)
def test_mean_and_t_interval(sample: list[float]) -> None:
    result = estimate(sample)
    assert result.n == len(sample)
    assert result.mean == pytest.approx(np.mean(sample))
    assert result.std == pytest.approx(np.std(sample, ddof=1))
    error = scipy.stats.sem(sample)
    if error > 0:
        low, high = scipy.stats.t.interval(0.95, len(sample) - 1, np.mean(sample), error)
        assert (result.t_low, result.t_high) == pytest.approx((low, high))
    assert result.bootstrap_low - 1e-12 <= result.mean <= result.bootstrap_high + 1e-12
    assert min(sample) - 1e-12 <= result.bootstrap_low


def test_bootstrap_is_scipys() -> None:
    sample = np.random.default_rng(3).normal(size=20)
    expected = scipy.stats.bootstrap((sample,), np.mean, method="percentile", n_resamples=50_000, rng=1)
    low, high = bootstrap_interval(sample)
    assert low == pytest.approx(expected.confidence_interval.low, abs=0.02)
    assert high == pytest.approx(expected.confidence_interval.high, abs=0.02)
    assert bootstrap_interval(sample) == (low, high), "the same draws every time"


def test_too_few_values_have_no_interval() -> None:
    assert estimate([]).n == 0
    assert np.isnan(estimate([]).mean)
    assert estimate([0.5, float("nan")]).n == 1
    assert np.isnan(estimate([0.5]).t_low)
    assert t_quantile(4) == pytest.approx(2.776, abs=1e-3)


@given(values)
@settings(max_examples=30, deadline=None)
def test_the_sign_flip_test_counts_all_flips(sample: list[float]) -> None:
    sums = [abs(np.dot(signs, sample)) for signs in itertools.product([1, -1], repeat=len(sample))]
    expected = np.mean([total >= abs(sum(sample)) - 1e-9 for total in sums])
    assert sign_flip_p(np.array(sample)) == pytest.approx(expected)


def test_the_sign_flip_test_is_scipys() -> None:
    sample = np.array([0.3, 0.1, -0.05, 0.2, 0.25, 0.15])
    expected = scipy.stats.permutation_test((sample,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(sample) == pytest.approx(expected.pvalue)
    assert sign_flip_p(np.full(5, 0.1)) == 2 / 2**5
    many = np.random.default_rng(0).normal(0.3, 1.0, size=40)
    assert sign_flip_p(many) == pytest.approx(scipy.stats.ttest_1samp(many, 0).pvalue, abs=0.01)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    corrected = holm([0.02, float("nan"), 0.01])
    assert corrected[0] == pytest.approx(0.02)
    assert corrected[2] == pytest.approx(0.02)
    assert np.isnan(corrected[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_p_and_bonferroni(p: list[float]) -> None:
    corrected = holm(p)
    for single, result in zip(p, corrected, strict=True):
        assert single <= result <= min(1.0, len(p) * single) + 1e-12
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)
