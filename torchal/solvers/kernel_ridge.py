"""Linear systems of a kernel matrix and a ridge."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.errors import ShapeError
from torchal.solvers.kernels import RbfKernel, rbf_kernel


class RidgeSystem:
    """Solves (K + ridge I) coef = right for an RBF kernel matrix K of weighted rows, for one ridge after another.

    Row i of K is scaled by the root of its weight, as is column i, and so are the right side and the coefficients: the
    least squares of weighted rows. A row of weight 0 takes no part.

    Args:
        x: the rows.
        gamma: of the kernel.
        weights: not negative; all 1 unless given.
        block_size: rows whose kernel matrix is factorised whole. Up to so many rows the system is solved directly;
            above by conjugate gradients, which see the kernel in chunks, preconditioned by the kernel's projection on
            so many of the rows (Nystroem's approximation), evenly spread.

    Shapes:
        x: (T, n, D) float64; T is 1 where n is above block_size.
        gamma: (T,) float64.
        weights: (T, n) float64.

    Reference:
        Rudi, Carratino & Rosasco, "FALKON: An Optimal Large Scale Kernel Method", NeurIPS 2017, for the preconditioner.

    Complexity:
        Directly O(n^3) for each ridge and O(n^2) memory. Else, with m = block_size, O(n m^2) once, O(m^3) for each
        ridge and O(n^2 (D + K)) for each step; O(m^2 + n K) memory.
    """

    def __init__(self, x: Tensor, gamma: Tensor, *, weights: Tensor | None = None, block_size: int) -> None:
        if x.shape[1] > block_size and len(x) > 1:
            raise ShapeError(
                f"x must be of one trial, got {len(x)}: {x.shape[1]} rows are above block_size, {block_size}"
            )
        self._x = x
        self._gamma = gamma[:, None, None]
        self._roots = None if weights is None else weights.sqrt().unsqueeze(2)  # (T, n, 1)
        self._sketch: _Sketch | None = None
        self._kernel: Tensor | None = None
        if x.shape[1] <= block_size:
            self._kernel = rbf_kernel(x, x, self._gamma)
            if self._roots is not None:
                self._kernel.mul_(self._roots).mul_(self._roots.mT)
        else:
            self._sketch = _Sketch(self, torch.linspace(0, x.shape[1] - 1, block_size, device=x.device).long())
        self.least_ridge = x.new_zeros(len(x))
        """(T,) A smaller ridge is lost in the rounding of the kernel matrix, and a direct solution takes this one.

        A factorisation changes the matrix by at most about n machine epsilons of its largest eigenvalue, which is at
        most the largest sum of a row: whether a smaller ridge leaves a factor is chance. Conjugate gradients show it
        by their residual.
        """
        if self._kernel is not None:
            largest = self._kernel.sum(2).amax(1)
            self.least_ridge = x.shape[1] * torch.finfo(x.dtype).eps * largest

    @torch.no_grad()
    def solve(self, right: Tensor, ridge: Tensor, *, tol: float, max_iter: int) -> tuple[Tensor, int]:
        """Solve for right sides.

        Args:
            right: of the rows as they are, without the roots of the weights.
            ridge: above 0.
            tol: residual, relative to the right side, at which conjugate gradients end.
            max_iter: most of their steps.

        Shapes:
            right: (T, n, K) float64.
            ridge: (T,) float64.

        Returns:
            The coefficients (T, n, K), and the steps of conjugate gradients: 0 where the system was solved directly.
        """
        ridge = ridge[:, None, None]
        right = right if self._roots is None else right * self._roots
        if self._kernel is not None:
            coef, n_iter = self._direct(right, ridge), 0
        else:
            coef, n_iter = self._iterate(right, ridge, tol=tol, max_iter=max_iter)
        return coef if self._roots is None else coef * self._roots, n_iter

    @torch.no_grad()
    def residual(self, coef: Tensor, right: Tensor, ridge: Tensor) -> Tensor:
        """Return (T,) how much of the right side (T, n, K) coefficients (T, n, K) leave, relative to it."""
        if self._roots is not None:
            coef, right = torch.where(self._roots > 0, coef / self._roots, 0), right * self._roots
        left = right - self._product(coef, ridge[:, None, None])
        residual: Tensor = left.norm(dim=(1, 2)) / right.norm(dim=(1, 2))
        return residual

    def _direct(self, right: Tensor, ridge: Tensor) -> Tensor:
        assert self._kernel is not None
        matrix = self._kernel.clone()
        matrix.diagonal(dim1=1, dim2=2).add_(torch.maximum(ridge[:, :, 0], self.least_ridge[:, None]))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        coef = torch.cholesky_solve(right, factor)
        # numbers beyond float64 have no factor
        return torch.where(failed[:, None, None] == 0, coef, torch.nan)

    def _product(self, coef: Tensor, ridge: Tensor) -> Tensor:
        """Multiply (K + ridge I) by (T, n, K)."""
        if self._kernel is not None:
            return torch.baddbmm(ridge * coef, self._kernel, coef)
        out = ridge * coef
        for rows, kernel in self.chunks(slice(None)):
            out[0, rows] += kernel @ coef[0]
        return out

    def chunks(self, columns: slice | Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield the weighted kernel between a few rows and some columns, chunk by chunk, as (c, m)."""
        x, roots = self._x[0], None if self._roots is None else self._roots[0]
        y = x[columns]
        size = max(1, values_per_chunk(x.device) // max(y.shape))
        kernel_with = RbfKernel(y, self._gamma[0])
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            kernel = kernel_with(x[rows])
            if roots is not None:
                kernel.mul_(roots[rows]).mul_(roots[columns].T)
            yield rows, kernel

    def _iterate(self, right: Tensor, ridge: Tensor, *, tol: float, max_iter: int) -> tuple[Tensor, int]:
        """Run conjugate gradients for all right sides, each with a length of its own; return where they came closest.

        Where the system is too badly conditioned for float64, they go away again.
        """
        assert self._sketch is not None
        precondition = self._sketch.inverse(float(ridge))
        coef, residual = torch.zeros_like(right), right.clone()
        conjugate = preconditioned = precondition(residual)
        size = (residual * preconditioned).sum(1, keepdim=True)
        enough = tol * right.norm()
        closest, least, n_iter = coef.clone(), residual.norm(), 0
        while n_iter < max_iter and bool(residual.norm() > enough):
            product = self._product(conjugate, ridge)
            curved = (conjugate * product).sum(1, keepdim=True)
            length = torch.where(curved > 0, size / curved, 0)
            coef.addcmul_(conjugate, length)
            residual.addcmul_(product, length, value=-1)
            preconditioned = precondition(residual)
            last, size = size, (residual * preconditioned).sum(1, keepdim=True)
            conjugate = torch.addcmul(preconditioned, conjugate, torch.where(last > 0, size / last, 0))
            n_iter += 1
            if bool(residual.norm() < least):
                closest, least = coef.clone(), residual.norm()
        return closest, n_iter


class _Sketch:
    """Nystroem's approximation B B^T of the kernel matrix, with B = K[:, rows] L^-T and L L^T = K[rows, rows]."""

    def __init__(self, system: RidgeSystem, rows: Tensor) -> None:
        self._system = system
        self._rows = rows
        x, roots = system._x[0, rows], None if system._roots is None else system._roots[0, rows]
        inner = rbf_kernel(x, x, system._gamma[0])
        if roots is not None:
            inner.mul_(roots).mul_(roots.T)
        self._lower = _factor(inner)
        self._gram = torch.zeros_like(inner)  # B^T B, of B itself: from K[rows, :] K[:, rows] it would lose its digits
        for _, kernel in system.chunks(rows):
            part = torch.linalg.solve_triangular(self._lower, kernel.T, upper=False)
            self._gram.addmm_(part, part.T)

    def inverse(self, ridge: float) -> Callable[[Tensor], Tensor]:
        """Return a function that solves (B B^T + ridge I), on (1, n, K)."""
        matrix = self._gram.clone()
        matrix.diagonal().add_(ridge)
        factor = _factor(matrix)

        def solve(right: Tensor) -> Tensor:
            pulled = right.new_zeros(len(self._rows), right.shape[2])
            for rows, kernel in self._system.chunks(self._rows):
                pulled.addmm_(kernel.T, right[0, rows])
            pulled = torch.linalg.solve_triangular(self._lower, pulled, upper=False)
            inner = torch.linalg.solve_triangular(self._lower.T, torch.cholesky_solve(pulled, factor), upper=True)
            out = right.clone()
            for rows, kernel in self._system.chunks(self._rows):
                out[0, rows] -= kernel @ inner
            return out / ridge

        return solve


def _factor(matrix: Tensor) -> Tensor:
    """Return the Cholesky factor of a matrix, with as much on the diagonal as makes it definite to float64.

    A preconditioner need not be exact: conjugate gradients mend what that changes. Numbers beyond float64 have none.
    """
    if not bool(torch.isfinite(matrix).all()):
        return torch.full_like(matrix, torch.nan)
    jitter = 10 * torch.finfo(matrix.dtype).eps * (float(matrix.trace()) or 1.0)
    while True:
        matrix.diagonal().add_(jitter)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not bool(failed):
            return factor
        jitter *= 10
