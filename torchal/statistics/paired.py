"""Tests of differences of pairs: their p-values, and their power."""

from __future__ import annotations

import math

import numpy as np

from torchal.statistics.given import ROUNDING, Floats

_EXACT_UP_TO = 50  # differences; from there on scipy's signed-rank test is the normal approximation too
_FAR = 8.5  # standard errors; the test finds the wrong sign less often than float64 can tell
_SURE = 1e6  # standard errors; the test finds them for sure


def paired_t(a: Floats, b: Floats) -> Floats:
    """Return p of the two-sided paired t-test of each column; NaN in a score is a pair that is not there.

    NaN with fewer than two pairs, or where all differences are equal but not zero; 1 where all are zero. This is what
    scipy.stats.ttest_rel says elsewhere, for thousands of columns at once and without its warnings of differences that
    are hardly different.

    Shapes:
        a, b: (B, P); the answer is (P,).
    """
    from scipy import special

    there = ~(np.isnan(a) | np.isnan(b))
    a, b = np.where(there, a, 0.0), np.where(there, b, 0.0)
    n, differences = there.sum(0), a - b
    scale = np.maximum(np.abs(a), np.abs(b)).max(0, initial=0.0)
    p = np.full(len(n), np.nan)
    lowest = np.where(there, differences, np.inf).min(0, initial=np.inf)
    highest = np.where(there, differences, -np.inf).max(0, initial=-np.inf)
    p[(n > 1) & (np.maximum(-lowest, highest) <= ROUNDING * scale)] = 1.0
    spread_out = (n > 1) & (highest - lowest > ROUNDING * scale) & np.isnan(p)
    n, there = n[spread_out], there[:, spread_out]
    differences = differences[:, spread_out] / scale[spread_out]  # whose squares are neither 0 nor infinite
    mean = differences.sum(0) / n
    variance = np.where(there, (differences - mean) ** 2, 0.0).sum(0) / (n - 1)
    p[spread_out] = 2 * special.stdtr(n - 1, -np.abs(mean) / np.sqrt(variance / n))
    return p


def signed_rank(differences: Floats, scale: float) -> float | None:
    """Return p of Wilcoxon's two-sided signed-rank test, None with fewer than two differences of scores up to `scale`.

    Exact up to 50 that are not zero. With ties scipy's exact distribution is none, and what scipy does in its place
    depends on its version; so the sums are counted here.

    Shapes:
        differences: (B,).
    """
    from scipy import stats

    if len(differences) < 2:
        return None
    nonzero = differences[np.abs(differences) > ROUNDING * scale]
    if not len(nonzero):
        return 1.0
    nonzero = nonzero[np.argsort(np.abs(nonzero))]
    # 1 for the smallest, and one more for each that is larger than the one before by more than rounding
    sizes = 1 + np.concatenate([[0], np.cumsum(np.diff(np.abs(nonzero)) > ROUNDING * scale)])
    if len(nonzero) > _EXACT_UP_TO:
        return float(stats.wilcoxon(np.sign(nonzero) * sizes).pvalue)
    doubled = np.rint(2 * stats.rankdata(sizes)).astype(np.int64)  # whole numbers, also of ties
    total, above = int(doubled.sum()), int(doubled[nonzero > 0].sum())
    chances = np.zeros(total + 1)  # of each sum of the ranks whose sign is plus
    chances[0] = 1.0
    for rank in doubled:
        chances = (chances + np.concatenate([np.zeros(rank), chances[:-rank]])) / 2
    return min(1.0, 2 * float(chances[: min(above, total - above) + 1].sum()))


def power_of_t(effect: float, pairs: int, alpha: float) -> float:
    """Return how probable the two-sided t-test of so many pairs finds a mean of `effect` standard deviations.

    For alpha of at least 0.001, and any effect: there scipy's noncentral t has an answer.
    """
    from scipy import stats

    critical, shift = stats.t.isf(alpha / 2, pairs - 1), min(effect * math.sqrt(pairs), _SURE)
    with np.errstate(all="ignore"):  # earlier versions of scipy divide by zero on the way to the right answer
        wrong_sign = float(stats.nct.sf(critical, pairs - 1, -shift)) if shift < _FAR else 0.0
        return float(stats.nct.sf(critical, pairs - 1, shift)) + wrong_sign
