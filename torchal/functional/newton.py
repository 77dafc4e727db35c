"""Linear classifiers fitted to their optimum by Newton's method, many problems on the same rows at once.

Axes: T trials, each with rows of its own; U problems of a trial, as folds or classes, on the same rows with other
weights or targets; K outputs of a problem; n rows; P columns, which are the features and, where there is one, the
intercept.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from torchal.functional.chunks import values_per_chunk

Loss = Literal["softmax", "logistic", "squared_hinge"]
Intercept = Literal["none", "free", "penalized"]

_CG_STEPS = 250  # of one Newton step; a direction cut short is still downhill
_FLOAT32_RATIO = 1e-9  # what float32 can shrink the square of a residual to
_ROUNDING = 1e-12  # relative gain below which the objective's last digits cannot judge a step
_OWN_HESSIAN = 128  # columns up to which each problem is preconditioned by its own Hessian, not all by their mean
_GRAM_COLUMNS = 4096  # columns from which a factorised matrix of that size costs more than the steps that it saves
_WHOLE_HESSIANS = 2**26  # most numbers of the matrices that couple a problem's outputs
_UNSOLVED = 0.1  # part of the residual's square above which a direction does not tell how far the optimum is


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
        conjugate gradients preconditioned by Hessians that leave out what couples the outputs.

    Complexity:
        A Newton step is O(n P^2 + P^3) for each problem up to 128 columns, else for all of them, and for each of its
        conjugate-gradient steps O(n P K U); with a sparse matrix its non-zeros stand for n P, and nothing is O(P^2).
    """

    def __init__(self, x: Tensor, *, loss: Loss, intercept: Intercept, max_iter: int) -> None:
        self._rows: _Rows = _DenseRows(x, intercept) if x.layout == torch.strided else _SparseRows(x, intercept)
        self._loss = _LOSSES[loss]
        self._penalty = x.new_ones(self._rows.n_columns, layout=torch.strided)
        if intercept == "free":
            self._penalty[-1] = 0
        self._tol = 0.0  # of the solution under way
        self._max_iter = max_iter
        # Directions need not be exact: float32 is enough for them, until it is seen not to be.
        self._coarse = self._rows.to(torch.float32)
        self._precision = 0  # position in _PRECISIONS
        self._full: Tensor | None = None
        self._cg_steps = 0

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
        n_trials, _, n_problems = weights.shape
        self._tol = tol
        if self._full is not None:  # it paid in the last solution, so it is to be made anew at once
            self._full, self._cg_steps = None, _CG_STEPS * self._max_iter
        if not starts:
            starts = (weights.new_zeros(n_trials, n_problems, targets.shape[3], self._rows.n_columns),)
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
    def _logits(rows: _Rows, theta: Tensor) -> Tensor:
        logits: Tensor = rows.times(theta.flatten(1, 2)).unflatten(2, theta.shape[1:3])
        return logits

    @staticmethod
    def _pull(rows: _Rows, values: Tensor) -> Tensor:
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
            fine_enough = bool(is_solved.all()) or not (is_close and self._precision == 1)
            if self._precision == 2 or (fine_enough and self._agrees(direction, along, decrement, curvature)):
                break
            self._precision += 1
            self._full = None
        size = torch.ones_like(gap)
        unjudged = (gap >= 0) & (gap <= _ROUNDING)
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
        bent = self._loss.bends(now, logits) & (gap > _ROUNDING * self._tol)
        return now._replace(theta=theta, logits=logits), reached, gap, (~(gap > self._tol) & ~bent) | stuck

    def _agrees(self, direction: Tensor, along: Tensor, decrement: Tensor, curvature: _Curvature) -> bool:
        """Tell whether float32 was enough: a direction of conjugate gradients curves as much as it goes down."""
        curved = (along * curvature.times(along.clone())).sum((1, 3)) + (direction.square() @ self._penalty).sum(2)
        return bool(((curved - decrement).abs() <= 1e-2 * decrement).all())

    def _direction(self, curvature: _Curvature, gradient: Tensor, objective: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Solve Hessian times direction = -gradient by preconditioned conjugate gradients, closer near the optimum.

        Returns:
            The directions (T, U, K, P); which of them solve enough to tell how far the optimum is (T, U); and whether
            the preconditioner is so close to the Hessian that all should.
        """
        fine, coarse = _PRECISIONS[self._precision]
        rows = self._coarse if fine == torch.float32 else self._rows
        precondition = self._preconditioner(curvature, coarse)
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
        enough = size * ratio.clamp(min=_FLOAT32_RATIO, max=self._loss.forcing)
        done = ~(size > 0)
        for cg_step in range(_CG_STEPS):
            product = self._pull(rows, curvature.times(self._logits(rows, conjugate))).addcmul_(conjugate, penalty)
            curved = (conjugate * product).sum((2, 3))
            flat = ~(curved > 0)  # the gradient is zero, or the numbers are beyond float64
            if cg_step == 0:
                direction = torch.where(flat[..., None, None], conjugate, direction)
            done = done | flat
            length = torch.where(done, 0, size / curved)[..., None, None]
            direction = direction.addcmul_(conjugate, length)
            residual = residual.addcmul_(product, length, value=-1)
            preconditioned = precondition(residual)
            last, size = size, (residual * preconditioned).sum((2, 3))
            done = done | (size <= enough)
            if bool(done.all()):
                break
            conjugate = preconditioned.addcmul(conjugate, (size / last)[..., None, None])
        self._cg_steps += cg_step + 1
        is_close = self._full is not None or (rows.n_columns <= _OWN_HESSIAN and gradient.shape[2] == 1)
        return direction * scale, (size <= _UNSOLVED * begun) | ~(gradient != 0).any(3).any(2), is_close

    def _preconditioner(self, curvature: _Curvature, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Return a function that about solves Hessians on the right of (T, U, K, P)."""
        rows = self._coarse if dtype == torch.float32 else self._rows
        curvature, penalty = curvature.to(dtype), self._penalty.to(dtype)
        diagonal = curvature.diagonal()  # (T, n, U, K)
        n_trials, n_rows, n_problems, n_outputs = diagonal.shape
        if rows.is_sparse or rows.n_columns > _GRAM_COLUMNS:
            # sums of squares; those of shifted sparse rows may come out below zero by rounding
            squares = rows.pull_squares(diagonal.flatten(2)).clamp(min=0)
            scale = squares.unflatten(1, (n_problems, n_outputs)) + penalty
            return lambda residual: residual / scale.clamp(min=1e-30)
        if self._pays(n_rows, n_trials * n_problems, n_outputs):
            self._full = _factor(curvature.hessian(rows), penalty.repeat(n_outputs))
            self._cg_steps = 0
        if self._full is not None:
            solve = _solver(self._full)
            return lambda residual: solve(residual.flatten(2).unsqueeze(2)).view_as(residual)
        if rows.n_columns <= _OWN_HESSIAN:
            return _solver(_factor(rows.gram(diagonal.mean(3)), penalty))
        solve = _solver(_factor(rows.gram(diagonal.mean((2, 3)).unsqueeze(2)), penalty))
        return lambda residual: solve(residual.flatten(1, 2).unsqueeze(1)).view_as(residual)

    def _pays(self, n_rows: int, n_problems: int, n_outputs: int) -> bool:
        """Tell whether the steps since the last whole Hessian have cost as much as another one."""
        size = n_outputs * self._rows.n_columns
        if (n_outputs == 1 and size <= _OWN_HESSIAN) or n_problems * size**2 > _WHOLE_HESSIANS:
            return False
        worth = size / (8 if n_outputs > 1 else 2) + size**2 / (4 * n_rows)
        return self._cg_steps > max(worth, 20)


def _factor(matrix: Tensor, penalty: Tensor) -> Tensor:
    """Return Cholesky factors of matrices plus a penalty on the diagonal; not-a-number for those that have none.

    In float32 the inverses instead: coarse, but a product is many times faster than a solve.
    """
    corner = matrix.diagonal(dim1=-2, dim2=-1)
    corner.add_(penalty)
    # collinear columns of a large scale leave no positive definite matrix; conjugate gradients mend the rest
    corner.mul_(1 + (1e-10 if matrix.dtype == torch.float64 else 1e-5)).clamp_(min=1e-30)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if matrix.dtype == torch.float32:
        some = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)  # a factor with zeros has none
        factor = torch.cholesky_inverse(torch.where(failed[..., None, None] == 0, factor, some))
    usable = (failed == 0) & torch.isfinite(factor).all(-1).all(-1)  # infinite ones answer 0, which looks converged
    return torch.where(usable[..., None, None], factor, torch.nan)


