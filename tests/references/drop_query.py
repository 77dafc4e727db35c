"""DropQuery: one mask at a time, and the chance that a label changes over all masks there are."""

import itertools

import numpy as np


def label(x, weight, bias):
    return int((np.asarray(weight) @ np.asarray(x) + bias).argmax())


def changes(x, weight, bias, kept, rate):
    """Tell whether the label of a row is another one when only some features are kept."""
    return label(np.where(kept, x, 0) / (1 - rate), weight, bias) != label(x, weight, bias)


def chance_of_change(x, weight, bias, rate):
    total = 0.0
    for kept in itertools.product([False, True], repeat=len(x)):
        chance = np.prod([1 - rate if k else rate for k in kept])
        total += chance * changes(x, weight, bias, kept, rate)
    return total
