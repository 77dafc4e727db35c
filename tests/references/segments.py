"""Scores of groups, one group after another."""

import math


def groups_of(ids):
    """Return the rows of each group, in the order in which groups first come."""
    rows = {}
    for row, name in enumerate(ids):
        rows.setdefault(name, []).append(row)
    return rows


def aggregate(scores, ids, how, k, candidates):
    out = {}
    for name, rows in groups_of(ids).items():
        values = sorted((scores[row] for row in rows if candidates[row]), reverse=True)
        if how == "top_k":
            values = values[:k]
        if not values:
            out[name] = -math.inf
        elif how == "max":
            out[name] = values[0]
        else:
            out[name] = sum(values) / (1 if how == "sum" else len(values))
    return out


def top_of_groups(scores, ids, n, how, k, per_group, candidates):
    value = aggregate(scores, ids, how, k, candidates)
    groups = groups_of(ids)
    names = sorted(groups, key=lambda name: -value[name])  # stable: equal ones as they come
    left = {name: sorted((r for r in groups[name] if candidates[r]), key=lambda r: -scores[r]) for name in names}
    picked = []
    while len(picked) < n:
        for name in names:
            take = len(left[name]) if per_group is None else per_group
            picked += left[name][:take]
            left[name] = left[name][take:]
    return picked[:n]
