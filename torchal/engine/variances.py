r"""Variances of a Gaussian process at the rows of a pool, given noisy values at the rows picked so far.

With the kernel k and the noise s, a pick p takes k(x, p)^2 / (k(p, p) + s) off the variance k(x, x), where k is what the
picks before it left of the kernel. So variances only shrink, and `torchal.engine.shrinking` finds the largest in few
passes. P picks are applied at once: with L L^T the covariance of the picks, noise included, they take |L^-1 k(P, x)|^2.

Of a linear kernel, k(x, y) = x^T y, what the picks leave is linear again: x^T A y with A = F^T F, so it is that of rows
F x. `WhitenedPool` keeps F, which is the unit matrix and as many outer products as there were picks, and a block of it
holds rows F x, for which nothing was picked. So no number is kept for a pair of a row and a pick, and variances are
lengths, sums of squares that lose nothing by cancelling; in passes they are lowered by differences all the same, which
costs fewer products, and computed again once they have shrunk to an eighth.

Of another kernel, `KernelPool` keeps L^-1, and each pass computes the kernel of all rows with all picks again: the
numbers L^-1 k(P, x) of all rows would be N x n. Only blocks hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.distances import Rows
from torchal.engine.scaled_rows import ScaledRows
from torchal.engine.sources import StreamedRows

_CACHED = 1 << 19  # numbers of a block whose rows are read for each pick; on a GPU, so many times a chunk's share
_BLOCKS = 16  # a block may be this many times as large as a chunk
_SHRUNK = 8  # how far variances may shrink before they are computed again
_FEWEST = 64  # columns that a block of whitened rows has room for

Kernel: TypeAlias = Callable[[Rows, Rows], Tensor]
"""Gives the kernel of all pairs, (A, B)."""


class WhitenedPool:
    """Rows of a linear kernel.

    Args:
        rows: x.
        noise: s, in the units of x^T x.
        candidates: (N,) bool, which may be picked.
    """

    def __init__(self, rows: ScaledRows, noise: float, candidates: Tensor) -> None:
        self.rows = rows
        self.values = torch.where(candidates, rows.sq, -torch.inf)
        self._candidates = candidates
        self._longest = float(rows.sq.max())
        self.noise = max(noise, _least_noise(self._longest, rows.dtype))
        self._fresh = self._longest
        self.few = _few(rows.device, rows.n_columns)
        self.most = max(self.few, _BLOCKS * values_per_chunk(rows.device) // rows.n_columns)
        self._whitening = Whitening(rows.n_columns, self.noise, rows.device)

    def __len__(self) -> int:
        return len(self.rows)

    def slack(self) -> float:
        """Return how far apart the computed variances of two equal rows may be."""
        return rounding(self.rows.n_columns, self.rows.dtype) * (self._fresh * self._longest) ** 0.5

    def block(self, index: Tensor) -> WhitenedBlock:
        """Return some of the rows."""
        x = self.rows.select(index)
        if self._whitening.rank:
            return WhitenedBlock(self._whitening.apply(x), self.noise, self._longest)
        return WhitenedBlock(x, self.noise, self._longest, self.values[index])  # exactly equal, of a cosine

    def lower(self, picked: Tensor) -> None:
        """Take what these picks (p,) int64 explain off the variances."""
        x = self.rows.select(picked)
        columns = self._whitening.add(x).to(x.dtype)
        if len(columns) >= self.rows.n_columns:
            self._compute()
            return

        def lower_chunk(where: slice, rows: Tensor) -> None:
            self.values[where] -= self._scaled((rows @ columns.T).square_().sum(1), where)

        self.rows.each(lower_chunk, width=len(columns))

    def refresh(self) -> None:
        """Compute the variances again once the largest has shrunk to an eighth."""
        largest = float(self.values.max())
        if 0 < self._fresh and -torch.inf < largest < self._fresh / _SHRUNK:
            self._compute()

    def condition(self, labeled: Tensor) -> None:
        """Let the variances know of labeled rows, a mask (N,) bool, from which none can be picked."""
        index = labeled.nonzero().squeeze(1)
        if len(index):
            size = max(1, self.rows.reader.chunk_rows())
            self._whitening.add_all(self.rows.select(some) for some in index.split(size))
            self._compute()

    def _compute(self) -> None:
        def compute(where: slice, rows: Tensor) -> None:
            values = self._scaled(self._whitening.apply(rows).square_().sum(1), where)
            self.values[where] = torch.where(self.values[where] > -torch.inf, values, -torch.inf)

        self.rows.each(compute, width=2 * self.rows.n_columns)
        self._fresh = max(float(self.values.max()), 0.0)

    def _scaled(self, squares: Tensor, where: slice) -> Tensor:
        """Return squares of products with rows that were not scaled yet, as if they had been."""
        factors = self.rows.factors
        return squares if factors is None else squares * factors[where].square()


class Whitening:
    """F with F^T F = (1 + sum of x x^T / s)^-1 over the rows x that were added.

    With few of them F = 1 - U V^T, a column for each; with more, F is a matrix.

    Args:
        n_columns: D.
        noise: s.
        device: where it is kept, in float64.
    """

    def __init__(self, n_columns: int, noise: float, device: torch.device) -> None:
        self.noise = noise
        self._left = torch.empty(n_columns, 0, dtype=torch.float64, device=device)
        self._right = self._left
        self._matrix: Tensor | None = None
        self.rank = 0
        """How many rows were added."""

    def apply(self, x: Tensor) -> Tensor:
        """Return F x for rows x (R, D), a copy in their dtype unless nothing was added."""
        if self._matrix is not None:
            return x @ self._matrix.to(x.dtype).T
        if not self.rank:
            return x
        return torch.addmm(x, x @ self._right.to(x.dtype), self._left.to(x.dtype).T, alpha=-1)

    def add(self, x: Tensor) -> Tensor:
        """Add rows (p, D); return C (p, D) such that they take |C x|^2 off the variance of x."""
        z = self.apply(x.double())
        self.rank += len(x)
        to_add, explained = _square_root(z, self.noise)
        back = self._transposed(torch.stack([to_add, explained]).flatten(0, 1))
        onto, columns = back.split(len(z))
        if self._matrix is not None:
            self._matrix = self._matrix - z.T @ onto
            return columns
        self._left = torch.cat([self._left, z.T], 1)
        self._right = torch.cat([self._right, onto.T], 1)
        n_columns, rank = self._left.shape
        if 2 * rank >= n_columns:
            self._matrix = torch.eye(n_columns, dtype=torch.float64, device=x.device) - self._left @ self._right.T
            self._left = self._right = self._left[:, :0]
        return columns

    def add_all(self, parts: Iterable[Tensor]) -> None:
        """Add rows in parts (R, D), as many as there are, where nothing was added yet."""
        precision = torch.eye(len(self._left), dtype=torch.float64, device=self._left.device)
        for x in parts:
            x = x.double()
            self.rank += len(x)
            precision.addmm_(x.T, x, alpha=1 / self.noise)
        factor = torch.linalg.cholesky(precision)
        unit = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        self._matrix = torch.linalg.solve_triangular(factor, unit, upper=False)

    def _transposed(self, y: Tensor) -> Tensor:
        """Return y F for rows y (R, D)."""
        if self._matrix is not None:
            return y @ self._matrix
        return y - (y @ self._left) @ self._right.T


def _square_root(z: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Return G z and C (p, D), with (1 + z^T z / s)^-1 = (1 - z^T G z)^2 = 1 - C^T C, for rows z (p, D)."""
    values, vectors = torch.linalg.eigh(z @ z.T)
    values = values.clamp_(min=0) + noise
    projected = vectors.T @ z
    weights = 1 / (values * (1 + (noise / values).sqrt()))
    return vectors @ (weights.unsqueeze(1) * projected), projected / values.sqrt().unsqueeze(1)


