"""Expected error reduction in plain loops, over all weights of the last layer at once."""

import numpy as np


def softmax(logits):
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


def loss_of(probs, loss):
    """Return the loss that is expected of one row's prediction."""
    if loss == "zero_one":
        return 1 - probs.max()
    return -sum(p * np.log(p) for p in probs if p > 0)


def by_refits(probs, refit, rows, pool, *, loss="log", leave_out=True):
    """Return minus the expected loss for each row; refit(row, label) gives probabilities (N, C)."""
    out = []
    for row in rows:
        others = [z for z in pool if not (leave_out and z == row)]
        total = 0.0
        for label, chance in enumerate(probs[row]):
            if chance > 0 and others:
                after = refit(row, label)
                total += chance * np.mean([loss_of(after[z], loss) for z in others])
        out.append(-total)
    return np.array(out)


class LastLayer:
    """The objective of a last layer, around weights that give these probabilities and are its optimum.

    The labeled rows are as if labeled with the probabilities themselves: at the optimum their gradient is that of their
    labels and of the penalty together, whatever these are.
    """

    def __init__(self, features, probs, labeled, *, l2=1.0, fit_intercept=True, whole=True):
        n_rows, self.n_classes = probs.shape
        self.h = np.hstack([features, np.ones((n_rows, 1))]) if fit_intercept else np.asarray(features)
        self.probs, self.labeled, self.whole = probs, np.flatnonzero(labeled), whole
        with np.errstate(divide="ignore"):
            self.logits = np.maximum(np.log(probs), -1e4)
        self.penalty = np.full(self.h.shape[1], l2 * (2 if self.n_classes == 2 else 1))
        if fit_intercept:
            self.penalty[-1] = 0

    def slope(self, weights):
        """Return the gradient of the old objective at a change of the weights (C, D)."""
        total = weights * self.penalty
        for i in self.labeled:
            total = total + np.outer(softmax(self.logits[i] + weights @ self.h[i]) - self.probs[i], self.h[i])
        return total

    def curvature(self, probs):
        """Return the second derivative of a row's loss by its logits."""
        full = np.diag(probs) - np.outer(probs, probs)
        return full if self.whole else np.trace(full) / (self.n_classes - 1) * np.eye(self.n_classes)

    def hessian(self):
        """Return the second derivative of the old objective, (C D, C D)."""
        total = np.diag(np.tile(self.penalty, self.n_classes)) + 1e-10 * np.eye(self.n_classes * len(self.penalty))
        for i in self.labeled:
            total += np.kron(self.curvature(self.probs[i]), np.outer(self.h[i], self.h[i]))
        return total

    def own_slope(self, weights, row, label):
        """Return the gradient of the added row's loss."""
        error = softmax(self.logits[row] + weights @ self.h[row]) - np.eye(self.n_classes)[label]
        return np.outer(error, self.h[row])

    def proximal(self, hessian, center, row, label):
        """Return the least of (w - center)' H (w - center) / 2 plus the added row's loss, by damped Newton steps."""

        def value(w):
            logits = self.logits[row] + w @ self.h[row]
            top = logits.max()
            log_sum = top + np.log(np.exp(logits - top).sum())
            away = (w - center).ravel()
            return away @ hessian @ away / 2 + log_sum - logits[label]

        w = center
        for _ in range(100):
            probs = softmax(self.logits[row] + w @ self.h[row])
            bent = np.diag(probs) - np.outer(probs, probs)
            slope = (hessian @ (w - center).ravel()).reshape(w.shape) + self.own_slope(w, row, label)
            system = hessian + np.kron(bent, np.outer(self.h[row], self.h[row]))
            step = -np.linalg.solve(system, slope.ravel()).reshape(w.shape)
            size = 1.0
            while size > 1e-12 and value(w + size * step) > value(w):
                size /= 2
            w = w + size * step
            if np.abs(step).max() < 1e-12:
                break
        return w

    def refit(self, row, label, n_steps):
        """Return the probabilities (N, C) of all rows after n_steps with one row added."""
        hessian = self.hessian()
        w = np.zeros((self.n_classes, self.h.shape[1]))
        for _ in range(n_steps):
            center = w - np.linalg.solve(hessian, self.slope(w).ravel()).reshape(w.shape)
            step = self.proximal(hessian, center, row, label) - w
            first = ((self.slope(w) + self.own_slope(w, row, label)) * step).sum()
            last = ((self.slope(w + step) + self.own_slope(w + step, row, label)) * step).sum()
            w = w + (first / (first - last) if last > 0 > first else 1.0) * step
        return softmax(self.logits + self.h @ w.T)


def expected_error_reduction(
    features, probs, labeled, rows, pool, *, n_steps=2, loss="log", leave_out=True, **settings
):
    layer = LastLayer(features, probs, labeled, **settings)
    return by_refits(
        probs, lambda row, label: layer.refit(row, label, n_steps), rows, pool, loss=loss, leave_out=leave_out
    )
