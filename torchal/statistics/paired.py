"""Tests of differences of pairs: their p-values, and their power."""

from __future__ import annotations

import math

import numpy as np

from torchal.statistics.given import Floats, steps

_EXACT_UP_TO = 50  # differences; from there on scipy's signed-rank test is the normal approximation too
_FAR = 30.0  # of a noncentral t, beyond which its other tail is 0 in float64, and NaN in scipy


def paired_t(differences: Floats, scale: float) -> float | None:
    """Return p of the two-sided t-test of a mean of zero, of differences of numbers up to `scale`.

    None with fewer than two, or where all are equal but not zero; 1 where all are zero.

    Shapes:
        differences: (B,).
    """
    from scipy import stats

    if len(differences) < 2:
        return None
    rounded = steps(differences, scale)
    if np.ptp(rounded) == 0:
        return None if rounded[0] else 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def signed_rank(differences: Floats) -> float | None:
    """Return p of Wilcoxon's two-sided signed-rank test, None with fewer than two differences.

    Exact up to 50 that are not zero. With ties scipy's exact distribution is none, and what scipy does in its place
    depends on its version; so the sums are counted here.

    Shapes:
        differences: (B,), of which equal ones are equal to the last bit, as `given.steps` makes them.
    """
    from scipy import stats

    if len(differences) < 2:
        return None
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return 1.0
    if len(nonzero) > _EXACT_UP_TO:
        return float(stats.wilcoxon(nonzero).pvalue)
    doubled = np.rint(2 * stats.rankdata(np.abs(nonzero))).astype(np.int64)  # whole numbers, also of ties
    total, above = int(doubled.sum()), int(doubled[nonzero > 0].sum())
    chances = np.zeros(total + 1)  # of each sum of the ranks whose sign is plus
    chances[0] = 1.0
    for rank in doubled:
        chances = (chances + np.concatenate([np.zeros(rank), chances[:-rank]])) / 2
    return min(1.0, 2 * float(chances[: min(above, total - above) + 1].sum()))


def power_of_t(effect: float, pairs: int, alpha: float) -> float:
    """Return how probable the two-sided t-test of so many pairs finds a mean of `effect` standard deviations."""
    from scipy import stats

    critical, shift = stats.t.isf(alpha / 2, pairs - 1), effect * math.sqrt(pairs)
    other_tail = 0.0 if shift > _FAR else float(stats.nct.cdf(-critical, pairs - 1, shift))
    return float(stats.nct.sf(critical, pairs - 1, shift)) + other_tail
