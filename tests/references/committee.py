"""Disagreement of a committee on one row, from the definitions."""

import math

from tests.references.bald import entropy, mean


def consensus_kl(members):
    consensus = mean(members)
    divergences = [
        math.fsum(p * math.log(p / q) for p, q in zip(member, consensus, strict=True) if p > 0) for member in members
    ]
    return math.fsum(divergences) / len(members)


def votes(members):
    """How many members vote for each class; a vote goes to the first of the most probable classes."""
    counts = [0] * len(members[0])
    for member in members:
        counts[member.index(max(member))] += 1
    return counts


def vote_entropy(members):
    return entropy([count / len(members) for count in votes(members)])


def variation_ratio(members):
    return 1 - max(votes(members)) / len(members)
