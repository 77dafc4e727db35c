"""Expected gradient length by gradients, one label at a time."""

import math


def expected_gradient_length(probs, features, bias):
    inputs = [*features, 1.0] if bias else features
    total = []
    for label, chance in enumerate(probs):
        # the sum of the others, where 1 - p would be rounded
        residual = [p if c != label else -math.fsum(probs[:c] + probs[c + 1 :]) for c, p in enumerate(probs)]
        gradient = [r * x for r in residual for x in inputs]
        total.append(chance * math.hypot(*gradient))
    return math.fsum(total)
