"""Quota filling, row by row."""

from fractions import Fraction


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
