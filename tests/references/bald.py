"""Mutual information of one row's prediction and the posterior, from its definition."""

import math


def entropy(probs):
    return -math.fsum(p * math.log(p) for p in probs if p > 0)


def mean(members):
    return [math.fsum(column) / len(members) for column in zip(*members, strict=True)]


def bald(members):
    """members: K lists of C probabilities."""
    return entropy(mean(members)) - math.fsum(entropy(member) for member in members) / len(members)
