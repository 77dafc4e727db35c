"""The nearest neighbours of each row, in exact arithmetic."""

from tests.references.k_center import as_fractions, distance


def knn(distances, k):
    """Return for each row a list of (exact value, row) of the k nearest other rows, ascending."""
    return [sorted((far, j) for j, far in enumerate(row) if j != i)[:k] for i, row in enumerate(distances)]


def distances(features, metric):
    """Return exact values of all pairs."""
    rows = as_fractions(features)
    return [[distance(a, b, metric) for b in rows] for a in rows]


def among(distances, k, rows):
    """Return for each row a list of (exact value, row) of the k nearest of some rows, ascending."""
    return [sorted((row[j], j) for j in rows)[:k] for row in distances]
