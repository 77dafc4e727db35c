"""Probability coverage: balls row by row, picks one by one; the best cover by trying all; and purity ball by ball."""

import itertools
import math

from tests.references.k_center import as_fractions, distance


def balls(features, sq_radius):
    """Return the set of rows nearer than the radius to each row, in exact arithmetic."""
    rows = as_fractions(features)
    return [{j for j, b in enumerate(rows) if distance(a, b, "euclidean") < sq_radius} for a in rows]


def union(balls, rows):
    return set().union(*(balls[row] for row in rows))


def greedy(balls, n, labeled, candidates):
    """Return picks and how many rows each covers, until no candidate covers one more."""
    covered = union(balls, labeled)
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
    return picked, gains


def most_covered(balls, n, labeled, candidates):
    """Return the most rows that the balls of n candidates can add to those around the labeled rows, by trying all."""
    covered = union(balls, labeled)
    return max(len(union(balls, rows) - covered) for rows in itertools.combinations(candidates, n))


def sq_purity_radius(features, clusters, alpha):
    """Return the square of the largest distance at which so many balls are pure; infinite if all are at any radius."""
    rows = as_fractions(features)
    if len(set(clusters)) == 1:
        return math.inf

    def share(sq_radius):
        pure = [len({clusters[row] for row in ball}) == 1 for ball in balls(features, sq_radius)]
        return sum(pure) / len(pure)

    tried = {distance(a, b, "euclidean") for a, b in itertools.combinations(rows, 2)}
    return max((sq for sq in tried if share(sq) >= alpha), default=0)
