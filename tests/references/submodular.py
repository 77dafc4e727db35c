"""Facility location by the definition: similarities pair by pair, every gain anew for every pick, and all subsets."""

import itertools
import math

TIED = 1e-9  # gains that differ by less are equal: of the lowest row, then


def similarities(features, similarity="cosine", gamma=1.0):
    """Return the similarity of every row with every row."""
    rows = [[float(value) for value in row] for row in features]
    if similarity == "cosine":
        rows = unit(rows)
        return [[sum(p * q for p, q in zip(a, b, strict=True)) for b in rows] for a in rows]
    if similarity == "rbf":
        return [[math.exp(-gamma * math.dist(a, b) ** 2) for b in rows] for a in rows]
    return [[1 / (1 + math.dist(a, b)) for b in rows] for a in rows]


def unit(rows):
    return [[value / math.hypot(*row) for value in row] for row in rows]


def inverse_variance(features):
    """Return 1 / the sum of the variances of the columns."""
    columns = list(zip(*features, strict=True))
    means = [sum(column) / len(column) for column in columns]
    variances = [
        sum((value - mean) ** 2 for value in column) / len(column) for column, mean in zip(columns, means, strict=True)
    ]
    return 1 / sum(variances) if sum(variances) > 0 else 0.0


def value(table, picked, weights, caps=None):
    """Return the weighted sum of every row's highest similarity with a pick, at least 0 and at most its cap."""
    caps = [math.inf] * len(table) if caps is None else caps
    return sum(
        weight * min(max([0.0, *(row[j] for j in picked)]), cap)
        for row, weight, cap in zip(table, weights, caps, strict=True)
    )


def saturated(table, picked, weights, saturation):
    """Return the weighted sum of every row's similarities with the picks, up to a share of those with all rows."""
    return sum(
        weight * min(sum(max(0.0, row[j]) for j in picked), saturation * sum(max(0.0, value) for value in row))
        for row, weight in zip(table, weights, strict=True)
    )


def greedy(objective, n, labeled, candidates):
    """Return n picks, each of which adds most to an objective of a list of rows, and what each adds."""
    picked, gains, left = [], [], sorted(candidates)
    for _ in range(n):
        before = objective([*labeled, *picked])
        added = {row: objective([*labeled, *picked, row]) - before for row in left}
        row = min(row for row in left if added[row] >= max(added.values()) - TIED)
        left.remove(row)
        picked.append(row)
        gains.append(added[row])
    return picked, gains


def is_clear(objective, picks, labeled, candidates):
    """Tell whether no gain that decided a pick was so near another that rounding, or `TIED`, may see it otherwise."""
    for i in range(len(picks)):
        known = [*labeled, *picks[:i]]
        added = [objective([*known, row]) - objective(known) for row in candidates if row not in picks[:i]]
        if any(1e-14 < max(added) - gain < 10 * TIED for gain in added):
            return False
    return True


def best(objective, n, labeled, candidates):
    """Return the most that any n candidates reach together with the labeled rows."""
    return max(objective([*labeled, *rows]) for rows in itertools.combinations(candidates, n))
