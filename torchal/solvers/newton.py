"""Linear classifiers fitted to their optimum by Newton's method, many problems on the same rows at once.

Axes: T trials, each with rows of its own; U problems of a trial, as folds or classes, on the same rows with other
weights or targets; K outputs of a problem; n rows; P columns, which are the features and, where there is one, the
intercept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from torchal.solvers.array_newton import ArraySolver
from torchal.solvers.linear_losses import LOSSES, Curvature, Loss
from torchal.solvers.linear_rows import DenseRows, Intercept, Rows, SparseRows
from torchal.solvers.preconditioner import (
    CG_STEPS,
    FLOAT32_RATIO,
    GRAM_COLUMNS,
    OWN_HESSIAN,
    PAST_KINKS,
    ROUNDING,
    SURE,
    UNSOLVED,
    factor,
    whole_hessian_pays,
)

_PRECISIONS = (
    (torch.float32, torch.float32),  # of conjugate gradients, and of their preconditioner
    (torch.float64, torch.float32),
    (torch.float64, torch.float64),
)
_ARRAY_PRODUCT = 2**22  # multiply-adds up to which numpy has less to prepare than torch is faster


class LinearSolution(NamedTuple):
    """What `LinearSolver.solve` found.

    Shapes:
        theta: (T, U, K, P) float64, in the solver's own columns.
        logits: (T, n, U, K) float64 of all rows, those of weight 0 too.
        n_steps: (T, U) int64, Newton steps taken.
        gap: (T, U) float64, estimated distance to the least objective before the last step, relative to the objective.
    """

    theta: Tensor
    logits: Tensor
    n_steps: Tensor
    gap: Tensor


class LinearSolver:
    """Minimises the weighted sum of losses plus half the squared coefficients, for many problems on the same rows.

    Args:
        x: the rows.
        loss: "softmax" over K > 2 outputs, or "logistic" or "squared_hinge" of one output.
        intercept: "none"; "free", which is not penalised; or "penalized" like a coefficient.
        max_iter: most Newton steps of a problem.

    Shapes:
        x: (T, n, D) float64, or a sparse CSR matrix (n, D) float64, which is T = 1.

    Reference:
        The inexact Newton method of Nocedal & Wright, "Numerical Optimization", 2nd ed., algorithm 7.1, with
        conjugate gradients preconditioned by Hessians that leave out what couples the outputs, or by whole ones once
        the steps without have cost as much as one.

    Complexity:
        A Newton step is O(n P^2 + P^3) for each problem up to 128 columns, for all of them together up to 4 096, and
        for each of its conjugate-gradient steps O(n P K U). With more columns, or a sparse matrix, whose non-zeros
        stand for n P, the preconditioner is a diagonal and nothing is O(P^2). A whole Hessian is O(n K^2 P^2 + K^3 P^3)
        and made only where all of them have at most 2^26 numbers.
    """

    def __init__(self, x: Tensor, *, loss: Loss, intercept: Intercept, max_iter: int) -> None:
        self._rows: Rows = DenseRows(x, intercept) if x.layout == torch.strided else SparseRows(x, intercept)
        self._loss = LOSSES[loss]
        self._penalty = x.new_ones(self._rows.n_columns, layout=torch.strided)
        if intercept == "free":
            self._penalty[-1] = 0
        self._tol = 0.0  # of the solution under way
        self._max_iter = max_iter
        # Directions need not be exact: float32 is enough for them, until it is seen not to be.
        self._coarse = self._rows.to(torch.float32)
        # a diagonal may be far from the Hessian, and is all that there is room for
        self._is_diagonal = not isinstance(self._rows, DenseRows) or self._rows.n_columns > GRAM_COLUMNS
        self._precision = 0  # position in _PRECISIONS
        self._full: Tensor | None = None
        self._cg_steps = 0
        self._arrays: ArraySolver | None = None  # made where it is used: it copies the rows
        self._may_use_arrays = len(x) == 1 and x.device.type == "cpu" and not self._is_diagonal
        self._loss_name: Loss = loss

    @torch.no_grad()
    def solve(self, targets: Tensor, weights: Tensor, *, tol: float, starts: Sequence[Tensor] = ()) -> LinearSolution:
        """Solve all problems, each from the best of some parameters, or from zero where none are given.

        Args:
            targets: one-hot, or 0 and 1 for K = 1.
            weights: not negative: the rows' weights times what is weighed against the penalty.
            tol: distance to the least objective, relative to the objective, at which to take the last step.
            starts: parameters of other solutions by this solver.

        Shapes:
            targets: (T, n, U, K) float64, or 1 in place of U.
            weights: (T, n, U) float64.
            starts: (T, U, K, P) float64 each.
        """
        n_trials, n_rows, n_problems = weights.shape
        if not starts:
            starts = (weights.new_zeros(n_trials, n_problems, targets.shape[3], self._rows.n_columns),)
        if self._may_use_arrays and n_rows * starts[0].numel() <= _ARRAY_PRODUCT:
            if self._arrays is None:
                assert isinstance(self._rows, DenseRows)
                self._arrays = ArraySolver(self._rows, self._penalty.numpy(), self._loss_name, self._max_iter)
            return _solve_on_arrays(self._arrays, targets, weights, tol=tol, starts=starts)
        self._tol = min(tol, 1.0)
        # where a whole Hessian paid in the last solution, another is made at once
        self._cg_steps = 0 if self._full is None else CG_STEPS * self._max_iter
        self._full = None
        now, objective = None, weights.new_zeros(0)
        for theta in starts:
            other = _State(theta, self._logits(self._rows, theta), targets, weights)
            reached = self._objective(other, other.theta, other.logits)
            if now is None:
                now, objective = other, reached
            else:
                now = other.where(reached < objective, now)
                objective = torch.minimum(reached, objective)
        assert now is not None
        solved = LinearSolution(
            now.theta.clone(),
            now.logits.clone(),
            torch.zeros_like(objective, dtype=torch.int64),
            torch.full_like(objective, torch.inf),
        )
        slots = torch.arange(n_problems, device=weights.device).expand(n_trials, -1)
        is_open = torch.ones_like(slots, dtype=torch.bool)
        for step in range(1, self._max_iter + 1):
            now, objective, gap, ends = self._step(now, objective)
            done = ends | ~is_open
            last = step == self._max_iter or bool(done.all())
            ended = is_open if last else done & is_open
            if not bool(ended.any()):
                continue
            trials, at = ended.nonzero(as_tuple=True)
            where = trials, slots[trials, at]
            solved.theta[where], solved.gap[where] = now.theta[trials, at], gap[trials, at]
            solved.logits[where[0], :, where[1]] = now.logits[trials, :, at]
            solved.n_steps[where] = step
            if last:
                break
            # what is left, in as many slots as the trial with most of them needs; a finished one may fill a slot
            order = done.long().argsort(dim=1, stable=True)[:, : int((~done).sum(1).max())]
            slots, objective, is_open = (part.gather(1, order) for part in (slots, objective, ~done))
            now = now.select(order)
            if self._full is not None:
                self._full = (
                    self._full[:, order[0]] if len(order) == 1 else self._full.take_along_dim(order[..., None, None], 1)
                )
        if targets.shape[3] > 1:  # softmax is indifferent to a shift of all outputs
            solved.theta.sub_(solved.theta.mean(2, keepdim=True))
        return solved

    @torch.no_grad()
    def bound(self, targets: Tensor, weights: Tensor, theta: Tensor) -> Tensor:
        """Return how far parameters are at most from the least objective, relative to theirs, (T, U).

        No parameter may be free of the penalty: the objective then curves by at least 1 in all directions, so that half
        the squared gradient is the most that it can go down. Shapes are as of `solve`.
        """
        now = _State(theta, self._logits(self._rows, theta), targets, weights)
        slope, _ = self._loss.derivatives(now.logits, targets, weights)
        gradient = self._pull(self._rows, slope) + theta * self._penalty
        found: Tensor = gradient.square().sum((2, 3)) / 2 / self._objective(now, theta, now.logits)
        return found

    def coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients (T, U, K, D) and intercepts (T, U, K), zeros without, of parameters (T, U, K, P)."""
        return self._rows.coefficients(theta)

    @staticmethod
    def _logits(rows: Rows, theta: Tensor) -> Tensor:
        logits: Tensor = rows.times(theta.flatten(1, 2)).unflatten(2, theta.shape[1:3])
        return logits

    @staticmethod
    def _pull(rows: Rows, values: Tensor) -> Tensor:
        pulled: Tensor = rows.pull(values.flatten(2)).unflatten(1, values.shape[2:])
        return pulled

    def _objective(self, now: _State, theta: Tensor, logits: Tensor) -> Tensor:
        losses = self._loss.value(logits, now.targets)
        return (losses * now.weights).sum(1) + 0.5 * (theta.square() @ self._penalty).sum(-1)

    def _step(self, now: _State, objective: Tensor) -> tuple[_State, Tensor, Tensor, Tensor]:
        """Return the state after a step, the objective there, the gap before it, and which problems it ends."""
        slope, curvature = self._loss.derivatives(now.logits, now.targets, now.weights)
        gradient = self._pull(self._rows, slope) + now.theta * self._penalty
        while True:
            direction, is_solved, is_close = self._direction(curvature, gradient, objective)
            along = self._logits(self._rows, direction)
            decrement = -(gradient * direction).sum((2, 3))
            gap = torch.where(is_solved, decrement / 2 / objective, torch.inf)
            gap = torch.where((gap < 0) & (gap > -ROUNDING), 0, gap)  # at the optimum, to the last digit
            fine_enough = bool(is_solved.all()) or not (is_close and self._precision == 1)
            # a preconditioner in float32 may not know of a direction that is flat beyond its digits
            if (self._is_diagonal or self._precision == 1) and bool((gap <= self._tol).any()):
                residual = gradient + self._pull(self._rows, curvature.times(along.clone())) + direction * self._penalty
                left = (residual.square() / self._least_curvature(curvature)).sum((2, 3)) / objective
                unsure = (gap <= self._tol) & ~(left <= SURE * self._tol)
                known = self._is_diagonal and self._precision > 0  # nothing better is to be had
                fine_enough = fine_enough and (known or not bool(unsure.any()))
                gap = torch.where(unsure, left, gap)
            if self._precision == 2 or (fine_enough and self._agrees(direction, along, decrement, gap, curvature)):
                break
            self._precision += 1
            self._full = None
        size = torch.ones_like(gap)
        unjudged = (gap >= 0) & (gap <= ROUNDING)
        while True:
            theta = now.theta + size[..., None, None] * direction
            logits = torch.addcmul(now.logits, size[:, None, :, None], along)
            reached = self._objective(now, theta, logits)
            good = (reached <= objective - 1e-4 * size * decrement) | unjudged
            size = torch.where(good, size, size / 2)
            stuck = size < 1e-12  # no step goes down: the numbers are beyond float64
            if bool((good | stuck).all()):
                break
        if bool(stuck.any()):
            theta = torch.where(stuck[..., None, None], now.theta, theta)
            logits = torch.where(stuck[:, None, :, None], now.logits, logits)
            reached = torch.where(stuck, objective, reached)
        # the gap is that of the objective's second derivatives, which a kink ends
        bent = self._loss.bends(now.logits, logits, now.targets, now.weights) & (gap > PAST_KINKS * self._tol)
        return now._replace(theta=theta, logits=logits), reached, gap, (~(gap > self._tol) & ~bent) | stuck

    def _agrees(self, direction: Tensor, along: Tensor, decrement: Tensor, gap: Tensor, curvature: Curvature) -> bool:
        """Tell whether float32 was enough: a direction of conjugate gradients curves as much as it goes down.

        The step leaves of the gap the square of the part by which it does not.
        """
        curved = (along * curvature.times(along.clone())).sum((1, 3)) + (direction.square() @ self._penalty).sum(2)
        off = (curved - decrement).abs()
        good = (off <= 1e-2 * decrement) | ((off / decrement).square() * gap <= self._tol**1.5)
        return bool(good.all())

    def _least_curvature(self, curvature: Curvature) -> Tensor:
        """Return how much the objective curves along each parameter at least, to be broadcast to (T, U, K, P).

        That is the penalty, and a residual's square, divided by it, is at most what a direction misses of the
        decrement. What is free of it, an intercept of centred features, curves about as the Hessian's diagonal.
        """
        if bool((self._penalty > 0).all()):
            return self._penalty
        free = curvature.diagonal().sum(1).unsqueeze(3).clamp(min=1e-300)
        return torch.where(self._penalty > 0, self._penalty, free)

    def _direction(self, curvature: Curvature, gradient: Tensor, objective: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Solve Hessian times direction = -gradient by preconditioned conjugate gradients, closer near the optimum.

        Returns:
            The directions (T, U, K, P); which of them solve enough to tell how far the optimum is (T, U); and whether
            the preconditioner is so close to the Hessian that all should.
        """
        fine, coarse = _PRECISIONS[self._precision]
        rows = self._coarse if fine == torch.float32 else self._rows
        precondition = self._preconditioner(curvature, coarse)
        least = self._least_curvature(curvature) if self._is_diagonal else None
        curvature = curvature.to(fine)
        penalty = self._penalty.to(fine)
        scale = gradient.abs().amax((2, 3), keepdim=True).clamp(min=1e-300)
        residual = (gradient / -scale).to(fine)
        direction = torch.zeros_like(residual)
        conjugate = preconditioned = precondition(residual)
        size = begun = (residual * preconditioned).sum((2, 3))
        # superlinear: a step near the optimum squares the distance; but no step need end far below what is asked
        first = size * scale[..., 0, 0].square()
        ratio = torch.maximum(first / objective, self._tol**2 * objective / first)
        enough = size * ratio.clamp(min=FLOAT32_RATIO, max=self._loss.forcing)
        per_square, gained = scale[..., 0, 0].square() / objective, torch.zeros_like(objective)
        done = ~(size > 0)
        for cg_step in range(CG_STEPS):
            product = self._pull(rows, curvature.times(self._logits(rows, conjugate))).addcmul_(conjugate, penalty)
            curved = (conjugate * product).sum((2, 3))
            done = done | ~(curved > 0)  # the gradient is zero, or the numbers are beyond this precision
            if cg_step == 0:
                direction = torch.where(done[..., None, None], conjugate, direction)
            length = torch.where(done, 0, size / curved)[..., None, None]
            direction.addcmul_(conjugate, length)
            residual.addcmul_(product, length, value=-1)
            preconditioned = precondition(residual)
            last, size = size, (residual * preconditioned).sum((2, 3))
            gained += length[..., 0, 0] * last
            met = size <= enough
            if least is not None:  # where this is to be the last step, it must be known to be close
                left = (residual.square() / least).sum((2, 3))
                met &= (gained * per_square > 2 * self._tol) | (left * per_square <= SURE * self._tol)
            done = done | met
            if bool(done.all()):
                break
            conjugate = preconditioned.addcmul(conjugate, (size / last)[..., None, None])
        self._cg_steps += cg_step + 1
        is_close = self._full is not None or (rows.n_columns <= OWN_HESSIAN and gradient.shape[2] == 1)
        return direction * scale, (size <= UNSOLVED * begun) | ~(gradient != 0).any(3).any(2), is_close

    def _preconditioner(self, curvature: Curvature, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Return a function that about solves Hessians on the right of (T, U, K, P)."""
        rows = self._coarse if dtype == torch.float32 else self._rows
        curvature, penalty = curvature.to(dtype), self._penalty.to(dtype)
        diagonal = curvature.diagonal()  # (T, n, U, K)
        n_trials, n_rows, n_problems, n_outputs = diagonal.shape
        if self._is_diagonal or not isinstance(rows, DenseRows):
            scale = rows.pull_squares(diagonal.flatten(2)).unflatten(1, (n_problems, n_outputs)) + penalty
            return lambda residual: residual / scale.clamp(min=1e-30)
        if whole_hessian_pays(self._cg_steps, n_rows, n_trials * n_problems, n_outputs, rows.n_columns):
            self._full = factor(curvature.hessian(rows), penalty.repeat(n_outputs))
            self._cg_steps = 0
        if self._full is not None:
            return _Factored(self._full, of="problem")
        if rows.n_columns <= OWN_HESSIAN:
            return _Factored(factor(rows.gram(diagonal.mean(3)), penalty), of="output")
        return _Factored(factor(rows.gram(diagonal.mean((2, 3)).unsqueeze(2)), penalty), of="trial")


def _solve_on_arrays(
    solver: ArraySolver, targets: Tensor, weights: Tensor, *, tol: float, starts: Sequence[Tensor]
) -> LinearSolution:
    """Solve the problems of the only trial, which is on a CPU."""
    onehot, counted = targets[0].permute(1, 2, 0).contiguous().numpy(), weights[0].T.contiguous().numpy()
    solved = solver.solve(onehot, counted, tol=tol, starts=[theta[0].numpy() for theta in starts])
    return LinearSolution(
        torch.from_numpy(solved.theta).unsqueeze(0),
        torch.from_numpy(solved.logits).permute(2, 0, 1).unsqueeze(0),
        torch.from_numpy(solved.n_steps).unsqueeze(0),
        torch.from_numpy(solved.gap).unsqueeze(0),
    )


class _Factored:
    """A preconditioner: what `_factor` returned, of a matrix for each output, for each problem, or for each trial.

    Shapes:
        factor: (T, U, P, P), the same for all outputs of a problem; (T, U, K P, K P); or (T, 1, P, P).
    """

    def __init__(self, factor: Tensor, of: Literal["output", "problem", "trial"]) -> None:
        self._factor = factor
        self._of = of

    def __call__(self, residual: Tensor) -> Tensor:
        """Solve on the right of (T, U, K, P)."""
        right = residual
        if self._of == "problem":
            right = residual.flatten(2).unsqueeze(2)
        elif self._of == "trial":
            right = residual.flatten(1, 2).unsqueeze(1)
        if self._factor.dtype == torch.float32:
            return (right.float() @ self._factor).to(right.dtype).view_as(residual)
        return torch.cholesky_solve(right.mT, self._factor).mT.reshape_as(residual)


class _State(NamedTuple):
    """Where the problems stand that are not solved yet."""

    theta: Tensor
    logits: Tensor
    targets: Tensor
    weights: Tensor

    def where(self, better: Tensor, other: _State) -> _State:
        """Stand here where it is better, (T, U), else where the other stands."""
        theta = torch.where(better[..., None, None], self.theta, other.theta)
        return self._replace(theta=theta, logits=torch.where(better[:, None, :, None], self.logits, other.logits))

    def select(self, order: Tensor) -> _State:
        """Keep problems (T, U') of each trial."""
        if len(order) == 1:
            keep = order[0]
            targets = self.targets if self.targets.shape[2] == 1 else self.targets[:, :, keep]
            return _State(self.theta[:, keep], self.logits[:, :, keep], targets, self.weights[:, :, keep])
        per_row = order[:, None, :, None]
        return _State(
            self.theta.take_along_dim(order[..., None, None], 1),
            self.logits.take_along_dim(per_row, 2),
            self.targets if self.targets.shape[2] == 1 else self.targets.take_along_dim(per_row, 2),
            self.weights.take_along_dim(per_row[..., 0], 2),
        )
