"""D^2 sampling one draw at a time, and the exact distribution of its draws."""

import itertools

import numpy as np


def draws(features, n, weights):
    """Return the probability of each ordered set of n rows."""
    x, weights = np.asarray(features, np.float64), np.asarray(weights, np.float64)
    far = ((x[:, None] - x[None]) ** 2).sum(2)
    out = {}
    for rows in itertools.permutations(range(len(x)), n):
        chance, nearest = 1.0, np.ones(len(x))
        for step, row in enumerate(rows):
            mass = weights * nearest
            if not mass.sum():  # only copies are left: by weight, among those not drawn
                mass = weights * ~np.isin(np.arange(len(x)), rows[:step])
            chance *= mass[row] / mass.sum()
            nearest = far[row] if step == 0 else np.minimum(nearest, far[row])
        out[rows] = chance
    return out


def kmeans_plus_plus(features, n, rng):
    x = np.asarray(features, np.float64)
    picked = [int(rng.integers(len(x)))]
    nearest = ((x - x[picked[0]]) ** 2).sum(1)
    for _ in range(n - 1):
        picked.append(int(rng.choice(len(x), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, ((x - x[picked[-1]]) ** 2).sum(1))
    return picked, nearest.sum()


def lloyd(features, centers, steps):
    """Move the centres to the means of their rows; no cluster may lose all its rows."""
    x, centers = np.asarray(features, np.float64), np.array(centers, np.float64)
    for _ in range(steps):
        nearest = ((x[:, None] - centers[None]) ** 2).sum(2).argmin(1)
        centers = np.stack([x[nearest == c].mean(0) for c in range(len(centers))])
    far = ((x[:, None] - centers[None]) ** 2).sum(2)
    return centers, far.argmin(1), far.min(1).sum()
