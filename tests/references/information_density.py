"""Information density, pair by pair."""

import math


def similarity(a, b, kind, gamma):
    if kind == "cosine":
        lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0
    sq_distance = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return math.exp(-gamma * sq_distance) if kind == "rbf" else 1 / (1 + math.sqrt(sq_distance))


def default_gamma(rows):
    n = len(rows)
    means = [sum(column) / n for column in zip(*rows, strict=True)]
    variance = sum((x - mean) ** 2 for row in rows for x, mean in zip(row, means, strict=True)) / n
    return 1 / variance if variance > 0 else 1.0


def information_density(rows, among, kind, gamma=None):
    pool = [row for row, inside in zip(rows, among, strict=True) if inside]
    gamma = default_gamma(pool) if gamma is None else gamma
    return [sum(similarity(row, other, kind, gamma) for other in pool) / len(pool) for row in rows]
