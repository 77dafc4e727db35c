"""The rows that a linear classifier is fitted to, as a matrix of which only products are taken.

Axes: T trials, each with rows of its own; n rows; P columns, which are the features and, where there is one, the
intercept; V vectors that are multiplied at once.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from torchal._chunks import values_per_chunk
from torchal._csr import csr_tensor, without_notes

Intercept = Literal["none", "free", "penalized"]
"""Whether there is an intercept, and whether it is penalised like a coefficient."""


class Rows(ABC):
    """Rows as a matrix of P columns, of which only products are taken."""

    n_columns: int

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
    def to(self, dtype: torch.dtype) -> Rows:
        """Return the same rows in another precision."""

    @abstractmethod
    def coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return (T, U, K, D) and (T, U, K) for the features as they came, of (T, U, K, P)."""


class DenseRows(Rows):
    """Rows in memory, centred where an intercept is free; fewer rows than columns in a basis of their own."""

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

    @override
    def to(self, dtype: torch.dtype) -> Rows:
        other = copy.copy(self)
        other._x = self._x.to(dtype)
        return other

    @override
    def times(self, theta: Tensor) -> Tensor:
        if len(theta) == 1:  # a product of matrices has less to prepare than one of stacks of matrices
            return (self._x[0] @ theta[0].T).unsqueeze(0)
        return self._x @ theta.mT

    @override
    def pull(self, values: Tensor) -> Tensor:
        if len(values) == 1:
            return (values[0].T @ self._x[0]).unsqueeze(0)
        return values.mT @ self._x

    @override
    def pull_squares(self, values: Tensor) -> Tensor:
        sums = self._x.new_zeros(len(values), values.shape[2], self.n_columns)
        for rows in self._chunks(self.n_columns):
            sums += values[:, rows].mT @ self._x[:, rows].square()
        return sums

    def array(self) -> NDArray[Any]:
        """Return the rows (n, P) of the only trial, which is on the CPU."""
        array: NDArray[Any] = self._x[0].numpy()
        return array

    def gram(self, values: Tensor) -> Tensor:
        """(T, V, P, P), the weighted sums of the rows' outer products, of weights (T, n, V)."""
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
        return sums[..., triangle_positions(n_columns, values.device)]

    def pair_sums(self, values: Callable[[slice], Tensor], n_values: int) -> Tensor:
        """(T, V, P (P + 1) / 2): the lower triangles of `gram`, of weights that are made for some rows at a time."""
        first, second = torch.tril_indices(self.n_columns, self.n_columns, device=self._x.device)
        sums = self._x.new_zeros(len(self._x), n_values, len(first))
        for rows in self._chunks(max(len(first), n_values)):
            x = self._x[:, rows]
            sums += values(rows).mT @ (x[..., first] * x[..., second])
        return sums

    @override
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


class SparseRows(Rows):
    """A CSR matrix, with the shift and the intercept beside it. T is 1."""

    def __init__(self, x: Tensor, intercept: Intercept) -> None:
        n_rows, n_features = x.shape
        self._intercept = intercept
        self._shift = self._mean = None  # of all columns; of those that are not shifted in their values
        if intercept == "free":
            columns, values = x.col_indices(), x.values()
            self._shift = values.new_zeros(n_features).index_add_(0, columns, values) / n_rows
            # a column without a zero can be shifted itself, which keeps the digits of what is far from zero
            is_full = columns.bincount(minlength=n_features) == n_rows
            shifted = values - torch.where(is_full, self._shift, 0)[columns]
            x = csr_tensor(x.crow_indices(), columns, shifted, x.shape)
            self._mean = torch.where(is_full, 0, self._shift)
        self._x = x
        with without_notes():
            self._transposed = x.t().to_sparse_csr()
        parts = self._transposed.crow_indices(), self._transposed.col_indices()
        squares = self._transposed.values().square()
        self._squares = csr_tensor(*parts, squares, self._transposed.shape)
        self.n_columns = n_features + int(intercept != "none")

    @override
    def to(self, dtype: torch.dtype) -> Rows:
        other = copy.copy(self)
        for name in ("_x", "_transposed", "_squares", "_mean"):
            value = getattr(self, name)
            setattr(other, name, None if value is None else value.to(dtype))
        return other

    @override
    def times(self, theta: Tensor) -> Tensor:
        theta = theta[0]
        coef = theta if self._intercept == "none" else theta[:, :-1]
        out = self._x @ coef.T
        if self._intercept != "none":
            out += theta[:, -1] if self._mean is None else theta[:, -1] - coef @ self._mean
        return out.unsqueeze(0)

    @override
    def pull(self, values: Tensor) -> Tensor:
        out = (self._transposed @ values[0]).T
        if self._intercept != "none":
            sums = values[0].sum(0).unsqueeze(1)
            if self._mean is not None:
                out = out - sums * self._mean
            out = torch.cat([out, sums], 1)
        return out.unsqueeze(0)

    @override
    def pull_squares(self, values: Tensor) -> Tensor:
        out = (self._squares @ values[0]).T
        if self._intercept != "none":
            sums = values[0].sum(0).unsqueeze(1)
            if self._mean is not None:
                out = out - 2 * self._mean * (self._transposed @ values[0]).T + sums * self._mean.square()
                out.clamp_(min=0)  # sums of squares, which rounding may leave below zero
            out = torch.cat([out, sums], 1)
        return out.unsqueeze(0)

    @override
    def coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        if self._intercept == "none":
            return theta, torch.zeros_like(theta[..., 0])
        coef = theta[..., :-1]
        return coef, theta[..., -1] if self._shift is None else theta[..., -1] - coef @ self._shift


def triangle_positions(n: int, device: torch.device) -> Tensor:
    """(n, n): where in the lower triangle, row by row, the entries of a symmetric matrix are."""
    rows = torch.arange(n, device=device)
    high, low = torch.maximum(rows[:, None], rows), torch.minimum(rows[:, None], rows)
    return high * (high + 1) // 2 + low
