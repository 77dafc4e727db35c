"""BADGE one draw at a time, on gradients that are multiplied out, and the exact distribution of its draws."""

import itertools

import numpy as np


def gradients(probs, features, *, bias=False):
    """Return the gradients by the last layer's weights (and bias), flat, one row each."""
    probs, h = np.asarray(probs, np.float64), np.asarray(features, np.float64)
    if bias:
        h = np.concatenate([h, np.ones((len(h), 1))], 1)
    out = []
    for p, x in zip(probs, h, strict=True):
        label = np.zeros(len(p))
        label[p.argmax()] = 1
        out.append(np.outer(p - label, x).flatten())
    return np.array(out)


def distances(rows):
    """Return the squared distances of all pairs."""
    return ((rows[:, None] - rows[None]) ** 2).sum(2)


def draws(rows, n, first="largest"):
    """Return the probability of each ordered set of n rows."""
    far, every = distances(rows), np.arange(len(rows))
    largest = (rows**2).sum(1).argmax()
    out = {}
    for picks in itertools.permutations(range(len(rows)), n):
        chance = 1 / len(rows) if first == "uniform" else float(picks[0] == largest)
        for step in range(1, n):
            mass = far[:, picks[:step]].min(1)
            if not mass.sum():  # only copies are left: any of those not drawn
                mass = (~np.isin(every, picks[:step])).astype(float)
            chance *= mass[picks[step]] / mass.sum()
        out[picks] = chance
    return out


def badge(rows, n, rng):
    """Return n draws, and what is left of the potential: the sum of all squared distances to the nearest draw."""
    picks = [int((rows**2).sum(1).argmax())]
    nearest = ((rows - rows[picks[0]]) ** 2).sum(1)
    for _ in range(n - 1):
        picks.append(int(rng.choice(len(rows), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, ((rows - rows[picks[-1]]) ** 2).sum(1))
    return picks, nearest.sum()