def _solver(factor: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that solves on the right of (..., V, P) by what `_factor` returned (..., P, P)."""
    if factor.dtype == torch.float32:
        return lambda right: (right.float() @ factor).to(right.dtype)
    return lambda right: torch.cholesky_solve(right.mT, factor).mT


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


_PRECISIONS = (
    (torch.float32, torch.float32),  # of conjugate gradients, and of their preconditioner
    (torch.float64, torch.float32),
    (torch.float64, torch.float64),
)


class _Curvature(ABC):
    """Second derivatives of the weighted losses by the logits."""

    @abstractmethod
    def times(self, values: Tensor) -> Tensor:
        """Multiply values (T, n, U, K), which may be overwritten."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """(T, n, U, K)."""

    @abstractmethod
    def hessian(self, rows: _Rows) -> Tensor:
        """(T, U, K P, K P), each problem's own, without the penalty."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> _Curvature:
        """Return the same in another precision."""


class _SoftmaxCurvature(_Curvature):
    def __init__(self, probs: Tensor, weighted: Tensor) -> None:
        self._probs = probs
        self._weighted = weighted

    def to(self, dtype: torch.dtype) -> _Curvature:
        return _SoftmaxCurvature(self._probs.to(dtype), self._weighted.to(dtype))

    def hessian(self, rows: _Rows) -> Tensor:
        """(T, U, K P, K P), with a weight on the shift of all outputs, which changes nothing."""
        n_outputs = self._probs.shape[3]
        first, second = torch.tril_indices(n_outputs, n_outputs, device=self._probs.device)

        def pairs(some: slice) -> Tensor:
            weighted, probs = self._weighted[:, some], self._probs[:, some]
            values = weighted[..., first] * probs[..., second]
            values.neg_()
            values[..., first == second] += weighted
            return values.flatten(2)

        sums = rows.pair_sums(pairs, n_values=len(first) * self._probs.shape[2]).unflatten(1, (-1, len(first)))
        n_columns = rows.n_columns
        where = _positions(n_outputs, sums.device), _positions(n_columns, sums.device)
        pairs_of_both = sums.index_select(2, where[0].flatten()).index_select(3, where[1].flatten())
        blocks = pairs_of_both.unflatten(3, (n_columns, n_columns)).unflatten(2, (n_outputs, n_outputs))
        whole: Tensor = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)  # (T, U, K, P, K, P) as matrices
        of_last = whole[..., n_columns - 1 :: n_columns, n_columns - 1 :: n_columns]
        of_last += of_last.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None]
        return whole

    def times(self, values: Tensor) -> Tensor:
        mean = torch.linalg.vecdot(self._probs, values).unsqueeze(3)
        return values.sub_(mean).mul_(self._weighted)

    def diagonal(self) -> Tensor:
        return torch.addcmul(self._weighted, self._weighted, self._probs, value=-1)


