"""BatchBALD by the definition of the joint mutual information, one configuration of labels at a time."""

import math
from itertools import product


def joint_mutual_information(batch):
    """Return I(y_1, ..., y_n; draw) of rows given by their class probabilities under each draw, lists (n, K, C)."""
    n_draws, n_classes = len(batch[0]), len(batch[0][0])
    joint_entropy = 0.0
    for labels in product(range(n_classes), repeat=len(batch)):
        p = sum(math.prod(row[k][y] for row, y in zip(batch, labels, strict=True)) for k in range(n_draws)) / n_draws
        joint_entropy -= p * math.log(p) if p > 0 else 0.0
    given_draw = -sum(p * math.log(p) for row in batch for draw in row for p in draw if p > 0) / n_draws
    return joint_entropy - given_draw


def batch_bald(probs, n, candidates):
    """Return picks and gains of the greedy algorithm; the lowest row of those that differ by rounding."""
    picks, gains, reached = [], [], 0.0
    for _ in range(n):
        values = {
            row: joint_mutual_information([probs[i] for i in [*picks, row]]) for row in candidates if row not in picks
        }
        best = max(values.values())
        pick = min(row for row, value in values.items() if value >= best - 1e-12)
        picks.append(pick)
        gains.append(values[pick] - reached)
        reached = values[pick]
    return picks, gains
