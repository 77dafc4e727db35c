"""K-center greedy in exact arithmetic: every float is a fraction, and no distance is rounded."""

from fractions import Fraction

import numpy as np


def as_fractions(features):
    return [[Fraction(float(value)) for value in row] for row in features]


def distance(a, b, metric):
    """Return something exact that is ordered as the distance is."""
    if metric == "manhattan":
        return sum(abs(x - y) for x, y in zip(a, b, strict=True))
    if metric == "euclidean":
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - product * abs(product) / (sum(x * x for x in a) * sum(y * y for y in b))


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


def farthest_from_mean(features, candidates, metric):
    """Return the candidate farthest from the mean of all rows (not for cosine, which has roots in it)."""
    rows = as_fractions(features)
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
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
