"""Statistics of paired runs by loops, and by all cases where there are few."""

import itertools

import numpy as np
from scipy import stats


def area(x, y, low, high, pieces=4000):
    """Return the mean height of a broken line between two places, by many thin rectangles."""
    width = (high - low) / pieces
    return sum(np.interp(low + (i + 0.5) * width, x, y) for i in range(pieces)) / pieces


def kaplan_meier_median(labels, limits):
    """Return the first number of labels by which the estimated share that has not come to the target is a half."""
    ends = [limit if n is None else n for n, limit in zip(labels, limits, strict=True)]
    left = 1.0
    for place in sorted({n for n in labels if n is not None}):
        at_risk = sum(end >= place for end in ends)
        left *= 1 - sum(n == place for n in labels) / at_risk
        if left <= 0.5 + 1e-9:
            return place
    return None


def signed_rank(differences):
    """Return the two-sided p of the signed-rank test from all signs that the differences could have."""
    sizes = np.array([abs(d) for d in differences if d])
    ranks = stats.rankdata(sizes)
    seen = sum(rank for rank, d in zip(ranks, [d for d in differences if d], strict=True) if d > 0)
    sums = [sum(r for r, plus in zip(ranks, signs, strict=True) if plus) for signs in _signs(len(ranks))]
    above, below = np.mean([s >= seen - 1e-9 for s in sums]), np.mean([s <= seen + 1e-9 for s in sums])
    return min(1.0, 2 * min(above, below))


def _signs(n):
    return itertools.product([False, True], repeat=n)


def holm(p_values):
    """Return for each p-value the smallest level at which the step-down procedure rejects it."""
    ordered = sorted(p_values)
    steps = [min(1.0, (len(ordered) - i) * p) for i, p in enumerate(ordered)]
    return [max(steps[: ordered.index(p) + 1]) for p in p_values]


def penalties(curves, samplers, *, lower_is_better=False):
    """Return the matrix by a test of each two samplers at each number of labels of each block."""
    matrix = np.zeros((len(samplers), len(samplers)))
    for block in curves.values():
        for i, j in itertools.permutations(range(len(samplers)), 2):
            if samplers[i] in block and samplers[j] in block:
                a, b = block[samplers[i]], block[samplers[j]]
                for place in range(a.shape[1]):
                    found = stats.ttest_rel(a[:, place], b[:, place])
                    better = found.statistic < 0 if lower_is_better else found.statistic > 0
                    matrix[i, j] += (found.pvalue < 0.05 and better) / a.shape[1]
    return matrix


def ranks(row):
    """Return the rank of each score, 1 for the largest; equal ones share their mean."""
    return [sum(other > score for other in row) + (sum(other == score for other in row) + 1) / 2 for score in row]


def friedman(table):
    """Return Friedman's statistic with the correction for ties, as in the textbook."""
    n, k = len(table), len(table[0])
    ranked = [ranks(row) for row in table]
    sums = [sum(row[j] for row in ranked) for j in range(k)]
    statistic = 12 / (n * k * (k + 1)) * sum(s**2 for s in sums) - 3 * n * (k + 1)
    ties = sum(list(row).count(score) ** 3 - list(row).count(score) for row in table for score in set(row))
    return statistic / (1 - ties / (n * k * (k**2 - 1)))


def cliques(mean_ranks, critical_difference):
    """Return all sets of two or more whose ranks are closer than the critical difference and that cannot grow."""
    places = range(len(mean_ranks))
    close = [
        set(some)
        for size in range(2, len(mean_ranks) + 1)
        for some in itertools.combinations(places, size)
        if max(mean_ranks[i] for i in some) - min(mean_ranks[i] for i in some) < critical_difference
    ]
    return [some for some in close if not any(some < other for other in close)]


def signed_rank_probabilities(differences, rope, prior_strength, n_samples, seed):
    """Return how often each region has most of the weight of the pairs' means, by all pairs in each draw."""
    z = np.concatenate([[0.0], differences])
    rng, wins = np.random.default_rng(seed), np.zeros(3)
    for _ in range(n_samples):
        w = rng.dirichlet([prior_strength] + [1.0] * len(differences))
        shares = np.zeros(3)
        for i, j in itertools.product(range(len(z)), repeat=2):
            mean = (z[i] + z[j]) / 2
            right, left = (1.0 if m > rope else 0.5 if m == rope else 0.0 for m in (mean, -mean))
            shares += w[i] * w[j] * np.array([left, 1 - left - right, right])
        most = shares >= shares.max() - 1e-9
        wins += most / most.sum()
    return wins / n_samples


def calibration_error(confidence, right, bins):
    """Return the mean gap of confidence and accuracy over bins that are open at the left."""
    total = 0.0
    for i in range(bins):
        inside = [j for j, c in enumerate(confidence) if i / bins < c <= (i + 1) / bins or (i == 0 and c == 0)]
        if inside:
            gap = np.mean([confidence[j] for j in inside]) - np.mean([right[j] for j in inside])
            total += len(inside) * abs(gap)
    return total / len(confidence)
