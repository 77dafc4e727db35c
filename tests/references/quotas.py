"""Quota filling, row by row."""

from fractions import Fraction
from itertools import product


def fill_quotas(scores, groups, n, candidates):
    order = sorted((row for row in range(len(scores)) if candidates[row]), key=lambda row: (-scores[row], row))
    share = {group: Fraction(groups.count(group), len(groups)) for group in set(groups)}
    taken, picked = dict.fromkeys(share, 0), []
    for row in order:
        if len(picked) == n:
            break
        if Fraction(taken[groups[row]], n) < share[groups[row]]:
            taken[groups[row]] += 1
            picked.append(row)
    rest = [row for row in order if row not in picked]
    return picked + rest[: n - len(picked)]


def off_target(quotas, counts, shares):
    """Return the squared distance of the labels, with these picks, from the shares."""
    total = sum(counts) + sum(quotas)
    return sum(
        (q + c - Fraction(share, sum(shares)) * total) ** 2 for q, c, share in zip(quotas, counts, shares, strict=True)
    )


def least_off_target(n, available, counts, shares):
    """Return the least such distance of all quotas there are."""
    every = product(*(range(most + 1) for most in available))
    return min(off_target(quotas, counts, shares) for quotas in every if sum(quotas) == n)