class _OwnCurvature(_Curvature):
    def __init__(self, curvature: Tensor) -> None:
        self._curvature = curvature

    def to(self, dtype: torch.dtype) -> _Curvature:
        return _OwnCurvature(self._curvature.to(dtype))

    def times(self, values: Tensor) -> Tensor:
        return values.mul_(self._curvature)

    def diagonal(self) -> Tensor:
        return self._curvature

    def hessian(self, rows: _Rows) -> Tensor:
        return rows.gram(self._curvature.squeeze(3))


class _LossFunction(ABC):
    forcing = 0.1
    """How much of the residual's square a Newton step far from the optimum may leave."""

    def bends(self, before: _State, logits: Tensor) -> Tensor:  # noqa: ARG002
        """Tell for each problem (T, U) whether the loss has a kink on the way to other logits."""
        return torch.zeros_like(before.weights[:, 0], dtype=torch.bool)

    @abstractmethod
    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(T, n, U) of logits and targets (T, n, U, K)."""

    @abstractmethod
    def derivatives(self, logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, _Curvature]:
        """First (T, n, U, K) and second derivatives by the logits, times the weights (T, n, U)."""


class _Softmax(_LossFunction):
    # The loss of a row that is surely right is a tiny part of its logits: it is summed up from what the other outputs
    # have, and not left over when the row's own is taken away.
    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        others = torch.where(targets > 0, -torch.inf, logits).logsumexp(3)
        losses: Tensor = nn.functional.softplus(others - (logits * targets).sum(3), threshold=40)
        return losses

    def derivatives(self, logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, _Curvature]:
        probs, weights = logits.softmax(3), weights.unsqueeze(3)
        slope = torch.where(targets > 0, 0, probs)
        slope = slope.addcmul_(targets, slope.sum(3, keepdim=True), value=-1).mul_(weights)
        return slope, _SoftmaxCurvature(probs, probs * weights)


class _Logistic(_LossFunction):
    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = nn.functional.softplus((1 - 2 * targets) * logits, threshold=40)
        return losses.squeeze(3)

    def derivatives(self, logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, _Curvature]:
        signs, weights = 1 - 2 * targets, weights.unsqueeze(3)
        wrong = (signs * logits).sigmoid()
        return signs * wrong * weights, _OwnCurvature(wrong * (-signs * logits).sigmoid() * weights)


class _SquaredHinge(_LossFunction):
    forcing = 1e-4  # a step that is exact between two kinks ends the search, at whatever distance

    def bends(self, before: _State, logits: Tensor) -> Tensor:
        signs = 2 * before.targets - 1
        sides = [(signs * some < 1).squeeze(3) for some in (before.logits, logits)]
        return ((sides[0] != sides[1]) & (before.weights > 0)).any(1)

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        signs = 2 * targets - 1
        return (1 - signs * logits).clamp(min=0).square().squeeze(3)

    def derivatives(self, logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, _Curvature]:
        signs = 2 * targets - 1
        missing = (1 - signs * logits).clamp(min=0)
        doubled = 2 * weights.unsqueeze(3)
        return -signs * missing * doubled, _OwnCurvature((missing > 0) * doubled)


_LOSSES: dict[Loss, _LossFunction] = {
    "softmax": _Softmax(),
    "logistic": _Logistic(),
    "squared_hinge": _SquaredHinge(),
}


def _positions(n: int, device: torch.device) -> Tensor:
    """(n, n): where in the lower triangle, row by row, the entries of a symmetric matrix are."""
    rows = torch.arange(n, device=device)
    high, low = torch.maximum(rows[:, None], rows), torch.minimum(rows[:, None], rows)
    return high * (high + 1) // 2 + low


class _Rows(ABC):
    """Rows as a matrix of P columns, of which only products are taken."""

    n_columns: int
    is_sparse: bool

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of the numbers."""

    @abstractmethod
    def times(self, theta: Tensor) -> Tensor:
        """(T, n, V) of (T, V, P)."""

    @abstractmethod
    def pull(self, values: Tensor) -> Tensor:
        """(T, V, P) of (T, n, V), by the transpose."""

    @abstractmethod
    def pull_squares(self, values: Tensor) -> Tensor:
        """(T, V, P) of (T, n, V), by the transpose of the squared matrix."""

    @abstractmethod
    def gram(self, values: Tensor) -> Tensor:
        """(T, V, P, P), the weighted sums of the rows' outer products, of weights (T, n, V)."""

    @abstractmethod
    def pair_sums(self, values: Callable[[slice], Tensor], n_values: int) -> Tensor:
        """(T, V, P (P + 1) / 2): the lower triangles of `gram`, of weights that are made for some rows at a time."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> _Rows:
        """Return the same rows in another precision."""

    @abstractmethod
    def coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return (T, U, K, D) and (T, U, K) for the features as they came, of (T, U, K, P)."""


