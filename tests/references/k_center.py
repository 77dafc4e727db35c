"""K-center greedy in exact arithmetic: every float is a fraction, and no distance is rounded."""

from fractions import Fraction
from itertools import combinations

import numpy as np


def as_fractions(features):
    """Return rows of exact numbers. Whole ones are of type int: the same numbers, and many times faster."""
    values = [[float(value) for value in row] for row in features]
    return [[int(value) if value.is_integer() else Fraction(value) for value in row] for row in values]


def distance(a, b, metric):
    """Return something exact that is ordered as the distance is."""
    if metric == "manhattan":
        return sum(abs(x - y) for x, y in zip(a, b, strict=True))
    if metric == "euclidean":
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - Fraction(product * abs(product), sum(x * x for x in a) * sum(y * y for y in b))


def k_center_greedy(features, n, labeled, candidates, metric):
    """Return rows in pick order; at least one row must be labeled."""
    rows = as_fractions(features)
    nearest = [min(distance(row, rows[c], metric) for c in np.flatnonzero(labeled)) for row in rows]
    left = list(np.flatnonzero(candidates))
    picked = []
    for _ in range(n):
        best = max(left, key=lambda row: (nearest[row], -row))
        left.remove(best)
        picked.append(int(best))
        nearest = [min(old, distance(row, rows[best], metric)) for old, row in zip(nearest, rows, strict=True)]
    return picked


def k_center_by_parts(features, n, labeled, candidates, metric, parts):
    """Return what is picked of what is picked of each part; at least one row must be labeled.

    Args:
        parts: slices of the rows.
    """

    def greedy(rows):
        """Pick of some rows, behind all that are labeled."""
        rows = np.array([row for row in rows if not labeled[row]], dtype=int)
        rows = np.concatenate([np.flatnonzero(labeled), rows])
        allowed = np.asarray(candidates)[rows]
        known = np.asarray(labeled)[rows]
        count = min(n, int(allowed.sum()))
        found = k_center_greedy([features[row] for row in rows], count, known, allowed, metric) if count else []
        return [int(rows[place]) for place in found]

    proposed = [greedy(range(len(features))[part]) for part in parts]
    if sum(map(bool, proposed)) == 1:
        return next(filter(None, proposed))
    return greedy(sorted(row for rows in proposed for row in rows))


def farthest_from_mean(features, candidates, metric):
    """Return the candidate farthest from the mean of all rows (not for cosine, which has roots in it)."""
    rows = as_fractions(features)
    mean = [Fraction(sum(column), len(rows)) for column in zip(*rows, strict=True)]
    return int(max(np.flatnonzero(candidates), key=lambda row: (distance(rows[row], mean, metric), -row)))


def plain_greedy(features, n, labeled, candidates, metric):
    """Return rows and distances, one pass in float64 per pick: for sizes at which fractions are too slow.

    All arguments are tensors here.
    """
    x = features.double().numpy()
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)

    def far(center):
        if metric == "manhattan":
            return np.abs(x - x[center]).sum(1)
        squares = ((x - x[center]) ** 2).sum(1)
        return squares / 2 if metric == "cosine" else np.sqrt(squares)

    nearest = np.full(len(x), np.inf)
    for center in np.flatnonzero(labeled.numpy()):
        nearest = np.minimum(nearest, far(center))
    left = candidates.numpy().copy()
    picked, scores = [], []
    for _ in range(n):
        best = int(np.where(left, nearest, -np.inf).argmax())
        picked.append(best)
        scores.append(nearest[best])
        left[best] = False
        nearest = np.minimum(nearest, far(best))
    return picked, scores


def settings_greedy(features, n, nearest, candidates, metric, *, weights=None, beyond=0, min_distance=0):
    """Return rows in pick order, with weights, rows passed over and a least distance; exact (not for cosine).

    `nearest` is the distance of each row to its nearest centre, as `distance` has it.
    """
    rows = as_fractions(features)
    power = 2 if metric == "euclidean" else 1
    factors = [Fraction(float(w)) ** power for w in (np.ones(len(rows)) if weights is None else weights)]
    closest = Fraction(min_distance) ** power
    nearest, left, picked = list(nearest), [int(row) for row in np.flatnonzero(candidates)], []
    for _ in range(n):
        if weights is None:
            values = {row: nearest[row] for row in left}
        else:
            values = {row: factors[row] * nearest[row] if nearest[row] >= closest else 0 for row in left}
        level = sorted(values.values(), reverse=True)[beyond]
        if min_distance and (level == 0 or (weights is None and level < closest)):
            break
        best = min(row for row in left if values[row] == level)
        left.remove(best)
        picked.append(best)
        if level > 0:  # else a copy of a centre, or a row without weight, which counts as one
            nearest = [min(old, distance(row, rows[best], metric)) for old, row in zip(nearest, rows, strict=True)]
    return picked


def best_radius(distances, k, outliers=0, weights=None, labeled=(), among=None):
    """Return the least radius of any k centres beside the labeled ones, all but so many rows within it; brute force.

    The rows are those that are not labeled, or `among` them.
    """
    n_rows = len(distances)
    rest = [row for row in range(n_rows) if row not in labeled] if among is None else list(among)
    weights = np.ones(n_rows) if weights is None else weights
    best = np.inf
    for centers in combinations(range(n_rows), k):
        far = weights * distances[:, [*labeled, *centers]].min(1)
        best = min(best, np.sort(far[rest])[len(rest) - 1 - outliers])
    return best
