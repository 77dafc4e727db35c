"""Support vector machines by sequential minimal optimisation, two rows at a time.

Fan, Chen & Lin, "Working Set Selection Using Second Order Information for Training Support Vector Machines", JMLR 6,
2005, algorithms 1 and 2.
"""

import numpy as np


def objective(kernel, signs, alpha):
    signed = signs * alpha
    return signed @ kernel @ signed / 2 - alpha.sum()


def values(kernel, signs, alpha):
    """Return -s times the gradient: the bias that would put each row onto its margin."""
    return [signs[i] - sum(kernel[i, j] * signs[j] * alpha[j] for j in range(len(signs))) for i in range(len(signs))]


def may_go_up(signs, upper, alpha):
    """Return the rows whose s * alpha may become larger."""
    return [
        i for i in range(len(signs)) if (signs[i] == 1 and alpha[i] < upper[i]) or (signs[i] == -1 and alpha[i] > 0)
    ]


def may_go_down(signs, upper, alpha):
    return may_go_up(-signs, upper, alpha)


def extremes(kernel, signs, upper, alpha):
    """Return the largest value of rows that may go up, and the smallest of those that may go down."""
    value = values(kernel, signs, alpha)
    up, down = may_go_up(signs, upper, alpha), may_go_down(signs, upper, alpha)
    return max((value[i] for i in up), default=-np.inf), min((value[i] for i in down), default=np.inf)


def violation(kernel, signs, upper, alpha):
    most, least = extremes(kernel, signs, upper, alpha)
    return max(most - least, 0.0)


def bias(kernel, signs, upper, alpha):
    free = [v for v, a, u in zip(values(kernel, signs, alpha), alpha, upper, strict=True) if 0 < a < u]
    return sum(free) / len(free) if free else sum(extremes(kernel, signs, upper, alpha)) / 2


def smo(kernel, signs, upper, tol=1e-10, max_iter=200_000):
    """Return alpha (m,) of a problem whose rows have signs of 1 and -1."""
    n = len(signs)
    alpha, value = np.zeros(n), signs.astype(float)
    for _ in range(max_iter):
        up, down = may_go_up(signs, upper, alpha), may_go_down(signs, upper, alpha)
        if not up or not down or max(value[up]) - min(value[down]) <= tol:
            return alpha
        i = max(up, key=lambda t: value[t])
        curved = {t: max(kernel[i, i] + kernel[t, t] - 2 * kernel[i, t], 1e-12) for t in down if value[t] < value[i]}
        j = max(curved, key=lambda t: (value[i] - value[t]) ** 2 / curved[t])
        step = (value[i] - value[j]) / curved[j]
        room_i = upper[i] - alpha[i] if signs[i] == 1 else alpha[i]
        room_j = alpha[j] if signs[j] == 1 else upper[j] - alpha[j]
        step = min(step, room_i, room_j)
        alpha[i] += signs[i] * step
        alpha[j] -= signs[j] * step
        for row, room, down_bound in ((i, room_i, signs[i] == -1), (j, room_j, signs[j] == 1)):
            if step == room:  # exactly at its bound, without the rounding of the sum
                alpha[row] = 0.0 if down_bound else upper[row]
        value -= step * (kernel[i] - kernel[j])
    raise ArithmeticError(f"no solution after {max_iter} steps")
