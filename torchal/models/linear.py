"""Logistic regression by Newton's method, to scikit-learn's optimum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from torchal.errors import ConfigError
from torchal.models.base import Array, DirectClassifier, TrainingData

_CG_STEPS = 250  # of one Newton step; a direction cut short is still downhill
_ROUNDING = 1e-12  # relative gain below which the objective's last digits cannot judge a step


class LogisticRegression(DirectClassifier):
    """Fit a multinomial logistic regression with an L2 penalty, by Newton's method in float64.

    The objective is scikit-learn's: C times the weighted sum of the rows' log-losses, plus half the squared weights;
    the intercept is not penalised. Two classes have one weight vector. (A softmax over two at C is this at 2C.) Rows of
    more than one axis are flattened.

    Convergence is judged by the Newton decrement, the gradient's length in the metric of the inverse Hessian: half its
    square is the distance to the least objective, whatever the features' scales.

    Args:
        C: inverse strength of the penalty.
        fit_intercept: whether each class has an intercept.
        tol: distance to the least objective, relative to the objective, at which to take the last step, which ends
            well below it.
        max_iter: most Newton steps.
        device: "auto" (that of a CUDA tensor, else CUDA, else CPU), or a torch device.

    Outputs are float64 whatever the dtype of the inputs, so that close margins keep their order.

    Attributes:
        module_: nn.Linear in float64, with one output for two classes, else C.
        coef_: (1 or C, D) its weights as an array.
        intercept_: (1 or C,) its intercepts; zeros without.
        n_iter_: (1,) Newton steps taken.
        classes_: (C,) labels in the order of the columns.

    Reference:
        The inexact Newton method of Nocedal & Wright, "Numerical Optimization", 2nd ed., algorithm 7.1, with
        conjugate gradients preconditioned by the mean of the classes' own Hessians.

    Complexity:
        A Newton step is O(n D^2 + D^3) and, for each of its conjugate-gradient steps, O(n D C); O(n (C + D) + D^2)
        memory. With fewer rows than features D is n, after one QR factorisation.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = LogisticRegression().fit(x, torch.tensor([3, 3, 7, 7]))
        >>> model.predict(x)
        tensor([3, 3, 7, 7])
        >>> model.coef_.round(4)
        array([[1.0066]])
    """

    flattens = True

    def __init__(
        self,
        *,
        C: float = 1.0,
        fit_intercept: bool = True,
        tol: float = 1e-10,
        max_iter: int = 100,
        device: str | torch.device = "auto",
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    @property
    def coef_(self) -> Array:
        """(1 or C, D) the weights as an array."""
        return _as_array(self.module_.weight)

    @property
    def intercept_(self) -> Array:
        """(1 or C,) the intercepts as an array."""
        bias = self.module_.bias
        return np.zeros(len(self.coef_)) if bias is None else _as_array(bias)

    def _fit(self, data: TrainingData) -> nn.Module:
        if not isinstance(self.C, Real) or not 0 < self.C < float("inf"):
            raise ConfigError(f"C must be above 0 and finite, got {self.C!r}")
        if not self.tol >= 0 or self.max_iter < 1:
            raise ConfigError(f"tol must be at least 0 and max_iter at least 1, got {self.tol!r} and {self.max_iter!r}")
        x = data.inputs.double()
        fitted = newton_logistic(
            x,
            nn.functional.one_hot(data.codes, data.n_classes).double()[:, int(data.n_classes == 2) :],
            x.new_ones(len(x)) if data.weights is None else data.weights,
            C=self.C,
            fit_intercept=self.fit_intercept,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        self.n_iter_ = np.array([fitted.n_steps], dtype=np.int32)
        if not 0 <= fitted.gap <= self.tol:
            warnings.warn(
                f"LogisticRegression did not converge in {fitted.n_steps} of at most {self.max_iter} Newton steps: the "
                f"objective is about {fitted.gap:.1e} of itself above the least, tol is {self.tol:.1e}. Increase "
                "max_iter or tol, lower C, or bring the features to a common scale.",
                ConvergenceWarning,
                stacklevel=3,
            )
        # made without numbers: nn.Linear would draw its first weights from the global generator
        n_outputs, n_inputs = fitted.coef.shape
        linear = nn.Linear(n_inputs, n_outputs, bias=self.fit_intercept, device="meta")
        linear.weight = nn.Parameter(fitted.coef)
        if self.fit_intercept:
            linear.bias = nn.Parameter(fitted.intercept)
        return linear

    def _logits(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.module_(rows.double())
        return logits


class NewtonFit(NamedTuple):
    """The answer of `newton_logistic`.

    Shapes:
        coef: (K, D) float64.
        intercept: (K,) float64.
    """

    coef: Tensor
    intercept: Tensor
    n_steps: int
    gap: float
    """Estimated distance to the least objective before the last step, relative to the objective."""


@torch.no_grad()
def newton_logistic(
    x: Tensor, targets: Tensor, weights: Tensor, *, C: float, fit_intercept: bool, tol: float, max_iter: int
) -> NewtonFit:
    """Minimise C times the weighted sum of log-losses plus half the squared coefficients.

    Shapes:
        x: (n, D) float64.
        targets: (n, K) float64, one-hot over K > 2 classes; of two classes the second's column alone, K = 1.
        weights: (n,) float64, positive.

    Returns:
        Coefficients, intercepts (zeros without), the steps taken and how far from the least objective.
    """
    n, n_outputs = targets.shape
    weights = weights * C
    # An unpenalised intercept makes the optimum indifferent to a shift: centred features are better conditioned. Rows
    # that span fewer dimensions than they have need no more than those: the optimum lies in their span.
    mean = (weights @ x) / weights.sum() if fit_intercept else torch.zeros_like(x[0])
    x = x - mean
    basis = None
    if n < x.shape[1]:
        basis, upper = torch.linalg.qr(x.T)
        x = upper.T.contiguous()
    penalty = x.new_ones(x.shape[1] + int(fit_intercept))
    if fit_intercept:
        x = torch.cat([x, x.new_ones(n, 1)], 1)
        penalty[-1] = 0
    theta, n_steps, gap = _minimise(x, targets, weights, penalty, tol=tol, max_iter=max_iter)
    coef = theta[:, : len(penalty) - int(fit_intercept)]
    coef = coef if basis is None else coef @ basis.T
    intercept = theta[:, -1] - coef @ mean if fit_intercept else theta.new_zeros(n_outputs)
    return NewtonFit(coef, intercept, n_steps, gap)


def _minimise(
    x: Tensor, targets: Tensor, weights: Tensor, penalty: Tensor, *, tol: float, max_iter: int
) -> tuple[Tensor, int, float]:
    """Run damped Newton steps from zero; return parameters (K, D), steps and the relative gap before the last one."""
    theta = x.new_zeros(targets.shape[1], x.shape[1])
    logits = x.new_zeros(targets.shape)
    objective = float(_objective(logits, targets, weights, theta, penalty))
    gap = float("inf")
    for step in range(1, max_iter + 1):
        probs = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
        weighted = probs * weights.unsqueeze(1)
        gradient = (weighted - targets * weights.unsqueeze(1)).T @ x + theta * penalty
        direction = _newton_direction(
            x, probs, weighted, gradient=gradient, penalty=penalty, objective=objective, tol=tol
        )
        decrement = -float((gradient * direction).sum())
        gap = decrement / 2 / objective
        along = x @ direction.T
        size = 1.0
        while True:
            new_theta, new_logits = theta + size * direction, logits + size * along
            new_objective = float(_objective(new_logits, targets, weights, new_theta, penalty))
            if new_objective <= objective - 1e-4 * size * decrement or 0 <= gap <= _ROUNDING:
                break
            size /= 2
            if size < 1e-12:  # no step goes down: the numbers are beyond float64
                return theta, step, gap
        theta, logits, objective = new_theta, new_logits, new_objective
        if gap <= tol:
            break
    return theta, step, gap


def _objective(logits: Tensor, targets: Tensor, weights: Tensor, theta: Tensor, penalty: Tensor) -> Tensor:
    normaliser = nn.functional.softplus(logits[:, 0]) if logits.shape[1] == 1 else logits.logsumexp(1)
    return weights @ (normaliser - (logits * targets).sum(1)) + 0.5 * (theta.square() @ penalty).sum()


def _newton_direction(
    x: Tensor, probs: Tensor, weighted: Tensor, *, gradient: Tensor, penalty: Tensor, objective: float, tol: float
) -> Tensor:
    """Solve Hessian times direction = -gradient by preconditioned conjugate gradients, closer near the optimum.

    The preconditioner is one D x D matrix for all classes: the mean of the Hessian's diagonal blocks. For two classes
    it is the Hessian itself.
    """
    solve = _preconditioner(x, (weighted * (1 - probs)).mean(1), penalty)
    direction = torch.zeros_like(gradient)
    residual = -gradient
    conjugate = preconditioned = solve(residual)
    size = first = float((residual * preconditioned).sum())
    # superlinear: a step near the optimum squares the distance; but no step need end far below what is asked
    enough = first * min(0.1, max(first / objective, 0.1 * tol * objective / first)) if first > 0 else 0.0
    for cg_step in range(_CG_STEPS):
        along = x @ conjugate.T
        along = weighted * (along - (probs * along).sum(1, keepdim=True))
        hessian_conjugate = along.T @ x + conjugate * penalty
        curvature = float((conjugate * hessian_conjugate).sum())
        if not curvature > 0:  # the gradient is zero, or the numbers are beyond float64
            return direction if cg_step else conjugate
        direction = direction + conjugate * (size / curvature)
        residual = residual - hessian_conjugate * (size / curvature)
        preconditioned = solve(residual)
        last, size = size, float((residual * preconditioned).sum())
        if size <= enough:
            break
        conjugate = preconditioned + conjugate * (size / last)
    return direction


def _preconditioner(x: Tensor, weights: Tensor, penalty: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that solves (x^T diag(weights) x + diag(penalty)) on the right of (K, D)."""
    matrix = (x * weights.unsqueeze(1)).T @ x
    diagonal = matrix.diagonal()
    diagonal.add_(penalty)
    # collinear columns of a large scale leave float64 no positive definite matrix; conjugate gradients mend the rest
    diagonal.mul_(1 + 1e-10).clamp_(min=1e-30)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    usable = (failed == 0) & torch.isfinite(factor).all()  # infinite numbers would answer 0, which looks converged
    factor = torch.where(usable, factor, torch.nan)
    return lambda rows: torch.cholesky_solve(rows.T, factor).T


def _as_array(parameter: Any) -> Array:
    array: Array = parameter.detach().cpu().numpy()
    return array
