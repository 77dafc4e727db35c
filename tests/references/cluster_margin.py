"""Cluster-Margin as the paper has it: average linkage pair by pair, and picks one by one."""

import itertools
import math
from fractions import Fraction

import numpy as np


def distance(a, b, metric):
    if metric == "cosine":
        return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return np.linalg.norm(a - b)


def hac_clusters(features, mean_size, metric):
    """Return the clusters with the fewest joins of the nearest two that leave mean_size rows to each on average.

    No two distances may be equal.
    """
    x = np.asarray(features, np.float64)
    most = max(1, math.floor(len(x) / Fraction(mean_size).limit_denominator(1000)))
    clusters = [[i] for i in range(len(x))]

    def apart(pair):
        return np.mean([distance(x[i], x[j], metric) for i in clusters[pair[0]] for j in clusters[pair[1]]])

    while len(clusters) > most:
        i, j = min(itertools.combinations(range(len(clusters)), 2), key=apart)
        clusters[i] += clusters.pop(j)
    return numbered([min(clusters, key=lambda c: i not in c) for i in range(len(x))])


def numbered(clusters):
    """Return numbers from 0 on for the clusters of rows, in the order of their first row."""
    seen = []
    for cluster in clusters:
        if cluster not in seen:
            seen.append(cluster)
    return [seen.index(cluster) for cluster in clusters]


def nearest_on_average(x, members):
    """Return which cluster of rows has the least mean squared distance from x."""
    return int(np.argmin([np.mean([np.sum((x - row) ** 2) for row in rows]) for rows in members]))


def cluster_margin(scores, clusters, n, candidates, oversampling, choose):
    """Return picks in order; `choose` picks one of a list of rows."""
    rows = [row for row in range(len(scores)) if candidates[row]]
    rows.sort(key=lambda row: (-scores[row], row))
    margin_rows = rows[: math.ceil(n * Fraction(oversampling).limit_denominator(1000))]
    mapped = {}
    for row in margin_rows:
        mapped.setdefault(clusters[row], []).append(row)
    ordered = [mapped[cluster] for cluster in sorted(mapped, key=lambda c: (len(mapped[c]), c))]
    picked, index = [], 0
    while len(picked) < n:
        row = choose(ordered[index])
        ordered[index].remove(row)
        picked.append(row)
        index += 1
        while index < len(ordered) and not ordered[index]:
            index += 1
        if index == len(ordered) and len(picked) < n:
            index = next(i for i, left in enumerate(ordered) if left)
    return picked
