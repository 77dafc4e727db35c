"""Probability coverage: balls row by row, picks one by one; the best cover by trying all; and purity ball by ball."""

import itertools
import math

from tests.references.k_center import as_fractions, distance


def balls(features, radius):
    """Return the set of rows nearer than the radius to each row, in exact arithmetic; the radius is a fraction."""
    rows = as_fractions(features)
    return [{j for j, b in enumerate(rows) if distance(a, b, "euclidean") < radius**2} for a in rows]


def greedy(balls, n, labeled, candidates):
    """Return picks and how many rows each covers, until no candidate covers one more."""
    covered = set().union(*(balls[row] for row in labeled))
    left, picked, gains = sorted(candidates), [], []
    while len(picked) < n and left:
        best = max(left, key=lambda row: (len(balls[row] - covered), -row))
        gain = len(balls[best] - covered)
        if not gain:
            break
        left.remove(best)
        covered |= balls[best]
        picked.append(best)
        gains.append(gain)
    return picked, gains, covered


def best_cover(balls, n, labeled):
    """Return the most rows that n balls can add to those around the labeled rows."""
    covered = set().union(*(balls[row] for row in labeled))
    return max(len(set().union(*(balls[row] for row in rows)) - covered) for rows in itertools.combinations(range(len(balls)), n))


def purity(features, clusters, radius):
    """Return the share of balls whose rows are all of one cluster."""
    return sum(len({int(clusters[row]) for row in ball}) == 1 for ball in balls(features, radius)) / len(clusters)


def purity_radius(features, clusters, alpha):
    """Return the largest distance at which the share of pure balls is at least alpha, as its square."""
    rows = as_fractions(features)
    tried = sorted(distance(a, b, "euclidean") for a, b in itertools.combinations(rows, 2))
    good = [sq for sq in tried if _share(rows, clusters, sq) >= alpha]
    return max(good, default=math.inf)


def _share(rows, clusters, sq):
    pure = 0
    for i, a in enumerate(rows):
        pure += all(clusters[i] == clusters[j] for j, b in enumerate(rows) if distance(a, b, "euclidean") < sq)
    return pure / len(rows)