class HeldColumns:
    """Rows in memory, and the numbers L^-1 k(P, x) of each with the picks that it was told of one by one.

    Args:
        values: (m,) their variances.
        noise: s.
        columns: (p, m) those numbers so far.
        room: for so many more of them.
    """

    def __init__(self, values: Tensor, noise: float, columns: Tensor, room: int) -> None:
        self.values = values
        self.noise = noise
        self._held, self._room = columns, room
        self._n_columns = len(columns)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def columns(self) -> Tensor:
        """(p, m) what is known of picks."""
        return self._held[: self._n_columns]

    def slack(self) -> float:
        """Return how far apart the computed variances of two equal rows may be."""
        raise NotImplementedError

    def covariances(self, row: Tensor) -> Tensor:
        """Return the kernel (m,) of all rows with one (1,)."""
        raise NotImplementedError

    def pick(self, row: Tensor, best: Tensor, going: Tensor) -> Tensor:
        """Pick a row (1,), or the lowest of those equal to it; see `torchal.engine.shrinking.Block`."""
        columns = self.columns
        covariances = self.covariances(row)
        if len(columns):
            covariances = torch.addmv(covariances, columns.T, columns[:, row].squeeze(1), alpha=-1)
        limit = best - self.slack()
        alike = (torch.minimum(covariances, self.values) >= limit).index_fill_(0, row, True)
        row = alike.to(torch.uint8).argmax(0, keepdim=True)
        column = covariances * torch.where(going, (best.clamp(min=0) + self.noise).rsqrt(), 0)
        self.values.addcmul_(column, column, value=-1)
        self._append(column.unsqueeze(0))
        return row

    def _append(self, columns: Tensor) -> None:
        stop = self._n_columns + len(columns)
        if stop > len(self._held):
            self._held = torch.cat([self.columns, columns.new_empty(max(len(columns), self._room), len(self))])
        self._held[self._n_columns : stop] = columns
        self._n_columns = stop


