"""The mixture of several samplers, row by row, and EXP3 with plain weights."""

import math


def mix(ask, weights, n):
    """Return a batch; ask(i, k) gives the k rows that member i wants."""
    batch, size = [], 0
    while len(batch) < n:
        size += n - len(batch)
        for i, weight in enumerate(weights):
            if weight > 0 and len(batch) < n:
                rows = [row for row in ask(i, min(max(int(weight * size), 1), n)) if row not in batch]
                batch += rows[: n - len(batch)]
    return batch


def exp3(n_arms, gamma, pulls):
    """Return the probabilities before each pull, and after the last, for pulls [(arm, reward), ...]."""
    weights, out = [1.0] * n_arms, []
    for arm, reward in [*pulls, (None, None)]:
        total = math.fsum(weights)
        out.append([(1 - gamma) * w / total + gamma / n_arms for w in weights])
        if arm is not None:
            weights[arm] *= math.exp(gamma * reward / out[-1][arm] / n_arms)
    return out
