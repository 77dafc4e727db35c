"""TypiClust as its loop: a pick at a time, from clusters that are given."""

import math


def typicality(features, rows, row, k):
    """Return the inverse of the mean distance from a row to its k nearest others among some rows."""
    distances = sorted(math.dist(features[row], features[other]) for other in rows if other != row)[:k]
    if not distances:
        return 0.0
    mean = sum(distances) / len(distances)
    return 1 / mean if mean else math.inf


def typical_rows(features, n, clusters, labeled, candidates, min_cluster_size, k):
    """Return n rows and their typicality."""
    rows = [row for row in range(len(features)) if labeled[row] or candidates[row]]
    members = {number: [row for row in rows if clusters[row] == number] for number in {clusters[row] for row in rows}}
    covered = {row for row in rows if labeled[row]}
    picked, scores = [], []
    for _ in range(n):
        left = {number: [row for row in some if row not in covered] for number, some in members.items()}

        def order(number):
            size = len(members[number])
            return size < min_cluster_size, len(covered & set(members[number])), -size, number

        number = min((number for number in members if left[number]), key=order)
        typical = {row: typicality(features, members[number], row, k) for row in left[number]}
        row = max(typical, key=lambda row: (typical[row], -row))
        picked.append(row)
        scores.append(typical[row])
        covered.add(row)
    return picked, scores
