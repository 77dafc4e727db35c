r"""Exact greedy selection by the variances of a Gaussian process, in a few passes over the pool.

The process has a kernel k, and a pick is a value of it that becomes known up to a noise s. It takes k(x, p)^2 /
(k(p, p) + s) off the variance k(x, x), where k is what the picks before it left of the kernel. P picks at once take
|L^-1 k(P, x)|^2, with L L^T = k(P, P) + s. So variances only shrink, and blocks of picks are made as in
`torchal.engine.greedy`: the rows whose variance is at least a threshold are a block, and a row is picked in it while
its variance is the largest there and not below the threshold.

Nothing is kept for a pair of a row and a pick, which would be N n numbers: what the picks explain is computed in each
pass. Of a linear kernel that is |L^-1 P x|^2, a product with one direction for each pick. Of another kernel, a pass
computes k(P, x) again, for all picks so far. Only the few rows of an innermost block hold such numbers.

Ties of equal rows go to the lowest. Their computed variances may differ by rounding, so a block begins that much lower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.distances import Rows, Space, kinds
from torchal.engine.greedy import Picks, block_rows, small_block
from torchal.engine.sources import HeldRows, Source

_CACHED = 1 << 19  # numbers of an innermost block on a CPU: they stay in its cache
_MOST = 256  # picks of an innermost block, and so many numbers for each of its rows
_STEPS = 32  # picks between two looks at whether a block is done, where a look waits for the device
_PARTS = 1024  # picks of one matrix product with a chunk
_ALIKE = 16  # machine epsilons by which numbers of equal rows may differ, where they are computed
_PICKED = -torch.inf  # the variance of a row that may not be picked


class Posterior(Protocol):
    """A Gaussian process after noisy values at some rows.

    Args:
        noise: s.
    """

    noise: float
    n_observed: int

    def observe(self, rows: Rows) -> None:
        """Let the values at these rows be known."""

    def explained(self, rows: Rows, first: int, last: int) -> Tensor:
        """Return what the observations from number `first` up to `last` take off the variances of rows, (R,)."""

    def covariances(self, rows: Rows) -> Callable[[Tensor], Tensor]:
        """Return a function that gives the covariance of all of some rows with one of them (1,), (R,)."""


class LinearPosterior:
    """A process with the kernel x^T y; its covariance is x^T A y, with A = (1 + P^T P / s)^-1 for the rows P observed.

    A is kept as a matrix (D, D), or as 1 - W^T W where D is large; W, a direction for each row, is what passes need.

    Args:
        n_columns: D.
        noise: s.
        n_rows: how many rows will be observed.
        device: where it is kept, in float64.
    """

    def __init__(self, n_columns: int, noise: float, n_rows: int, device: torch.device) -> None:
        self.noise = noise
        self.n_observed = 0
        wide = 2 * n_rows < n_columns
        self._matrix = None if wide else torch.eye(n_columns, dtype=torch.float64, device=device)
        self._directions = torch.empty(0, n_columns, dtype=torch.float64, device=device)

    def observe(self, rows: Rows) -> None:
        """Let the values at these rows be known."""
        x = rows.x.double()
        images = self.apply(x)
        covariances = (x @ images.T).add_(images @ x.T).div_(2)
        covariances.diagonal().add_(self.noise)
        factor = _factor(covariances)
        new = torch.linalg.solve_triangular(factor, images, upper=False)
        self.n_observed += len(new)
        self._directions = torch.cat([self._directions, new])
        if self._matrix is not None:
            self._matrix.addmm_(new.T, new, alpha=-1)

    def apply(self, x: Tensor) -> Tensor:
        """Return A x of rows x (R, D)."""
        if self._matrix is not None:
            return x @ self._matrix.to(x.dtype)
        directions = self._directions.to(x.dtype)
        return torch.addmm(x, x @ directions.T, directions, alpha=-1)

    def observe_many(self, parts: Iterable[Rows]) -> Tensor:
        """Let the values at many rows be known, before all others; return B with |B x|^2 = x^T A x."""
        precision = torch.eye(self._directions.shape[1], dtype=torch.float64, device=self._directions.device)
        for rows in parts:
            x = rows.x.double()
            precision.addmm_(x.T, x, alpha=1 / self.noise)
        factor = _factor(precision)
        root: Tensor = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).to(factor), upper=False)
        self._matrix = root.T @ root
        return root

    def explained(self, rows: Rows, first: int, last: int) -> Tensor:
        """Return what the observations from number `first` up to `last` take off the variances of rows, (R,)."""
        return (rows.x @ self._directions[first:last].to(rows.x.dtype).T).square_().sum(1)

    def covariances(self, rows: Rows) -> Callable[[Tensor], Tensor]:
        """Return a function that gives the covariance of all of some rows with one of them (1,), (R,)."""
        x = rows.x
        if self._matrix is not None:
            matrix = self._matrix.to(x.dtype)
            return lambda row: x @ (matrix @ x[row].squeeze(0))
        directions = self._directions.to(x.dtype)

        def covariances_with(row: Tensor) -> Tensor:
            one = x[row].squeeze(0)
            return x @ torch.addmv(one, directions.T, directions @ one, alpha=-1)

        return covariances_with


def _factor(matrix: Tensor) -> Tensor:
    """Return a Cholesky factor; of a matrix that rounding has left indefinite, with a little more on its diagonal.

    Rows that are nearly known, at a noise near the rounding of the kernel, leave differences of numbers that are alike.
    """
    factor: Tensor
    factor, problem = torch.linalg.cholesky_ex(matrix)
    more = torch.finfo(matrix.dtype).eps * matrix.diagonal().abs().max()
    while bool(problem):
        matrix = matrix.clone()
        matrix.diagonal().add_(more)
        factor, problem = torch.linalg.cholesky_ex(matrix)
        more = more * 10
    return factor


class KernelPosterior:
    """A process whose kernel is the product of the rows of any space.

    Args:
        space: of the rows.
        noise: s.
        n_rows: how many rows will be observed.
        device: where it is kept, in float64.
    """

    def __init__(self, space: Space, noise: float, n_rows: int, device: torch.device) -> None:
        self.noise = noise
        self.n_observed = 0
        self._space = space
        self._rows: Rows | None = None
        self._inverse = torch.zeros(n_rows, n_rows, dtype=torch.float64, device=device)  # L^-1

    def observe(self, rows: Rows) -> None:
        """Let the values at these rows be known."""
        first, last = self.n_observed, self.n_observed + len(rows.x)
        new = Rows(rows.x.double(), rows.sq)
        covariances = self._space.dots(new, new)
        covariances.diagonal().add_(self.noise)
        if self._rows is not None:
            inverse = self._inverse[:first, :first]
            known = inverse @ self._space.dots(Rows(self._rows.x.double(), self._rows.sq), new)
            covariances.addmm_(known.T, known, alpha=-1)
        factor = _factor(covariances)
        unit = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        new_inverse = torch.linalg.solve_triangular(factor, unit, upper=False)
        self._inverse[first:last, first:last] = new_inverse
        if self._rows is None:
            self._rows = rows
        else:
            self._inverse[first:last, :first] = new_inverse @ known.T @ inverse * -1
            self._rows = Rows(torch.cat([self._rows.x, rows.x]), torch.cat([self._rows.sq, rows.sq]))
        self.n_observed = last

    def explained(self, rows: Rows, first: int, last: int) -> Tensor:
        """Return what the observations from number `first` up to `last` take off the variances of rows, (R,)."""
        return self._known(rows, first, last).square_().sum(1)

    def covariances(self, rows: Rows) -> Callable[[Tensor], Tensor]:
        """Return a function that gives the covariance of all of some rows with one of them (1,), (R,)."""
        known = self._known(rows, 0, self.n_observed)

        def covariances_with(row: Tensor) -> Tensor:
            products = self._space.dots(rows, rows.select(row)).squeeze(1)
            return torch.addmv(products, known, known[row].squeeze(0), alpha=-1)

        return covariances_with

    def _known(self, rows: Rows, first: int, last: int) -> Tensor:
        """Return L^-1 k(P, x) of rows, from number `first` up to `last`, (R, p)."""
        x = rows.x
        known = x.new_zeros(len(x), last - first)
        if self._rows is None:
            return known
        inverse = self._inverse[first:last, :last].to(x.dtype)
        for start in range(0, last, _PARTS):
            stop = min(start + _PARTS, last)
            some = Rows(self._rows.x[start:stop], self._rows.sq[start:stop])
            known.addmm_(self._space.dots(rows, some), inverse[:, start:stop].T)
        return known


class VariancePool:
    """Rows with the variance of each; -inf where it may not be picked.

    Args:
        source: the rows.
        prior: (N,) their variances before anything was observed.
        values: (N,) and now; written on.
        posterior: shared by a pool and its blocks.
        bound: the share of the prior by which computed variances of equal rows may differ.
        unit: whether the source gives rows that are still to be scaled to length 1.
    """

    def __init__(
        self, source: Source, prior: Tensor, values: Tensor, posterior: Posterior, bound: float, *, unit: bool = False
    ) -> None:
        self.source = source
        self.prior = prior
        self.values = values
        self.posterior = posterior
        self.bound = bound
        self.unit = unit
        self.n_known = 0
        """Of so many observations the variances know."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def few(self) -> int:
        """So many rows are cheap to look at for every pick."""
        numbers = _CACHED if self.values.device.type == "cpu" else values_per_chunk(self.values.device)
        return max(64, numbers // self.source.n_columns)

    def select(self, index: Tensor) -> Rows:
        """Return a copy of some rows, scaled."""
        rows = self.source.select(index)
        if not self.unit:
            return rows
        return Rows(rows.x.mul_(rows.sq.rsqrt().unsqueeze(1)), torch.ones_like(rows.sq))

    def block(self, index: Tensor) -> VariancePool:
        """Return some of the rows as a pool of their own, in memory."""
        rows = self.select(index)
        source = HeldRows(rows, rows.sq.max(), self.source.in_chunks)
        block = VariancePool(source, self.prior[index], self.values[index], self.posterior, self.bound)
        block.n_known = self.n_known
        return block

    def lower(self) -> None:
        """Let the variances know of all observations, in one pass."""
        n_observed = self.posterior.n_observed

        def lower_chunk(where: slice, rows: Rows) -> None:
            explained = torch.zeros_like(self.values[where])  # taken off at once: a chunk may be started anew
            for first in range(self.n_known, n_observed, _PARTS):
                explained += self.posterior.explained(rows, first, min(first + _PARTS, n_observed))
            self.values[where] -= explained.div_(rows.sq) if self.unit else explained

        self.source.each(lower_chunk, width=n_observed)
        self.n_known = n_observed

    def condition(self, index: Tensor) -> None:
        """Observe rows (L,) int64, none of which may be picked."""
        parts = (self.select(some) for some in index.split(_PARTS))
        if not isinstance(self.posterior, LinearPosterior) or len(index) <= self.source.n_columns:
            for rows in parts:
                self.posterior.observe(rows)
                self.lower()
            return
        root = self.posterior.observe_many(parts).to(self.values.dtype)

        def compute(where: slice, rows: Rows) -> None:
            values = (rows.x @ root.T).square_().sum(1)
            values = values.div_(rows.sq) if self.unit else values
            self.values[where] = torch.where(self.values[where] > _PICKED, values, _PICKED)

        self.source.each(compute, width=len(root))


def pick_variances(pool: VariancePool, n: int, least: Tensor | float = _PICKED) -> Picks:
    """Pick the row with the largest variance, and observe it, again and again: n rows, or until that is below `least`.

    Args:
        pool: its values are lowered by the picks, but for the last ones.
        n: at most the number of rows that may be picked.
        least: where to stop.

    Returns:
        Rows (p,) int64 in pick order, and their variances (p,) when they were picked.
    """
    rows: list[Tensor] = []
    scores: list[Tensor] = []
    missing = n
    while missing:
        best = pool.values.max()
        if best < least or best == _PICKED:
            break
        if len(pool) <= 2 * pool.few:
            picked, values = _pick_one_by_one(pool, missing, least)
        else:
            index, threshold = _block(pool, least)
            within, values = pick_variances(pool.block(index), missing, threshold)
            picked = index[within]
            pool.values[picked] = _PICKED
            if len(picked) < missing:
                pool.lower()
        rows.append(picked)
        scores.append(values)
        missing -= len(picked)
    if not rows:
        return torch.empty(0, dtype=torch.int64, device=pool.values.device), pool.values[:0]
    return torch.cat(rows), torch.cat(scores)


def _block(pool: VariancePool, least: Tensor | float) -> tuple[Tensor, Tensor | float]:
    """Return the rows of the next block, and above which variance its picks are those of the pool.

    Where so many rows are alike that no block is small, it is the next pick alone.
    """
    values = pool.values
    wanted = block_rows(values, pool.source.n_columns, pool.few)
    threshold = values.topk(wanted, sorted=False).values.min().clamp(min=0)  # not -inf, where few may be picked
    threshold = torch.maximum(threshold, torch.as_tensor(least, dtype=values.dtype, device=values.device))
    inside = (values >= threshold - pool.bound * pool.prior).nonzero().squeeze(1)
    block = small_block(inside, values, threshold, wanted, exact=False)
    if block.threshold is not None:
        return block.rows, block.threshold
    return _lowest_like(pool, values.argmax(0, keepdim=True)), _PICKED


def _lowest_like(pool: VariancePool, row: Tensor) -> Tensor:
    """Return the lowest row (1,) that equals this one and may be picked."""
    x = pool.source.select(row).x
    most = _ALIKE * torch.finfo(x.dtype).eps * x.abs().amax()
    alike = pool.values > _PICKED

    def look(where: slice, rows: Rows) -> None:
        alike[where] &= (rows.x - x).abs_().amax(1) <= most

    pool.source.each(look, width=1)
    return alike.to(torch.uint8).argmax(0, keepdim=True)


def _pick_one_by_one(pool: VariancePool, n: int, least: Tensor | float) -> Picks:
    """Do what `pick_variances` does on few rows, at most `_MOST` times, with a number for each row and pick.

    When the block is done, further steps change nothing, and on a GPU it is asked now and then only whether it is.
    """
    values, noise = pool.values, pool.posterior.noise
    rows = pool.select(torch.arange(len(pool), device=values.device))
    covariances_with = pool.posterior.covariances(rows)
    kind = kinds(rows.x)
    n = min(n, _MOST, len(pool))
    columns = values.new_empty(n, len(pool))
    picked = torch.full((n,), -1, dtype=torch.int64, device=values.device)
    scores = values.new_zeros(n)
    every = 1 if values.device.type == "cpu" else _STEPS
    for step in range(n):
        best, row = values.max(0, keepdim=True)
        going = (best >= least) & (best > _PICKED)
        if step % every == every - 1 and not bool(going):
            break
        alike = (kind == kind[row]) & (values > _PICKED)  # whose values may differ by rounding
        row = torch.where(going, alike.to(torch.uint8).argmax(0, keepdim=True), row)
        known = columns[:step]
        column = torch.addmv(covariances_with(row), known.T, known[:, row].squeeze(1), alpha=-1)
        column *= torch.where(going, (best.clamp(min=0) + noise).rsqrt(), 0)
        columns[step] = column
        values.addcmul_(column, column, value=-1)
        values.index_copy_(0, row, torch.where(going, _PICKED, values[row]))
        picked[step : step + 1] = torch.where(going, row, -1)
        scores[step : step + 1] = best
    done = int((picked >= 0).sum())
    pool.posterior.observe(rows.select(picked[:done]))
    pool.n_known = pool.posterior.n_observed
    return picked[:done], scores[:done]
