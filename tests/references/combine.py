"""The product of utilities, computed anew for every row and pick."""

import math


def distance(a, b, metric):
    if metric == "manhattan":
        return sum(abs(x - y) for x, y in zip(a, b, strict=True))
    if metric == "euclidean":
        return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / lengths


def from_mean(rows, metric):
    if metric == "cosine":
        lengths = [math.sqrt(sum(x * x for x in row)) for row in rows]
        rows = [[x / length for x in row] for row, length in zip(rows, lengths, strict=True)]
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    if metric == "cosine":
        return [distance(row, mean, "euclidean") ** 2 / 2 for row in rows]
    return [distance(row, mean, metric) for row in rows]


def values(picks, *, fixed, rows, diversity, probs, balance, target, counts, labeled, metric):
    """Return the value of each row, given the picks so far."""
    centers = [row for row, is_labeled in enumerate(labeled) if is_labeled] + picks
    found = list(fixed)
    if rows is not None:
        far = from_mean(rows, metric)
        for i, row in enumerate(rows):
            nearest = min(distance(row, rows[c], metric) for c in centers) if centers else far[i]
            found[i] *= nearest**diversity
    if probs is not None:
        so_far = [count + sum(probs[pick][c] for pick in picks) for c, count in enumerate(counts)]
        for i, p in enumerate(probs):
            wanted = sum(p[c] * target[c] / sum(target) / (1 + so_far[c]) for c in range(len(target)))
            found[i] *= wanted**balance
    return found


def combined_greedy(n, *, candidates, **made_of):
    picks, scores = [], []
    for _ in range(n):
        now = values(picks, **made_of)
        best = max((row for row in range(len(now)) if candidates[row] and row not in picks), key=lambda row: now[row])
        picks.append(best)
        scores.append(now[best])
    return picks, scores
