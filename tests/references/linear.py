"""Linear classifiers one problem at a time: the objective row by row, and Newton's method with the whole Hessian."""

import numpy as np


def columns(x, intercept):
    return x if intercept == "none" else np.c_[x, np.ones(len(x))]


def penalty(n_columns, intercept):
    return np.r_[np.ones(n_columns - 1), 0.0] if intercept == "free" else np.ones(n_columns)


def row_loss(logits, target, loss):
    """Return the loss of one row, and its first and second derivatives by the logits (K,)."""
    if loss == "softmax":
        logits = logits - logits @ target
        probs = np.exp(logits - np.logaddexp.reduce(logits))
        wrong = probs * (1 - target)  # what is left to 1 of the right one, with all its digits
        value = np.logaddexp(0, np.logaddexp.reduce(logits[target == 0]))
        return value, wrong - target * wrong.sum(), np.diag(probs) - np.outer(probs, probs)
    sign = 2 * target - 1
    if loss == "logistic":
        value = np.logaddexp(0, -sign * logits)
        right = np.exp(-value)
        wrong = np.exp(-np.logaddexp(0, sign * logits))
        return value[0], -sign * wrong, np.diag(right * wrong)
    missing = np.maximum(0, 1 - sign * logits)
    return missing[0] ** 2, -2 * sign * missing, np.diag(2.0 * (missing > 0))


def objective(x, targets, weights, theta, *, loss, intercept):
    """Return the weighted losses of rows (n, D), targets (n, K), plus half the penalised squares of theta."""
    value = 0.5 * (theta**2 @ penalty(theta.shape[1], intercept)).sum()
    for row, target, weight in zip(columns(x, intercept), targets, weights, strict=True):
        value += weight * row_loss(theta @ row, target, loss)[0]
    return value


def derivatives(x, targets, weights, theta, *, loss, intercept):
    """Return the gradient (K P,) and the Hessian (K P, K P); of the squared hinge a generalized one."""
    ridge = np.tile(penalty(theta.shape[1], intercept), len(theta))
    gradient, hessian = ridge * theta.ravel(), np.diag(ridge)
    for row, target, weight in zip(columns(x, intercept), targets, weights, strict=True):
        _, first, second = row_loss(theta @ row, target, loss)
        gradient += weight * np.multiply.outer(first, row).ravel()
        outer = np.multiply.outer(row, row)
        hessian += weight * np.multiply.outer(second, outer).swapaxes(1, 2).reshape(hessian.shape)
    return gradient, hessian


def solve(x, targets, weights, *, loss, intercept):
    """Return the parameters (K, P), P = D and the intercept where there is one, of the least objective."""
    settings = {"loss": loss, "intercept": intercept}
    n_outputs, n_columns = targets.shape[1], columns(x[:1], intercept).shape[1]
    # the optimum is indifferent to a shift of the rows where the intercept is free, a system of equations is not
    mean = x.mean(0) * (intercept == "free")
    x = x - mean
    theta = np.zeros((n_outputs, n_columns))
    value = objective(x, targets, weights, theta, **settings)
    n_full = 0
    for _ in range(1000):
        gradient, hessian = derivatives(x, targets, weights, theta, **settings)
        if loss == "softmax" and intercept == "free":  # a shift of all intercepts has no slope: give it a curvature
            shift = np.tile(np.eye(n_columns)[-1], n_outputs)
            hessian += np.outer(shift, shift) * hessian.diagonal().mean()
        scale = hessian.diagonal() ** -0.5
        step = -scale * np.linalg.solve(scale[:, None] * hessian * scale, scale * gradient)
        size, decrement, step = 1.0, -gradient @ step, step.reshape(theta.shape)
        reached = objective(x, targets, weights, theta + step, **settings)
        if decrement <= 1e-12 * value:  # too close for the objective's digits to judge
            n_full += 1
        else:
            while reached > value - 1e-4 * size * decrement:
                size /= 2
                reached = objective(x, targets, weights, theta + size * step, **settings)
        theta, value = theta + size * step, reached
        if n_full == 2:
            theta[:, -1] -= theta[:, : len(mean)] @ mean
            return theta
    raise AssertionError("the reference did not converge")
