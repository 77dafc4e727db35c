"""GLISTER-ACTIVE one pick at a time, on gradients that are multiplied out."""

import numpy as np


def softmax(logits):
    """Return probabilities of rows."""
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def with_one(x):
    """Return rows with a 1 behind each, for the bias."""
    x = np.asarray(x, np.float64)
    return np.concatenate([x, np.ones((len(x), 1))], 1)


def gradients(x, labels, layer):
    """Return the gradient of each row's cross-entropy by the layer (C, D + 1), flat."""
    u = softmax(x @ layer.T) - np.eye(len(layer))[labels]
    return np.einsum("rc,rd->rcd", u, x).reshape(len(x), -1)


def validation_loss(x, labels, layer):
    """Return the mean cross-entropy."""
    return -np.log(softmax(x @ layer.T)[np.arange(len(x)), labels]).mean()


def greedy(x, n, layer, validation, labels, learning_rate, candidates):
    """Return the picks, and by how much each lowers the validation loss, to first order.

    Args:
        x: (N, D) rows of the pool.
        n: how many to pick.
        layer: (C, D + 1).
        validation: (M, D).
        labels: (M,).
        learning_rate: of each step.
        candidates: (N,) bool.
    """
    x, validation = with_one(x), with_one(validation)
    of_pool = gradients(x, (x @ layer.T).argmax(1), layer)  # at the first weights
    now = layer.copy()
    picks, gains = [], []
    for _ in range(n):
        of_loss = gradients(validation, labels, now).mean(0)
        left = [i for i, yes in enumerate(candidates) if yes and i not in picks]
        gain = learning_rate * of_pool[left] @ of_loss
        best = int((gain >= gain.max() - 1e-13).argmax())
        picks.append(left[best])
        gains.append(gain[best])
        now = now - learning_rate * of_pool[left[best]].reshape(layer.shape)
    return picks, gains
