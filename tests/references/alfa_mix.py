"""ALFA-Mix one row, one anchor and one eps at a time."""

import numpy as np


def softmax(logits):
    e = np.exp(logits - logits.max())
    return e / e.sum()


def class_means(features, targets):
    seen = sorted({y for y in targets if y >= 0})
    members = [[x for x, t in zip(features, targets, strict=True) if t == y] for y in seen]
    return [np.mean(rows, axis=0).tolist() for rows in members]


def flips(z, weight, bias, anchors, eps):
    """Tell whether the label of one row z changes under the mix with some anchor."""
    z, weight, bias = np.asarray(z), np.asarray(weight), np.asarray(bias)
    logits = weight @ z + bias
    y = int(logits.argmax())
    wrong = softmax(logits)
    wrong[y] -= 1
    gradient = weight.T @ wrong
    for anchor in np.asarray(anchors):
        way = anchor - z
        alpha = np.zeros(len(z))
        moves = way != 0
        alpha[moves] = (
            eps / np.sqrt(len(z)) * np.linalg.norm(way) * gradient[moves] / np.linalg.norm(gradient) / way[moves]
        )
        mixed = (1 - alpha) * z + alpha * anchor
        if int((weight @ mixed + bias).argmax()) != y:
            return True
    return False


def wanted(flip_eps, candidates, n, eps, max_eps):
    """Return the rows that count as flipped, growing eps step by step."""
    grown = 0.0
    while True:
        grown += eps
        found = [row for row, limit in enumerate(flip_eps) if limit < grown]
        if sum(candidates[row] for row in found) >= n or grown >= max_eps - 1e-9:
            return found
