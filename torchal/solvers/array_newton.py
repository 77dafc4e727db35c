"""`LinearSolver` for the problems of one trial on a CPU, on arrays.

The problems are small, and numpy has less to prepare for an operation than torch: of the time that torch takes for a
few hundred rows, the arithmetic is a tenth.

Axes: U problems on the same rows; K outputs of a problem; n rows; P columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
import torch

from torchal.solvers.array_losses import ARRAY_LOSSES, Array, ArrayCurvature
from torchal.solvers.linear_losses import Loss
from torchal.solvers.linear_rows import DenseRows
from torchal.solvers.preconditioner import (
    CG_STEPS,
    FLOAT32_RATIO,
    OWN_HESSIAN,
    PAST_KINKS,
    RAISED,
    ROUNDING,
    SURE,
    UNSOLVED,
    factor,
    whole_hessian_pays,
)

_PRECISIONS = ((np.float32, np.float32), (np.float64, np.float32), (np.float64, np.float64))


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Keep numpy's BLAS to one thread: on small matrices, those of a pool wait for each other longer than they work.

    The pool is the whole process', so that of several Python threads the last one puts it back.
    """
    from threadpoolctl import ThreadpoolController

    with _Blas.lock:
        if not _Blas.n_users:
            if _Blas.controller is None:
                _Blas.controller = ThreadpoolController().select(user_api="blas")
            _Blas.limit = _Blas.controller.limit(limits=1)
        _Blas.n_users += 1
    try:
        yield
    finally:
        with _Blas.lock:
            _Blas.n_users -= 1
            if not _Blas.n_users:
                _Blas.limit.restore_original_limits()


class _Blas:
    """Who has limited the threads of numpy's BLAS."""

    lock = Lock()
    controller: Any = None
    limit: Any = None
    n_users = 0


class ArraySolution:
    """Where the problems of one trial ended.

    Shapes:
        theta: (U, K, P). logits: (U, K, n). n_steps: (U,) int64. gap: (U,).
    """

    def __init__(self, theta: Array, logits: Array) -> None:
        self.theta, self.logits = theta.copy(), logits.copy()
        self.n_steps = np.zeros(len(theta), dtype=np.int64)
        self.gap = np.full(len(theta), np.inf)