class WhitenedBlock(HeldColumns):
    """Rows F x of a linear kernel.

    Args:
        z: (m, D) rows, written on.
        noise: s.
        longest: squared length of the longest x.
        values: (m,) their squared lengths, if known.
    """

    def __init__(self, z: Tensor, noise: float, longest: float, values: Tensor | None = None) -> None:
        room = max(_FEWEST, z.shape[1] // 2)
        values = z.square().sum(1) if values is None else values
        super().__init__(values, noise, z.new_empty(0, len(z)), room)
        self.z = z
        self.few = _few(z.device, z.shape[1])
        self.most = len(z)
        self._longest = longest
        self._fresh = float(self.values.max())
        self._picked: list[Tensor] = []

    def slack(self) -> float:
        """Return how far apart the computed variances of two equal rows may be."""
        return rounding(self.z.shape[1], self.z.dtype) * (self._fresh * self._longest) ** 0.5

    def covariances(self, row: Tensor) -> Tensor:
        """Return the kernel of all rows with one."""
        return torch.mv(self.z, self.z[row].squeeze(0))

    def pick(self, row: Tensor, best: Tensor, going: Tensor) -> Tensor:
        """Pick a row, and remember it."""
        row = super().pick(row, best, going)
        self._picked.append(torch.where(going, row, -1))
        return row

    def room(self) -> tuple[int, float]:
        """Return how many columns there is room for, and when variances are computed again."""
        return self._room - self._n_columns, self._fresh / _SHRUNK

    def refresh(self) -> None:
        """Whiten the rows once the largest variance has shrunk to an eighth, or there is no room for columns."""
        if self._n_columns and (self._n_columns >= self._room or float(self.values.max()) < self._fresh / _SHRUNK):
            picked = torch.cat(self._picked)
            self.lower(picked[picked >= 0])

    def block(self, index: Tensor) -> WhitenedBlock:
        """Return some of the rows, of which none was picked one by one."""
        return WhitenedBlock(self.z[index], self.noise, self._longest, self.values[index])

    def lower(self, picked: Tensor) -> None:
        """Whiten the rows by these picks (p,) int64, those made one by one included."""
        z = self.z[picked].double()
        onto, _ = _square_root(z, self.noise)
        z, onto = z.to(self.z.dtype), onto.to(self.z.dtype)
        self.z.addmm_(self.z @ onto.T, z, alpha=-1)
        self.values = torch.where(self.values > -torch.inf, self.z.square().sum(1), -torch.inf)
        self._fresh = max(float(self.values.max()), 0.0)
        self._n_columns, self._picked = 0, []


class KernelPool:
    """Rows of any kernel, computed from pairs.

    Args:
        source: x.
        kernel: k.
        prior: (N,) k(x, x).
        noise: s.
        n: how many picks there will be.
        candidates: (N,) bool, which may be picked.
    """

    def __init__(  # noqa: PLR0917 - one thing each
        self, source: StreamedRows, kernel: Kernel, prior: Tensor, noise: float, n: int, candidates: Tensor
    ) -> None:
        self.source = source
        self.kernel = kernel
        self.prior = prior
        self.values = torch.where(candidates, prior, -torch.inf)
        self._longest = float(prior.max())
        self.noise = max(noise, rounding(source.n_columns, prior.dtype) * self._longest)
        self._n = n
        self._picks: Rows | None = None
        self._inverse = torch.empty(0, 0, dtype=torch.float64, device=prior.device)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def few(self) -> int:
        """So many rows are cheap to look at for every pick."""
        return _few(self.values.device, self.source.n_columns + len(self._inverse))

    @property
    def most(self) -> int:
        """For so many rows there is memory, with a number for each pick."""
        width = self.source.n_columns + len(self._inverse) + self._n
        return max(self.few, _BLOCKS * values_per_chunk(self.values.device) // width)

    def refresh(self) -> None:
        """Do nothing: what is left of a variance is a difference whichever way it is computed."""

    def slack(self) -> float:
        """Return how far apart the computed variances of two equal rows may be."""
        return rounding(self.source.n_columns, self.values.dtype) * self._longest

    def block(self, index: Tensor) -> KernelBlock:
        """Return some of the rows, and what is known of them and the picks."""
        rows, prior = self.source.select(index), self.prior[index]
        if self._picks is None:
            columns = prior.new_empty(0, len(index))
        else:
            columns = self._inverse.to(prior.dtype) @ self.kernel(self._picks, rows)
        return KernelBlock(rows, self.kernel, prior - columns.square().sum(0), self.noise, columns, self.slack())

    def lower(self, picked: Tensor) -> None:
        """Take what these picks (p,) int64 explain off the variances."""
        new = self.source.select(picked)
        self._picks = new if self._picks is None else Rows(*map(torch.cat, zip(self._picks, new, strict=True)))
        n_old = len(self._inverse)
        covariance = self.kernel(self._picks, new).double()
        among_new = covariance[n_old:]
        among_new = (among_new + among_new.T) / 2
        known = self._inverse @ covariance[:n_old]
        among_new.diagonal().add_(self.noise)
        factor = torch.linalg.cholesky(among_new - known.T @ known)
        unit = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, unit, upper=False)
        rows = torch.cat([-inverse @ known.T @ self._inverse, inverse], 1)
        grown = torch.zeros(n_old + len(factor), n_old + len(factor), dtype=factor.dtype, device=factor.device)
        grown[:n_old, :n_old], grown[n_old:] = self._inverse, rows
        self._inverse = grown
        weights, picks = rows.T.to(self.values.dtype), self._picks

        def lower_chunk(start: int, stop: int) -> None:
            columns = self.kernel(self.source.part(start, stop), picks) @ weights
            self.values[start:stop] -= columns.square_().sum(1)

        size = self.source.reader.chunk_rows(len(rows.T))
        self.source.in_chunks(len(self), size, lower_chunk)

    def condition(self, labeled: Tensor) -> None:
        """Let the variances know of labeled rows, a mask (N,) bool, from which none can be picked."""
        index = labeled.nonzero().squeeze(1)
        if len(index):
            self.lower(index)


class KernelBlock(HeldColumns):
    """Rows of any kernel in memory, and a number for each row and pick."""

    def __init__(  # noqa: PLR0917 - one thing each
        self, rows: Rows, kernel: Kernel, values: Tensor, noise: float, columns: Tensor, slack: float
    ) -> None:
        super().__init__(values, noise, columns, room=_FEWEST)
        self.rows = rows
        self.kernel = kernel
        self._slack = slack

    @property
    def few(self) -> int:
        """So many rows are cheap to look at for every pick."""
        return _few(self.values.device, self.rows.x.shape[1] + self._n_columns)

    @property
    def most(self) -> int:
        """All of them."""
        return len(self)

    def slack(self) -> float:
        """Return how far apart the computed variances of two equal rows may be."""
        return self._slack

    def covariances(self, row: Tensor) -> Tensor:
        """Return the kernel of all rows with one."""
        return self.kernel(self.rows, self.rows.select(row)).squeeze(1)

    def room(self) -> tuple[int, float]:
        """Return that there is no end."""
        return len(self), -torch.inf

    def refresh(self) -> None:
        """Do nothing."""

    def block(self, index: Tensor) -> KernelBlock:
        """Return some of the rows."""
        columns, values = self.columns[:, index], self.values[index]
        return KernelBlock(self.rows.select(index), self.kernel, values, self.noise, columns, self._slack)

    def lower(self, picked: Tensor) -> None:
        """Take what these picks (p,) int64 explain off the variances."""
        known = self.columns[:, picked]
        new = self.rows.select(picked)
        covariances = self.kernel(new, self.rows) - known.T @ self.columns
        among = covariances[:, picked].double()
        among = (among + among.T) / 2
        among.diagonal().add_(self.noise)
        factor = torch.linalg.cholesky(among).to(covariances.dtype)
        columns = torch.linalg.solve_triangular(factor, covariances, upper=False)
        self.values -= columns.square().sum(0)
        self._append(columns)


def _few(device: torch.device, n_columns: int) -> int:
    """Return how many rows are cheap to look at for every pick."""
    numbers = _CACHED if device.type == "cpu" else values_per_chunk(device)
    return max(64, numbers // max(n_columns, 1))


def rounding(n_columns: int, dtype: torch.dtype) -> float:
    """Return the share of a variance of which those of two equal rows may differ."""
    return 4 * (n_columns + 4) * torch.finfo(dtype).eps


def _least_noise(longest: float, dtype: torch.dtype) -> float:
    """Return what the noise is at least, so that a variance that is only rounding explains nothing."""
    return max(longest * torch.finfo(dtype).eps, torch.finfo(dtype).tiny)
