"""Weights of stochastic batches, and the exact distribution of draws by them."""

import itertools
import math


def power_weights(scores, beta):
    return [score**beta for score in scores]


def softmax_weights(scores, beta):
    return [math.exp(beta * score) for score in scores]


def softrank_weights(scores, beta):
    """Equal scores share the mean of the ranks that they take up."""
    weights = []
    for score in scores:
        higher = sum(other > score for other in scores)
        equal = sum(other == score for other in scores)
        ranks = range(higher + 1, higher + equal + 1)
        weights.append((sum(ranks) / equal) ** -beta)
    return weights


def draws(weights, n):
    """Return the probability of each ordered set of n rows; rows of weight 0 come last, in random order."""
    out = {}
    for rows in itertools.permutations(range(len(weights)), n):
        chance, left = 1.0, set(range(len(weights)))
        for row in rows:
            mass = {other: weights[other] for other in left}
            if not any(mass.values()):
                mass = dict.fromkeys(left, 1.0)
            chance *= mass[row] / sum(mass.values())
            left.remove(row)
        out[rows] = chance
    return out