class _DenseRows(_Rows):
    is_sparse = False

    def __init__(self, x: Tensor, intercept: Intercept) -> None:
        self._intercept = intercept
        ones = x.new_ones(*x.shape[:2], 1)
        # A free intercept makes the optimum indifferent to a shift: centred features are better conditioned. Rows that
        # span fewer dimensions than they have need no more than those: the optimum lies in their span.
        self._mean = None
        if intercept == "free":
            self._mean = x.mean(1, keepdim=True)
            x = x - self._mean
        elif intercept == "penalized":
            x = torch.cat([x, ones], 2)
        self._basis = None
        if x.shape[1] < x.shape[2]:
            self._basis, upper = torch.linalg.qr(x.mT)
            x = upper.mT.contiguous()
        self._x = torch.cat([x, ones], 2) if intercept == "free" else x
        self.n_columns = self._x.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        return self._x.dtype

    def to(self, dtype: torch.dtype) -> _Rows:
        other = copy.copy(self)
        other._x = self._x.to(dtype)
        return other

    def times(self, theta: Tensor) -> Tensor:
        return self._x @ theta.mT

    def pull(self, values: Tensor) -> Tensor:
        return values.mT @ self._x

    def pull_squares(self, values: Tensor) -> Tensor:
        pulled = [values[:, rows].mT @ self._x[:, rows].square() for rows in self._chunks(self.n_columns)]
        return torch.stack(pulled).sum(0)

    def gram(self, values: Tensor) -> Tensor:
        n_trials, _, n_problems = values.shape
        n_columns = self.n_columns
        if 6 * n_problems < n_columns:  # a product for each is faster than one with all pairs of columns
            whole = values.new_zeros(n_trials, n_problems, n_columns, n_columns)
            for rows in self._chunks(n_columns):
                x = self._x[:, rows]
                for problem in range(n_problems):
                    whole[:, problem] += (x * values[:, rows, problem, None]).mT @ x
            return whole
        sums = self.pair_sums(lambda rows: values[:, rows], n_problems)
        return sums[..., _positions(n_columns, values.device)]

    def pair_sums(self, values: Callable[[slice], Tensor], n_values: int) -> Tensor:
        first, second = torch.tril_indices(self.n_columns, self.n_columns, device=self._x.device)
        sums = self._x.new_zeros(len(self._x), n_values, len(first))
        for rows in self._chunks(max(len(first), n_values)):
            x = self._x[:, rows]
            sums += values(rows).mT @ (x[..., first] * x[..., second])
        return sums

    def coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        coef = theta[..., :-1] if self._intercept == "free" else theta
        if self._basis is not None:
            coef = (coef.flatten(1, 2) @ self._basis.mT).unflatten(1, theta.shape[1:3])
        if self._intercept == "penalized":
            return coef[..., :-1], coef[..., -1]
        if self._mean is None:
            return coef, torch.zeros_like(coef[..., 0])
        return coef, theta[..., -1] - (coef * self._mean.unsqueeze(1)).sum(-1)

    def _chunks(self, values_per_row: int) -> Iterator[slice]:
        n_trials, n_rows, _ = self._x.shape
        size = max(1, values_per_chunk(self._x.device) // (n_trials * values_per_row))
        for start in range(0, n_rows, size):
            yield slice(start, start + size)


class _SparseRows(_Rows):
    """A CSR matrix, with the shift and the intercept beside it. T is 1."""

    is_sparse = True

    def __init__(self, x: Tensor, intercept: Intercept) -> None:
        self._x = x
        self._transposed = x.t().to_sparse_csr()
        self._squares = torch.sparse_csr_tensor(
            self._transposed.crow_indices(),
            self._transposed.col_indices(),
            self._transposed.values().square(),
            self._transposed.shape,
        )
        self._intercept = intercept
        self._ones = x.values().new_ones(len(x), 1)
        self._mean = (self._transposed @ self._ones).squeeze(1) / len(x) if intercept == "free" else None
        self.n_columns = x.shape[1] + int(intercept != "none")

    @property
    def dtype(self) -> torch.dtype:
        return self._x.dtype

    def to(self, dtype: torch.dtype) -> _Rows:
        other = copy.copy(self)
        for name in ("_x", "_transposed", "_squares", "_ones", "_mean"):
            value = getattr(self, name)
            setattr(other, name, None if value is None else value.to(dtype))
        return other

    def times(self, theta: Tensor) -> Tensor:
        theta = theta[0]
        coef = theta if self._intercept == "none" else theta[:, :-1]
        out = self._x @ coef.T
        if self._intercept != "none":
            out += theta[:, -1] if self._mean is None else theta[:, -1] - coef @ self._mean
        return out.unsqueeze(0)

    def pull(self, values: Tensor) -> Tensor:
        out = (self._transposed @ values[0]).T
        if self._intercept != "none":
            sums = values[0].sum(0).unsqueeze(1)
            if self._mean is not None:
                out = out - sums * self._mean
            out = torch.cat([out, sums], 1)
        return out.unsqueeze(0)

    def pull_squares(self, values: Tensor) -> Tensor:
        out = (self._squares @ values[0]).T
        if self._intercept != "none":
            sums = values[0].sum(0).unsqueeze(1)
            if self._mean is not None:
                out = out - 2 * self._mean * (self._transposed @ values[0]).T + sums * self._mean.square()
            out = torch.cat([out, sums], 1)
        return out.unsqueeze(0)

    def gram(self, values: Tensor) -> Tensor:
        raise NotImplementedError  # a dense matrix of sparse columns is what is avoided

    def pair_sums(self, values: Callable[[slice], Tensor], n_values: int) -> Tensor:
        raise NotImplementedError

    def coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        if self._intercept == "none":
            return theta, torch.zeros_like(theta[..., 0])
        coef = theta[..., :-1]
        return coef, theta[..., -1] if self._mean is None else theta[..., -1] - coef @ self._mean
