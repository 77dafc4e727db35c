"""Whether one method is better than another, from runs that are paired: the same data, the same seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_at_least, check_whole
from torchal.errors import DataError, ShapeError
from torchal.statistics.curves import mean_interval
from torchal.statistics.given import ROUNDING, Numbers, as_floats, check_open, largest
from torchal.statistics.paired import paired_t, power_of_t, signed_rank

Key = TypeVar("Key", bound=Hashable)

_LEVEL = 0.05
_CHUNK = 1 << 20  # numbers of a temporary


def compare(
    a: Numbers, b: Numbers, *, confidence: float = 0.95, lower_is_better: bool = False, tolerance: float = 0.0
) -> dict[str, Any]:
    """Compare two methods over paired runs: the mean difference a - b, its interval, two tests, and who won how often.

    A pair of which one number is NaN is no pair. Differences are equal, or zero, that are so up to 1e-12 of the
    largest number.

    Args:
        a: the scores of the one.
        b: those of the other, in the same order of runs.
        confidence: of the interval.
        lower_is_better: whether the smaller score wins. The difference is a - b all the same.
        tolerance: scores that are no farther apart than this are a tie; of no effect on the tests.

    Returns:
        pairs: how many there are; unpaired: how many had a NaN.
        difference: the mean of a - b, NaN without a pair.
        lower, upper: Student's t interval of it; None with fewer than two pairs, and where p is None.
        p: of the two-sided paired t-test. None with fewer than two pairs, and where all differences are equal but not
            zero: nothing is then known of how much runs differ, and a test would be sure by that alone. 1 where all are
            zero.
        p_wilcoxon: of the two-sided signed-rank test; None with fewer than two pairs. Zeros are dropped, as Wilcoxon
            did; equal differences share their mean rank. Exact up to 50 differences that are not zero, also with ties,
            over all signs that they could have; from there on the normal approximation, corrected for ties. 1 where all
            are zero.
        wins, ties, losses: in how many pairs a was better, equal, worse.

    Shapes:
        a, b: (B,).

    Raises:
        ShapeError: the two differ in length.
        DataError: a score is infinite.
        ConfigError: confidence is not between 0 and 1, or tolerance below 0.

    Reference:
        Wilcoxon, "Individual Comparisons by Ranking Methods", Biometrics Bulletin, 1945.

    Example:
        >>> found = compare([0.90, 0.85, 0.88], [0.86, 0.84, 0.83])
        >>> round(found["difference"], 4), round(found["p"], 4), found["p_wilcoxon"], found["wins"]
        (0.0333, 0.1091, 0.25, 3)
    """
    first, second = as_floats("a", a, finite=False), as_floats("b", b, finite=False)
    if first.shape != second.shape:
        raise ShapeError(f"scores are paired, got {len(first)} and {len(second)}")
    check_open("confidence", confidence)
    check_at_least("tolerance", tolerance, least=0)
    there = ~(np.isnan(first) | np.isnan(second))
    differences, scale = first[there] - second[there], largest(first[there], second[there])
    better = differences if not lower_is_better else -differences
    margin = tolerance + ROUNDING * scale
    p = float(paired_t(first[:, None], second[:, None])[0])
    is_tested = not math.isnan(p)
    ends = mean_interval(differences, confidence=confidence) if is_tested else None
    return {
        "pairs": len(differences),
        "unpaired": int((~there).sum()),
        "difference": float(differences.mean()) if len(differences) else math.nan,
        "lower": None if ends is None else float(ends[0]),
        "upper": None if ends is None else float(ends[1]),
        "p": p if is_tested else None,
        "p_wilcoxon": signed_rank(differences, scale),
        "wins": int((better > margin).sum()),
        "ties": int((np.abs(better) <= margin).sum()),
        "losses": int((better < -margin).sum()),
    }


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values that are corrected for how many tests there are, in the given order.

    None stays None and does not count: there was no test. Below 0.05 are then, all together, false ones in no more than
    5 % of all families, however the tests hang together.

    Args:
        p_values: of the tests of one family.

    Raises:
        DataError: a p-value is not between 0 and 1.

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics, 1979.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    tested = [i for i, p in enumerate(p_values) if p is not None]
    given = as_floats("p_values", [p_values[i] for i in tested])
    if ((given < 0) | (given > 1)).any():
        raise DataError(f"p-values lie between 0 and 1, got {given.min():g} to {given.max():g}")
    order = np.argsort(given, kind="stable")
    larger = given[order] * np.arange(len(given), 0, -1)
    corrected: list[float | None] = [None] * len(p_values)
    for place, p in zip(order, np.minimum(np.maximum.accumulate(larger), 1.0), strict=True):
        corrected[tested[place]] = float(p)
    return corrected


def compare_all(
    scores: Mapping[str, Mapping[Key, float]], *, lower_is_better: bool = False, confidence: float = 0.95
) -> list[dict[str, Any]]:
    """Compare each method with each other one, on the runs that both have.

    Runs count as independent pairs, so over several experiments this speaks of these experiments. Whether a method is
    better on others too, an experiment says but once, however many seeds it has: see `rankings.friedman`.

    Args:
        scores: by method, then by what pairs its runs, as (experiment, seed). A NaN is a run that is not there.
        lower_is_better: whether the smaller score wins.
        confidence: of the intervals.

    Returns:
        One dict for each pair of methods, in the given order, with what `compare` says and
        a, b: their names.
        unpaired: how many runs only one of them had.
        p_holm: p after Holm's correction over all pairs; None where p is.
        verdict: 1 where a is better and p_holm below 0.05, -1 where b is, else 0.

    Raises:
        DataError: a score is infinite.

    Example:
        >>> found = compare_all({"margin": {0: 0.90, 1: 0.85, 2: 0.88}, "uniform": {0: 0.80, 1: 0.76, 3: 0.79}})
        >>> found[0]["pairs"], found[0]["unpaired"], found[0]["wins"], found[0]["verdict"]
        (2, 2, 2, 1)
    """
    known = {
        name: {key: score for key, score in runs.items() if not math.isnan(score)} for name, runs in scores.items()
    }
    found = []
    for a, b in itertools.combinations(known, 2):
        shared = [key for key in known[a] if key in known[b]]
        result = compare(
            [known[a][key] for key in shared],
            [known[b][key] for key in shared],
            confidence=confidence,
            lower_is_better=lower_is_better,
        )
        found.append({"a": a, "b": b, **result, "unpaired": len(known[a].keys() ^ known[b].keys())})
    sign = -1 if lower_is_better else 1
    for result, p in zip(found, holm([one["p"] for one in found]), strict=True):
        is_sure = p is not None and p < _LEVEL
        result |= {"p_holm": p, "verdict": int(np.sign(result["difference"])) * sign if is_sure else 0}
    return found


def penalty_matrix(
    curves: Mapping[Any, Mapping[str, NDArray[Any]]], *, lower_is_better: bool = False, alpha: float = 0.05
) -> dict[str, Any]:
    """Return how often each method was significantly better than each other one, over all blocks.

    A block is an experiment: one data set, model and batch size. It gives 1/P for each of its P numbers of labels at
    which one method beats another by a two-sided paired t-test, so that blocks weigh the same.

    Args:
        curves: by block, then by method, the curves of S runs at P numbers of labels; runs of the methods are paired by
            their row. NaN is a run that is not there at this number of labels.
        lower_is_better: whether less of the metric is better, as of an error.
        alpha: level of the tests.

    Returns:
        samplers: the methods, in the order in which they come up.
        matrix: matrix[i][j] is what i has over j: at most the number of blocks that have both. A column with a small
            sum is a method that is rarely beaten.
        compared: compared[i][j] is that number of blocks.
        blocks: how many blocks there are.
        left_out: blocks of which nothing can be tested, and that are not in the others: with fewer than two runs, or
            with no number of labels.

    Shapes:
        curves: (S, P) each, the same within a block.

    Raises:
        ShapeError: the curves of a block differ in shape, or are no matrices.
        DataError: a value is infinite.

    Reference:
        Ash, Zhang, Krishnamurthy, Langford & Agarwal, "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower
        Bounds", ICLR 2020, the pairwise comparisons of the experiments, where 5 runs make 2.776 the critical value.
        They compare only at some numbers of labels, which double, up to where uniform sampling comes to 99 % of its
        end; here it is at all that are given, so give those that are to count. Differences that are all equal are not
        tested; see `compare`.

    Example:
        >>> better = np.array([[0.5, 0.91], [0.6, 0.92], [0.5, 0.90]])
        >>> worse = np.array([[0.5, 0.80], [0.6, 0.82], [0.5, 0.77]])
        >>> penalty_matrix({"digits": {"margin": better, "uniform": worse}})["matrix"]
        [[0.0, 0.5], [0.0, 0.0]]
    """
    check_open("alpha", alpha)
    names = list(dict.fromkeys(name for block in curves.values() for name in block))
    index = {name: i for i, name in enumerate(names)}
    left_out: list[Any] = []
    matrix, compared = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)), dtype=np.int64)
    for block, methods in curves.items():
        values = {name: as_floats(f"{block}: {name}", given, ndim=2, finite=False) for name, given in methods.items()}
        shapes = {given.shape for given in values.values()}
        if len(shapes) > 1:
            kinds = ", ".join(f"{name} {given.shape}" for name, given in values.items())
            raise ShapeError(f"the curves of a block have the same runs and numbers of labels; {block} has {kinds}")
        if any(n_runs < 2 or not n_points for n_runs, n_points in shapes):
            left_out.append(block)
            continue
        for first, second in itertools.combinations(values, 2):
            i, j = index[first], index[second]
            is_sure = paired_t(values[first], values[second]) < alpha
            gaps = np.nan_to_num(values[first] - values[second]).sum(0)
            wins, losses = int((is_sure & (gaps > 0)).sum()), int((is_sure & (gaps < 0)).sum())
            share = 1 / values[first].shape[1]
            matrix[i, j] += share * (losses if lower_is_better else wins)
            matrix[j, i] += share * (wins if lower_is_better else losses)
            compared[i, j] += 1
            compared[j, i] += 1
    return {
        "samplers": names,
        "matrix": matrix.tolist(),
        "compared": compared.tolist(),
        "blocks": len(curves) - len(left_out),
        "left_out": left_out,
    }


def runs_needed(
    differences: Numbers, *, difference: float | None = None, power: float = 0.8, alpha: float = 0.05
) -> dict[str, Any]:
    """Return how many paired runs the two-sided t-test needs to find a difference, as far as those so far can tell.

    The spread is that of the differences so far, so with few of them the answer is rough; and with the mean so far in
    place of a difference that would matter it is mostly too small, for a mean that is noteworthy is a lucky one.

    Args:
        differences: of the pairs so far.
        difference: what is to be found; their mean unless given.
        power: how probable it is to be that the test finds it.
        alpha: level of the test.

    Returns:
        pairs: the smallest number of pairs with that power. None where there is no answer: of a difference of zero,
            and where the spread is zero or not known, with fewer than two pairs.
        more: how many of them are still to be run, 0 where there are enough.
        difference: what is to be found.
        spread: standard deviation of the differences, None with fewer than two.
        power: how probable it is with the pairs so far; None where pairs is.

    Shapes:
        differences: (B,).

    Raises:
        DataError: a difference is not finite, or there is neither one nor what is to be found.
        ConfigError: power or alpha is not between 0 and 1, or alpha below 0.001.

    Reference:
        Cohen, "Statistical Power Analysis for the Behavioral Sciences", 2nd ed., 1988, by the noncentral t.

    Example:
        >>> found = runs_needed([0.01, 0.03, -0.01, 0.02])
        >>> found["pairs"], found["more"], round(found["power"], 4)
        (17, 13, 0.1807)
    """
    given = as_floats("differences", differences)
    check_open("power", power)
    check_open("alpha", alpha)
    check_at_least("alpha", alpha, least=0.001)
    if difference is None:
        if not len(given):
            raise DataError("how many runs are needed needs a difference, or pairs to take it from; got neither")
        difference = float(given.mean())
    wanted = float(as_floats("difference", difference, ndim=0))
    spread = float(given.std(ddof=1)) if len(given) > 1 else None
    found: dict[str, Any] = {"pairs": None, "more": None, "difference": wanted, "spread": spread, "power": None}
    scale = max(largest(given), abs(wanted))
    if spread is None or np.ptp(given) <= ROUNDING * scale or abs(wanted) <= ROUNDING * scale:
        return found
    effect = abs(wanted) / spread
    enough = 2
    while power_of_t(effect, enough, alpha) < power:
        enough *= 2
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if power_of_t(effect, middle, alpha) < power:
            too_few = middle
        else:
            enough = middle
    return {
        **found,
        "pairs": enough,
        "more": max(0, enough - len(given)),
        "power": power_of_t(effect, len(given), alpha),
    }


def signed_rank_probabilities(
    differences: Numbers,
    *,
    rope: float,
    prior_strength: float = 0.5,
    n_samples: int = 50_000,
    seed: int = 0,
) -> dict[str, float]:
    """Return how probable it is that a is worse than b, as good in practice, or better, by the signed ranks of a - b.

    Unlike a p-value it tells "no difference that matters" from "too few runs to tell".

    Args:
        differences: a - b, one for each data set: a mean over its seeds.
        rope: how large a difference may be that does not matter; 0 for none.
        prior_strength: how many runs the prior weighs; it sees a difference of zero.
        n_samples: draws from the posterior.
        seed: of these draws.

    Returns:
        left: the probability that differences are mostly below -rope; rope: within; right: above. They sum to 1; a draw
        in which two are as large counts for both by half.

    Shapes:
        differences: (B,).

    Raises:
        DataError: there is no difference, or one is not finite.
        ConfigError: rope or prior_strength is below 0, or n_samples below 1.

    Reference:
        Benavoli, Corani, Demsar & Zaffalon, "Time for a Change: a Tutorial for Comparing Multiple Classifiers Through
        Bayesian Analysis", JMLR 18:77, 2017; Benavoli et al., "A Bayesian Wilcoxon Signed-Rank Test Based on the
        Dirichlet Process", ICML 2014. A sum of two differences on the edge counts for both sides by half.

    Complexity:
        O(B) for each draw, by sorted differences, in temporaries of a million numbers.

    Example:
        >>> found = signed_rank_probabilities([0.02, 0.03, 0.01, 0.04, 0.02], rope=0.005, n_samples=1000)
        >>> found["right"] > 0.99
        True
    """
    given = as_floats("differences", differences)
    check_at_least("rope", rope, least=0)
    check_at_least("prior_strength", prior_strength, least=0)
    check_whole("n_samples", n_samples, least=1)
    if not len(given):
        raise DataError("a signed-rank test needs at least one difference, got none")
    scale = max(largest(given), float(rope))
    ordered = np.concatenate([[0.0], given])
    strengths = np.concatenate([[float(prior_strength)], np.ones(len(given))])
    order = np.argsort(ordered, kind="stable")
    ordered, strengths = ordered[order], strengths[order]
    # of each difference: how many make a sum below the edge with it, and how many no more than one on the edge
    margin = 4 * ROUNDING * scale
    above, below = (
        [
            np.searchsorted(ordered, edge - ordered - margin, "left"),
            np.searchsorted(ordered, edge - ordered + margin, "right"),
        ]
        for edge in (2 * rope, -2 * rope)
    )
    generator, votes = np.random.default_rng(seed), np.zeros(3)
    size = max(1, _CHUNK // len(ordered))
    for start in range(0, n_samples, size):
        n_rows = min(size, n_samples - start)
        weights = generator.standard_gamma(strengths, (n_rows, len(ordered)))
        weights /= weights.sum(1, keepdims=True)
        up_to = np.pad(weights.cumsum(1), ((0, 0), (1, 0)))
        right = (weights * (1 - (up_to[:, above[0]] + up_to[:, above[1]]) / 2)).sum(1)
        left = (weights * (up_to[:, below[0]] + up_to[:, below[1]]) / 2).sum(1)
        shares = np.stack([left, 1 - left - right, right], 1)
        largest_share = shares >= shares.max(1, keepdims=True) - 1e-9
        votes += (largest_share / largest_share.sum(1, keepdims=True)).sum(0)
    return dict(zip(("left", "rope", "right"), (votes / n_samples).tolist(), strict=True))
