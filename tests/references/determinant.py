"""Greedy maximum determinant, one determinant for each row and pick."""

import numpy as np


def kernel_matrix(x, kernel="cosine"):
    """Return k of all pairs of rows; linear: divided by its mean k(x, x)."""
    x = np.asarray(x, np.float64)
    if kernel == "cosine":
        x = x / np.sqrt((x**2).sum(1, keepdims=True))
        k = x @ x.T
        np.fill_diagonal(k, 1)
        return k
    return scaled(x @ x.T)


def scaled(k):
    """Return a kernel matrix divided by the mean of its diagonal, unless that is 0."""
    return k / (np.diag(k).mean() or 1.0)


def log_det(k, rows, ridge):
    """Return the logarithm of the determinant of the kernel matrix of some rows, the ridge on its diagonal."""
    return np.linalg.slogdet(k[np.ix_(rows, rows)] + ridge * np.eye(len(rows)))[1] if rows else 0.0


def greedy(k, n, ridge, labeled, candidates):
    """Return the picks, each the lowest of those that raise the determinant the most, and by how much they do."""
    known = [i for i, yes in enumerate(labeled) if yes]
    picks, gains = [], []
    for _ in range(n):
        now = log_det(k, known + picks, ridge)
        left = [i for i, yes in enumerate(candidates) if yes and i not in picks]
        after = np.array([log_det(k, [*known, *picks, i], ridge) - now for i in left])
        best = int((after >= after.max() - 1e-12).argmax())
        picks.append(left[best])
        gains.append(after[best])
    return picks, gains
