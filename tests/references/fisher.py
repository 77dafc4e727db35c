"""BAIT with whole matrices (C D) x (C D), inverted anew for every row that might be picked."""

import numpy as np


def fisher(p, h, form="exact"):
    """Return the Fisher matrix of the last layer at one row: the expected outer product of the gradient."""
    if form == "binary":
        best = max(p)
        return best * (1 - best) * np.outer(h, h)
    total = np.zeros((len(p) * len(h), len(p) * len(h)))
    for label in range(len(p)):
        gradient = np.concatenate([((label == c) - p[c]) * h for c in range(len(p))])
        total += p[label] * np.outer(gradient, gradient)
    if form == "block_diagonal":
        total *= np.kron(np.eye(len(p)), np.ones((len(h), len(h))))
    return total


def objective(fishers, rows, *, n, labeled, regularization):
    """Return tr(M^-1 F), where M has some picks of n that are to be made."""
    n_labeled = int(np.sum(labeled))
    matrix = regularization * np.eye(fishers.shape[1])
    for row in np.flatnonzero(labeled):
        matrix += fishers[row] / (n_labeled + n)
    for row in rows:
        matrix += fishers[row] * n / (n_labeled + n)
    return np.trace(np.linalg.inv(matrix) @ fishers.mean(0))


def bait(probs, features, n, *, labeled=None, candidates=None, regularization=1.0, oversampling=2, form="exact"):
    """Return the rows and how much each lowered the objective; sums that agree to nine digits count as equal."""
    probs, features = np.asarray(probs, np.float64), np.asarray(features, np.float64)
    labeled = np.zeros(len(probs), bool) if labeled is None else np.asarray(labeled)
    candidates = np.flatnonzero(~labeled if candidates is None else candidates).tolist()
    fishers = np.stack([fisher(p, h, form) for p, h in zip(probs, features, strict=True)])
    settings = {"n": n, "labeled": labeled, "regularization": regularization}
    picks, gains = [], []
    for _ in range(min(oversampling * n, len(candidates))):
        now = objective(fishers, picks, **settings)
        gain = {row: now - objective(fishers, [*picks, row], **settings) for row in candidates if row not in picks}
        best = max(gain.values())
        row = next(row for row in gain if gain[row] >= best - 1e-9 * abs(best) - 1e-13 * now)
        picks.append(row)
        gains.append(gain[row])
    while len(picks) > n:
        now = objective(fishers, picks, **settings)
        losses = [objective(fishers, [p for p in picks if p != row], **settings) - now for row in picks]
        least = min(losses)
        last = max(i for i, loss in enumerate(losses) if loss <= least + 1e-9 * abs(least) + 1e-13 * now)
        del picks[last], gains[last]
    return picks, gains
