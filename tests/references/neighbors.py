"""The nearest neighbours of each row, in exact arithmetic."""

from tests.references.k_center import as_fractions, distance


def knn(features, k, metric):
    """Return for each row a list of (exact value, row) of all other rows, ascending: the first k are neighbours."""
    rows = as_fractions(features)
    return [sorted((distance(a, b, metric), j) for j, b in enumerate(rows) if j != i)[:k] for i, a in enumerate(rows)]


def distances(features, metric):
    """Return exact values of all pairs."""
    rows = as_fractions(features)
    return [[distance(a, b, metric) for b in rows] for a in rows]


def among(features, k, metric, rows):
    """Return for each row a list of (exact value, row) of the k nearest of some rows."""
    points = as_fractions(features)
    return [sorted((distance(a, points[j], metric), j) for j in rows)[:k] for a in points]
