"""Expected predictive information gain of one row at a time, from its definition."""

import math
from itertools import product


def mutual_information(probs, other_probs):
    """Return I(y; z) of two rows given by their class probabilities under each draw, lists (K, C)."""
    n_draws = len(probs)
    total = 0.0
    for y, z in product(range(len(probs[0])), range(len(other_probs[0]))):
        p = sum(draw[y] for draw in probs) / n_draws
        q = sum(draw[z] for draw in other_probs) / n_draws
        joint = sum(here[y] * there[z] for here, there in zip(probs, other_probs, strict=True)) / n_draws
        if joint > 0:
            total += joint * math.log(joint / (p * q))
    return total


def epig_of_targets(probs):
    """Return the mean over all other rows for each row, given (M, K, C) nested lists; 0 for a single row."""
    others = [[other for other in probs if other is not row] for row in probs]
    return [epig([row], targets)[0] if targets else 0.0 for row, targets in zip(probs, others, strict=True)]


def epig(pool_probs, target_probs):
    """Return the mean over targets for each row, given (N, K, C) and (M, K, C) nested lists."""
    return [sum(mutual_information(row, target) for target in target_probs) / len(target_probs) for row in pool_probs]
