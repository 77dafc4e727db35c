"""Several methods over several data sets, by their ranks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_whole
from torchal.errors import DataError
from torchal.statistics.given import Floats, Numbers, as_floats, check_open


def friedman(scores: NDArray[Any], *, lower_is_better: bool = False) -> dict[str, Any]:
    """Test whether methods differ over data sets, by the rank that each has in each data set.

    Args:
        scores: of each method in each block; a block is a data set (and model), a score mostly a mean over seeds.
        lower_is_better: whether the smallest score has the first rank.

    Returns:
        mean_ranks: of the methods, in the order of the columns; 1 is the best rank, equal scores share their mean.
        blocks, methods: how many there are.
        chi2, p: Friedman's statistic, corrected for ties, and p by the chi-square distribution; 0 and 1 where all
            scores of each block are equal.
        f, p_f: the statistic of Iman and Davenport, which is less conservative, and p by the F distribution. None with
            a single block; infinite and 0 where all blocks rank the methods alike.

    Shapes:
        scores: (B, K) with K >= 2.

    Raises:
        ShapeError: the scores are no matrix.
        DataError: there is no block, fewer than two methods, or a score that is not finite.

    Reference:
        Friedman, "The Use of Ranks to Avoid the Assumption of Normality Implicit in the Analysis of Variance", Journal
        of the American Statistical Association, 1937. Iman & Davenport, "Approximations of the Critical Region of the
        Friedman Statistic", Communications in Statistics, 1980. Demsar, "Statistical Comparisons of Classifiers over
        Multiple Data Sets", JMLR 7, 2006.

    Example:
        >>> found = friedman(np.array([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.9, 0.7, 0.8], [0.7, 0.6, 0.6]]))
        >>> found["mean_ranks"], round(found["chi2"], 4), round(found["p"], 4)
        ([1.0, 2.375, 2.625], 6.5333, 0.0381)
    """
    from scipy import stats

    ranks = _ranks(scores, lower_is_better=lower_is_better)
    n, k = ranks.shape
    mean_ranks = ranks.mean(0)
    # the spread of all ranks, which with no tie in any block is n k (k + 1) / 12 (k - 1)
    spread = float(((ranks - (k + 1) / 2) ** 2).sum())
    between = n * float(((mean_ranks - (k + 1) / 2) ** 2).sum())
    chi2 = n * (k - 1) * between / spread if spread else 0.0
    found: dict[str, Any] = {"mean_ranks": mean_ranks.tolist(), "blocks": n, "methods": k, "chi2": chi2}
    found |= {"p": float(stats.chi2.sf(chi2, k - 1)), "f": None, "p_f": None}
    if n > 1:
        within = n * (k - 1) - chi2
        f = (n - 1) * chi2 / within if within > 1e-9 * n * (k - 1) else math.inf
        found |= {"f": f, "p_f": float(stats.f.sf(f, k - 1, (k - 1) * (n - 1)))}
    return found


def critical_difference(n_methods: int, n_blocks: int, *, alpha: float = 0.05) -> float:
    """Return by how much mean ranks of two methods must differ for the two to differ, by Nemenyi's test.

    It holds for all pairs of the methods together.

    Args:
        n_methods: how many methods are compared.
        n_blocks: how many data sets their ranks are means over.
        alpha: the level of the test.

    Raises:
        ConfigError: fewer than two methods, no block, or alpha is not between 0 and 1.

    Reference:
        Nemenyi, "Distribution-Free Multiple Comparisons", PhD thesis, Princeton, 1963; Demsar, JMLR 7, 2006.

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    from scipy import stats

    check_whole("n_methods", n_methods, least=2)
    check_whole("n_blocks", n_blocks, least=1)
    check_open("alpha", alpha)
    quantile = float(stats.studentized_range.ppf(1 - alpha, n_methods, np.inf)) / math.sqrt(2)
    return quantile * _standard_error(n_methods, n_blocks)


def nemenyi(scores: NDArray[Any]) -> list[list[float]]:
    """Return p of Nemenyi's test for each two methods, corrected for all pairs together; 1 on the diagonal.

    Whether less or more is better makes no difference.

    Shapes:
        scores: (B, K) with K >= 2; the answer has K rows of K.

    Raises:
        ShapeError, DataError: see `friedman`.

    Reference:
        See `critical_difference`.

    Example:
        >>> found = nemenyi(np.array([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.9, 0.7, 0.8], [0.7, 0.6, 0.6]]))
        >>> [round(p, 4) for p in found[0]]
        [1.0, 0.1263, 0.0561]
    """
    from scipy import stats

    ranks = _ranks(scores, lower_is_better=False)
    n, k = ranks.shape
    mean_ranks = ranks.mean(0)
    gaps = np.abs(mean_ranks[:, None] - mean_ranks[None, :]) / _standard_error(k, n)
    found = np.ones((k, k))
    upper = np.triu_indices(k, 1)
    found[upper] = stats.studentized_range.sf(gaps[upper] * math.sqrt(2), k, np.inf)
    found.T[upper] = found[upper]
    return np.clip(found, 0.0, 1.0).tolist()  # type: ignore[no-any-return]


def cliques(mean_ranks: Numbers, critical_difference: float) -> list[list[int]]:
    """Return the groups of methods that do not differ: the bars of a critical-difference diagram.

    Only groups that are not part of another, of two methods or more; a method in none differs from all others.

    Args:
        mean_ranks: of K methods.
        critical_difference: methods differ whose ranks are as far apart, or farther.

    Returns:
        Of each group the methods, by their places in mean_ranks, from the best to the worst; the groups too.

    Shapes:
        mean_ranks: (K,).

    Raises:
        DataError: a rank is not finite.

    Reference:
        Demsar, JMLR 7, 2006.

    Example:
        >>> cliques([3.1, 1.2, 2.0, 2.9], 1.0)
        [[1, 2], [2, 3], [3, 0]]
    """
    ranks = as_floats("mean_ranks", mean_ranks)
    order = np.argsort(ranks, kind="stable")
    ordered = ranks[order]
    groups, reached = [], 0
    for first in range(len(order)):
        # a gap that is the critical difference up to rounding is one
        last = int(np.searchsorted(ordered, ordered[first] + critical_difference - 1e-12, side="left"))
        if last - first > 1 and last > reached:
            groups.append(order[first:last].tolist())
            reached = last
    return groups


def _standard_error(n_methods: int, n_blocks: int) -> float:
    return math.sqrt(n_methods * (n_methods + 1) / (6 * n_blocks))


def _ranks(scores: NDArray[Any], *, lower_is_better: bool) -> Floats:
    """Return the rank of each method in each block, (B, K); 1 is the best, equal scores share their mean."""
    from scipy import stats

    given = as_floats("scores", scores, ndim=2)
    n_blocks, n_methods = given.shape
    if not n_blocks or n_methods < 2:
        raise DataError(f"ranks need one block and two methods at least, got {n_blocks} blocks of {n_methods} methods")
    ranks: Floats = stats.rankdata(given if lower_is_better else -given, axis=1)
    return ranks
