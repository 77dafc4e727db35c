"""Uncertainty of one row at a time, from its definition."""

import math


def margin(values):
    if len(values) == 1:
        return -abs(values[0])
    first, second = sorted(values, reverse=True)[:2]
    return -(first - second)


def entropy(probs):
    return -sum(p * math.log(p) for p in probs if p > 0)


def least_confidence(probs):
    return 1 - max(probs)
