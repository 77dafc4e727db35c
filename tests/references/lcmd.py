"""MaxDist and LCMD as the paper has them: all distances, and picks one by one."""

import numpy as np


def gradients(log_probs, features, bias):
    """Return (p - onehot(argmax p)) x h of each row, multiplied out."""
    p = np.exp(np.asarray(log_probs, np.float64))
    h = np.asarray(features, np.float64)
    h = np.hstack([h, np.ones((len(h), 1))]) if bias else h
    p[np.arange(len(p)), p.argmax(1)] -= 1
    return np.einsum("nc,nd->ncd", p, h).reshape(len(p), -1)


def sq_distances(x):
    x = np.asarray(x, np.float64)
    return np.square(x[:, None] - x).sum(2)


def start(x, labeled, candidates):
    """Return the first centres and the first picks."""
    centers = [row for row in range(len(x)) if labeled[row]]
    if centers:
        return centers, []
    norms = np.square(np.asarray(x, np.float64)).sum(1)
    first = max((row for row in range(len(x)) if candidates[row]), key=lambda row: (norms[row], -row))
    return [first], [first]


def max_dist(x, n, labeled, candidates):
    apart = sq_distances(x)
    centers, picked = start(x, labeled, candidates)
    while len(picked) < n:
        left = [row for row in range(len(x)) if candidates[row] and row not in picked]
        picked.append(max(left, key=lambda row: (min(apart[row, c] for c in centers), -row)))
        centers.append(picked[-1])
    return picked


def lcmd(x, n, labeled, candidates):
    apart = sq_distances(x)
    centers, picked = start(x, labeled, candidates)
    rows = [row for row in range(len(x)) if candidates[row]]
    while len(picked) < n:
        cluster = {row: min(range(len(centers)), key=lambda c: (apart[row, centers[c]], c)) for row in rows}
        far = {row: apart[row, centers[cluster[row]]] for row in rows}
        sizes = [sum(far[row] for row in rows if cluster[row] == c) for c in range(len(centers))]
        left = [row for row in rows if row not in picked and sizes[cluster[row]] == max(sizes)]
        picked.append(max(left, key=lambda row: (far[row], -row)))
        centers.append(picked[-1])
    return picked
