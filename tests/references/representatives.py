"""Rows nearest to the means of clusters that are given, among the rows of each."""

import math

import numpy as np


def unit(x):
    length = math.sqrt(sum(v * v for v in x))
    return [v / length for v in x] if length else list(x)


def nearest_members(features, assignments, centers):
    x, chosen = np.asarray(features), []
    for cluster, center in enumerate(np.asarray(centers)):
        members = [row for row in range(len(x)) if assignments[row] == cluster]
        if members:
            chosen.append(min(members, key=lambda row: (((x[row] - center) ** 2).sum(), row)))
    return chosen


def filled(chosen, scores, candidates, n):
    """Return n rows, by score: the chosen, and those with the highest scores."""

    def by_score(rows):
        return sorted(rows, key=lambda row: (-scores[row], row))

    rest = by_score(row for row in range(len(scores)) if candidates[row] and row not in chosen)
    return by_score([*chosen, *rest[: n - len(chosen)]])
