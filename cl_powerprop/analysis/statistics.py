"""Means with intervals, and paired tests, for runs repeated over a few seeds."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

RESAMPLES = 10_000
_EXACT_UP_TO = 16  # pairs, with 2**16 assignments of signs
_RANDOM_SIGNS, _AT_A_TIME = 100_000, 10_000


@dataclass(frozen=True)
class Estimate:
    """Mean over n values, their standard deviation, and 95 % intervals of the mean; NaN where n is too small."""

    n: int
    mean: float
    std: float
    t_low: float
    t_high: float
    bootstrap_low: float
    bootstrap_high: float


def estimate(values: Sequence[float] | Values, level: float = 0.95) -> Estimate:
    """Return the mean with its intervals: Student's t, and the percentile bootstrap (Efron & Tibshirani 1993, ch. 13).

    With few values the bootstrap interval is too narrow, because it resamples only those; t assumes normal values.

    Args:
        values: one for each seed; NaN is left out.
        level: of the intervals.
    """
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    n = len(kept)
    nan = float("nan")
    if n == 0:
        return Estimate(0, nan, nan, nan, nan, nan, nan)
    mean = float(kept.mean())
    if n == 1:
        return Estimate(1, mean, nan, nan, nan, nan, nan)
    std = float(kept.std(ddof=1))
    half = t_quantile(n - 1, level) * std / n**0.5
    low, high = bootstrap_interval(kept, level)
    return Estimate(n, mean, std, mean - half, mean + half, low, high)


def t_quantile(freedom: int, level: float = 0.95) -> float:
    """Return half the width of the t-interval, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + level / 2))


def bootstrap_interval(values: Values, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the percentile-bootstrap interval of the mean; equal numbers of values get the same draws."""
    draws = _draws(len(values), seed)
    tail = (1.0 - level) / 2
    low, high = np.quantile(values[draws].mean(axis=0), [tail, 1.0 - tail])
    return float(low), float(high)


@functools.lru_cache(maxsize=4)
def _draws(n: int, seed: int) -> NDArray[np.int64]:
    """Return which of n values are drawn in each resample, ``[n, RESAMPLES]``: means of columns are fast."""
    return np.ascontiguousarray(np.random.default_rng(seed).integers(n, size=(RESAMPLES, n)).T)


def sign_flip_p(differences: Values, seed: int = 0) -> float:
    """Return the two-sided p of paired differences: how often random signs give a mean at least as far from 0.

    Exact up to n = 16, over all 2**n assignments of signs; above, over 100,000 random ones and the observed one. With n
    pairs p is at least 2 / 2**n: five seeds cannot reach 0.05. (Fisher 1935; Good, Permutation Tests, 2000, ch. 3.)

    Args:
        differences: ``[n]``, one for each seed; n at least 1.
        seed: of the random signs.
    """
    observed = abs(float(differences.sum()))
    least = observed * (1 - 1e-9) - 1e-12
    as_far = total = 0
    for signs in _signs(len(differences), seed):
        as_far += int(np.count_nonzero(np.abs(signs @ differences) >= least))
        total += len(signs)
    return as_far / total


def _signs(n: int, seed: int) -> Iterator[Values]:
    """Yield assignments of signs to n values, ``[assignments, n]`` at a time."""
    if n <= _EXACT_UP_TO:
        yield _all_signs(n)
        return
    random = np.random.default_rng(seed)
    for start in range(0, _RANDOM_SIGNS, _AT_A_TIME):
        signs = random.choice([-1.0, 1.0], size=(_AT_A_TIME, n))
        if start == 0:
            signs[0] = 1.0  # as observed
        yield signs


@functools.lru_cache(maxsize=4)
def _all_signs(n: int) -> Values:
    negative = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    return 1.0 - 2.0 * negative.astype(np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979); NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    order = [int(index) for index in np.argsort(p) if not np.isnan(p[index])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, float(p[index]) * (len(order) - rank)))
        corrected[index] = largest
    return corrected.tolist()