class ArraySolver:
    """What `torchal.solvers.newton.LinearSolver` does, by the same steps.

    Args:
        rows: of one trial, on a CPU.
        penalty: (P,) of the columns.
        loss: as of `LinearSolver`.
        max_iter: most Newton steps of a problem.
    """

    def __init__(self, rows: DenseRows, penalty: Array, loss: Loss, max_iter: int) -> None:
        self._tensors = rows
        self._arrays = {
            np.float64: ArrayRows(rows.array(), np.float64),
            np.float32: ArrayRows(rows.array(), np.float32),
        }
        self._rows = self._arrays[np.float64]
        self._penalty = penalty
        self._loss = ARRAY_LOSSES[loss]
        self._max_iter = max_iter
        self._tol = 0.0  # of the solution under way
        self._precision = 0  # position in _PRECISIONS
        self._full: Array | None = None
        self._cg_steps = 0

    @np.errstate(all="ignore")  # numbers beyond a precision are looked for
    @_one_blas_thread()
    def solve(self, targets: Array, weights: Array, *, tol: float, starts: Sequence[Array]) -> ArraySolution:
        """Solve all problems, each from the best of some parameters.

        Shapes:
            targets: (U, K, n), or 1 in place of U. weights: (U, n). starts: (U, K, P) each.
        """
        self._tol = min(tol, 1.0)
        # where a whole Hessian paid in the last solution, another is made at once
        self._cg_steps = 0 if self._full is None else CG_STEPS * self._max_iter
        self._full = None
        theta = starts[0].copy()
        logits = self._times(theta)
        objective = self._objective(theta, logits, targets, weights)
        for other in starts[1:]:
            others = self._times(other)
            reached = self._objective(other, others, targets, weights)
            better = reached < objective
            theta[better], logits[better], objective[better] = other[better], others[better], reached[better]
        solved = ArraySolution(theta, logits)
        slots = np.arange(len(theta))
        for step in range(1, self._max_iter + 1):
            theta, logits, objective, gap, done = self._step(theta, logits, targets, weights, objective)
            last = step == self._max_iter or bool(done.all())
            ended = np.ones_like(done) if last else done
            if not ended.any():
                continue
            where = slots[ended]
            solved.theta[where], solved.logits[where] = theta[ended], logits[ended]
            solved.gap[where], solved.n_steps[where] = gap[ended], step
            if last:
                break
            left = ~done
            slots, theta, logits, objective = slots[left], theta[left], logits[left], objective[left]
            weights = weights[left]
            targets = targets if len(targets) == 1 else targets[left]
            self._full = None if self._full is None else self._full[left]
        if targets.shape[1] > 1:  # softmax is indifferent to a shift of all outputs
            solved.theta -= solved.theta.mean(1, keepdims=True)
        return solved

    def _times(self, theta: Array) -> Array:
        """(U, K, n) of (U, K, P)."""
        return self._rows.times(theta)

    def _objective(self, theta: Array, logits: Array, targets: Array, weights: Array) -> Array:
        losses = self._loss.value(logits, targets)
        found: Array = np.einsum("un,un->u", losses, weights) + 0.5 * (np.square(theta) @ self._penalty).sum(1)
        return found

    def _step(
        self, theta: Array, logits: Array, targets: Array, weights: Array, objective: Array
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Return parameters, logits and objective after a step, the gap before it, and which problems it ends."""
        slope, curvature = self._loss.derivatives(logits, targets, weights)
        gradient = self._rows.pull(slope) + theta * self._penalty
        while True:
            direction, is_solved, is_close = self._direction(curvature, gradient, objective)
            along = self._times(direction)
            bent = curvature.times(along.copy())
            decrement = -_dots(gradient, direction)
            gap = np.where(is_solved, decrement / 2 / objective, np.inf)
            gap[(gap < 0) & (gap > -ROUNDING)] = 0  # at the optimum, to the last digit
            fine_enough = bool(is_solved.all()) or not (is_close and self._precision == 1)
            # a preconditioner in float32 may not know of a direction that is flat beyond its digits
            if self._precision == 1 and (gap <= self._tol).any():
                residual = gradient + self._rows.pull(bent) + direction * self._penalty
                left = (np.square(residual) / self._least_curvature(curvature)).sum((1, 2)) / objective
                unsure = (gap <= self._tol) & ~(left <= SURE * self._tol)
                fine_enough = fine_enough and not unsure.any()
                gap = np.where(unsure, left, gap)
            if self._precision == 2 or (fine_enough and self._agrees(direction, along, bent, decrement, gap)):
                break
            self._precision += 1
            self._full = None
        size = np.ones_like(gap)
        unjudged = (gap >= 0) & (gap <= ROUNDING)
        while True:
            new_theta = theta + size[:, None, None] * direction
            new_logits = logits + size[:, None, None] * along
            reached = self._objective(new_theta, new_logits, targets, weights)
            good = (reached <= objective - 1e-4 * size * decrement) | unjudged
            size = np.where(good, size, size / 2)
            stuck = size < 1e-12  # no step goes down: the numbers are beyond float64
            if (good | stuck).all():
                break
        if stuck.any():
            new_theta[stuck], new_logits[stuck], reached[stuck] = theta[stuck], logits[stuck], objective[stuck]
        # the gap is that of the objective's second derivatives, which a kink ends
        kinked = self._loss.bends(logits, new_logits, targets, weights) & (gap > PAST_KINKS * self._tol)
        return new_theta, new_logits, reached, gap, (~(gap > self._tol) & ~kinked) | stuck

    def _agrees(self, direction: Array, along: Array, bent: Array, decrement: Array, gap: Array) -> bool:
        """Tell whether float32 was enough: a direction of conjugate gradients curves as much as it goes down."""
        curved = _dots(along, bent) + (np.square(direction) @ self._penalty).sum(1)
        off = np.abs(curved - decrement)
        good = (off <= 1e-2 * decrement) | (np.square(off / decrement) * gap <= self._tol**1.5)
        return bool(good.all())

    def _least_curvature(self, curvature: ArrayCurvature) -> Array:
        """Return how much the objective curves along each parameter at least, to be broadcast to (U, K, P)."""
        if (self._penalty > 0).all():
            return self._penalty
        free = curvature.diagonal().sum(2, keepdims=True).clip(min=1e-300)
        return np.where(self._penalty > 0, self._penalty, free)

    def _direction(self, curvature: ArrayCurvature, gradient: Array, objective: Array) -> tuple[Array, Array, bool]:
        """Solve Hessian times direction = -gradient by preconditioned conjugate gradients, closer near the optimum.

        Returns:
            The directions (U, K, P); which of them solve enough to tell how far the optimum is (U,); and whether the
            preconditioner is so close to the Hessian that all should.
        """
        fine, coarse = _PRECISIONS[self._precision]
        rows, curved_by, penalty = self._arrays[fine], curvature.astype(fine), self._penalty.astype(fine)
        precondition = self._preconditioner(curvature, coarse)
        scale = np.abs(gradient).max((1, 2)).clip(min=1e-300)
        left = (gradient / -scale[:, None, None]).astype(fine)
        along = precondition(left)
        # a vector for each problem is a view of what is whole
        found, size = np.zeros_like(left), _dots(left, along)
        begun = size
        # superlinear: a step near the optimum squares the distance; but no step need end far below what is asked
        first = size * np.square(scale)
        ratio = np.maximum(first / objective, self._tol**2 * objective / first)
        enough = size * ratio.clip(min=FLOAT32_RATIO, max=self._loss.forcing)
        done = ~(size > 0)
        for step in range(1, CG_STEPS + 1):
            product = rows.pull(curved_by.times(rows.times(along)))
            product += along * penalty
            curved = _dots(along, product)
            done |= ~(curved > 0)  # the gradient is zero, or the numbers are beyond this precision
            if step == 1 and done.any():
                found[done] = along[done]
            length = np.where(done, 0, size / curved).astype(fine)[:, None, None]
            found += length * along
            product *= length
            left -= product
            preconditioned = precondition(left)
            last, size = size, _dots(left, preconditioned)
            done |= size <= enough
            if done.all():
                break
            along *= (size / last).astype(fine)[:, None, None]
            along += preconditioned
        self._cg_steps += step
        is_close = self._full is not None or gradient.shape[1] == 1
        return found * scale[:, None, None], size <= UNSOLVED * begun, is_close

    def _preconditioner(self, curvature: ArrayCurvature, dtype: Any) -> Callable[[Array], Array]:
        """Return a function that about solves Hessians on the right of (U, K, P)."""
        rows: ArrayRows = self._arrays[dtype]
        penalty: Array = self._penalty.astype(dtype)
        diagonal: Array = curvature.diagonal().astype(dtype)
        n_problems, n_outputs, n_rows = diagonal.shape
        if whole_hessian_pays(self._cg_steps, n_rows, n_problems, n_outputs, rows.n_columns):
            tensors = self._tensors.to(torch.float32 if dtype == np.float32 else torch.float64)
            assert isinstance(tensors, DenseRows)
            whole = curvature.astype(dtype).as_torch().hessian(tensors)
            self._full = factor(whole, torch.from_numpy(penalty).repeat(n_outputs))[0].numpy()
            self._cg_steps = 0
        if self._full is not None:
            return _solver(self._full)
        means = diagonal.mean(1) if rows.n_columns <= OWN_HESSIAN else diagonal.mean((0, 1))[None]
        return _solver(_factor(rows.gram(means), penalty))


class ArrayRows:
    """Rows as an array (n, P) and its transpose, since products from the left are several times faster."""

    def __init__(self, x: Array, dtype: type) -> None:
        with np.errstate(over="ignore"):  # what float32 cannot hold leads to float64
            self._x: Array = np.ascontiguousarray(x, dtype=dtype)
        self._transposed = np.ascontiguousarray(self._x.T)
        self.n_columns = x.shape[1]

    def times(self, theta: Array) -> Array:
        """(U, K, n) of (U, K, P)."""
        product: Array = theta.reshape(-1, self.n_columns) @ self._transposed
        return product.reshape(*theta.shape[:2], -1)

    def pull(self, values: Array) -> Array:
        """(U, K, P) of (U, K, n)."""
        product: Array = values.reshape(-1, values.shape[2]) @ self._x
        return product.reshape(*values.shape[:2], -1)

    def gram(self, weights: Array) -> Array:
        """(V, P, P), the weighted sums of the rows' outer products, of weights (V, n)."""
        return np.stack([(self._transposed * each) @ self._x for each in weights])


def _factor(matrix: Array, penalty: Array) -> Array:
    """Return what `torchal.solvers.preconditioner.factor` does, of (V, P, P), which are overwritten."""
    if matrix.dtype == np.float32:
        whole = matrix.copy()
        corner = np.einsum("vpp->vp", whole)
        corner += penalty
        corner *= 1 + RAISED[torch.float32]
        roots, failed = torch.linalg.cholesky_ex(torch.from_numpy(whole))
        pivots = np.square(np.einsum("vpp->vp", roots.numpy()))
        if not failed.any() and (pivots >= RAISED[torch.float32] / 4 * corner).all():
            inverse: Array = torch.cholesky_inverse(roots).numpy()
            if np.isfinite(inverse).all():
                return inverse
    return factor(torch.from_numpy(matrix), torch.from_numpy(penalty)).numpy()  # which mends what can be mended


def _solver(factors: Array) -> Callable[[Array], Array]:
    """Return what solves on the right of (U, K, P), of factors (U, P, P), (U, K P, K P) or (1, P, P)."""

    def solve(residual: Array) -> Array:
        right = residual.astype(factors.dtype, copy=False).reshape(len(factors), -1, factors.shape[1])
        if factors.dtype == np.float32:
            solved: Array = right @ factors
        else:
            turned = torch.from_numpy(right).mT
            solved = torch.cholesky_solve(turned, torch.from_numpy(factors)).mT.numpy()
        return solved.astype(residual.dtype, copy=False).reshape(residual.shape)

    return solve


def _dots(one: Array, other: Array) -> Array:
    """Return the products of vectors, (U,), of (U, K, P)."""
    n_problems = len(one)
    products: Array = np.einsum("up,up->u", one.reshape(n_problems, -1), other.reshape(n_problems, -1))
    return products
