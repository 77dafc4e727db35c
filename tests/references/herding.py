"""Herding by the definition, and what it is told by labels: the least distance, and the calibration error."""

import itertools
import math

from tests.references import submodular


def herding(points, weights, bandwidth, n, labeled, candidates):
    """Return n picks and what each adds to the weighted sum of the highest kernel values exp(-d^2 / bandwidth^2)."""
    return submodular.greedy(objective(points, weights, bandwidth), n, labeled, candidates)


def objective(points, weights, bandwidth):
    """Return the weighted sum of the highest kernel values, as a function of a list of rows."""
    table = submodular.similarities(points, "rbf", 1 / bandwidth**2)
    return lambda picked: submodular.value(table, picked, weights)


def least_distance(points, rows):
    """Return the least distance of two of these rows that differ, or 1."""
    distances = [math.dist(points[i], points[j]) for i, j in itertools.combinations(rows, 2)]
    return min((distance for distance in distances if distance > 1e-12), default=1.0)


def calibration_error(log_probs, targets, n_bins):
    """Return the expected calibration error over bins (low, high] of equal width."""
    bins = [[] for _ in range(n_bins)]
    for row, target in zip(log_probs, targets, strict=True):
        confidence = math.exp(max(row))
        right = row.index(max(row)) == target
        bins[min(n_bins, max(1, math.ceil(confidence * n_bins))) - 1].append((confidence, right))
    total = 0.0
    for found in bins:
        if found:
            confidence = sum(value for value, _ in found) / len(found)
            accuracy = sum(right for _, right in found) / len(found)
            total += len(found) / len(targets) * abs(confidence - accuracy)
    return total
