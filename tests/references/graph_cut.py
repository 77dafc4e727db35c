"""Graph cut by its definition, from the matrix of all similarities."""

import numpy as np


def similarities(x, similarity="shifted_cosine"):
    """Return the similarity of all pairs of rows."""
    x = np.asarray(x, np.float64)
    x = x / np.sqrt((x**2).sum(1, keepdims=True))
    cosines = x @ x.T
    return cosines if similarity == "cosine" else (1 + cosines) / 2


def value(s, rows, redundancy):
    """Return f(S): what S is like all rows, less what it is like itself."""
    rows = list(rows)
    return s[:, rows].sum() - redundancy * s[np.ix_(rows, rows)].sum()


def greedy(s, n, redundancy, labeled, candidates):
    """Return the picks, each the lowest of those that raise f the most, and by how much they do."""
    chosen = [i for i, yes in enumerate(labeled) if yes]
    picks, gains = [], []
    for _ in range(n):
        left = [i for i, yes in enumerate(candidates) if yes and i not in picks]
        now = value(s, chosen + picks, redundancy)
        after = np.array([value(s, [*chosen, *picks, i], redundancy) - now for i in left])
        best = int((after >= after.max() - 1e-9).argmax())
        picks.append(left[best])
        gains.append(after[best])
    return picks, gains
