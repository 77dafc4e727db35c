"""Contrastive active learning, one row and one neighbour at a time."""

import math


def floored(probs, eps):
    raised = [max(p, eps) for p in probs]
    return [p / math.fsum(raised) for p in raised]


def divergence(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def contrastive(probs, neighbors, eps):
    """Return the scores, given the labeled neighbours of each row."""
    rows = [floored(p, eps) for p in probs]
    return [
        math.fsum(divergence(rows[j], row) for j in near) / len(near) for row, near in zip(rows, neighbors, strict=True)
    ]
