"""Rows that are Kronecker products of two factors, as the gradients of a linear layer are; never multiplied out.

With g = u x h, the product of two rows is that of their factors: <g, g'> = <u, u'> <h, h'>. So distances take two
matrix products of narrow rows, and a row holds its factors side by side: h first, then u.

The rounding error of a product is that of both factors' together, so the bound of `torchal.engine.distances` holds for
the sum of their columns. Pairs below it are computed again by what tells one row from the other. With u' = t u + w and
w at a right angle to u,

    |u x h - u' x h'|^2 = |u|^2 |h - t h'|^2 + |w|^2 |h'|^2,

a sum of squares of differences. Equal rows have the distance 0, and so have rows that are equal only as products, as
(2 u) x h and u x (2 h). Differences of u within its own rounding count as none, since u is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import check_finite
from torchal._chunks import SMALLEST_CHUNK, values_per_chunk
from torchal.engine.distances import Rows, Space
from torchal.engine.features import FeatureReader
from torchal.engine.sources import StreamedRows

_EQUAL = 16  # machine epsilons: u is computed, so it may differ by so much of its length between equal rows


class FactorReader:
    """Reads both factors of rows, side by side.

    Args:
        right: h.
        left: what u is made of.
        make_left: makes u of rows (R, C) of `left`, given the number of the first of them.
        dtype: of what is read.
        constant: whether each h is to have a 1 behind it, as the input of a layer with a bias.
    """

    def __init__(
        self,
        right: FeatureReader,
        left: FeatureReader,
        make_left: Callable[[Tensor, int], Tensor],
        *,
        dtype: torch.dtype,
        constant: bool,
    ) -> None:
        self.n_right = right.n_columns + constant
        self.n_columns = self.n_right + left.n_columns
        self.device = right.device
        self.dtype = dtype
        self.in_chunks = right.in_chunks
        self.shards = right.shards
        self._right, self._left, self._make_left = right, left, make_left
        self._room = torch.empty(0, dtype=self.dtype, device=self.device)

    def __len__(self) -> int:
        return len(self._right)

    def chunk_rows(self, width: int = 1) -> int:
        """Return how many rows to take at once when each makes `width` further values."""
        fitting = values_per_chunk(self.device) // max(self.n_columns, width)
        return self._right.given_chunk_rows or max(SMALLEST_CHUNK, fitting)

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start to stop on the device, (stop - start, n_columns), until the next read; to be written on."""
        size = (stop - start) * self.n_columns
        if len(self._room) < size:
            self._room = self._room.new_empty(size)
        room = self._room[:size].view(stop - start, self.n_columns)
        return self._join(room, self._right.read(start, stop), self._left.read(start, stop), start)

    def rows(self, index: Tensor) -> Tensor:
        """Return a copy of the rows of this index (n,) int64 on the device, (n, n_columns)."""
        room = self._room.new_empty(len(index), self.n_columns)
        return self._join(room, self._right.rows(index), self._left.rows(index), 0)

    def own_rows(self, index: Tensor) -> Tensor:
        """Return a copy of some of this rank's rows, (n, n_columns)."""
        room = self._room.new_empty(len(index), self.n_columns)
        return self._join(room, self._right.own_rows(index), self._left.own_rows(index), 0)

    def _join(self, room: Tensor, right: Tensor, left: Tensor, first: int) -> Tensor:
        room[:, : right.shape[1]] = right
        room[:, right.shape[1] : self.n_right] = 1
        room[:, self.n_right :] = self._make_left(left.to(self.dtype), first)
        return room


class KroneckerSpace(Space):
    """Euclidean distances between products of two factors. Values are squared distances.

    Args:
        n_columns: of both factors.
        n_right: columns of h.
        dtype: in which it computes.
        scales: powers of two that h and u are multiplied with.
    """

    def __init__(
        self, *, n_columns: int, n_right: int, dtype: torch.dtype, scales: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__(n_columns=n_columns + 4, dtype=dtype)
        self.n_right = n_right
        self.scales = scales

    def prepare(self, x: Tensor, sq: Tensor | None = None) -> Rows:
        """Return rows (R, n_columns), written on, made ready; their squared lengths are computed unless known."""
        h, u = self.factors(x)
        for factor, scale in zip((h, u), self.scales, strict=True):
            if scale != 1:
                factor.mul_(scale)
        return Rows(x, _dots(h, h) * _dots(u, u) if sq is None else sq)

    def distance(self, values: Tensor) -> Tensor:
        """Return the distances that have these values, in float64."""
        return values.double().sqrt() / self.scales[0] / self.scales[1]

    def lookup(self, rows: Rows) -> Callable[[int], NDArray[Any]]:
        """Return a function that gives the values (R,) of one row with all others."""
        matrix: NDArray[Any] = self.pairwise(rows, rows).numpy()
        return lambda i: matrix[i]

    def between(self, a: Rows, b: Rows) -> Tensor:
        """Return the value of each row of a with the same row of b, (A,), as sums of squared differences."""
        (h, u), (k, v) = self.factors(a.x), self.factors(b.x)
        equal = _EQUAL * torch.finfo(self.dtype).eps
        uu, vv, hh, kk = _dots(u, u), _dots(v, v), _dots(h, h), _dots(k, k)
        t = torch.where(uu > 0, _dots(u, v) / uu, 0)
        t = torch.where((t - 1).abs() <= equal, 1, t)
        t_ = t.unsqueeze(1)
        along, across = (h - t_ * k).square_().sum(1), (v - t_ * u).square_().sum(1)
        along = torch.where((t != 1) & (along <= equal * equal * hh), 0, along)  # t is rounded, but for 1
        across = torch.where(across <= equal * equal * vv, 0, across)
        return uu * along + kk * across

    def dots(self, a: Rows, b: Rows) -> Tensor:
        """Return the products of all pairs, (A, B)."""
        (h, u), (k, v) = self.factors(a.x), self.factors(b.x)
        return (h @ k.T).mul_(u @ v.T)

    def _product(self, a: Rows, b: Rows, out: Tensor) -> Tensor:
        """Return |b|^2 - 2 ab for all pairs, (A, B)."""
        (h, u), (k, v) = self.factors(a.x), self.factors(b.x)
        torch.mm(h, k.T, out=out)
        return torch.addcmul(b.sq, out, u @ v.T, value=-2, out=out)

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return h and u of rows."""
        return x[:, : self.n_right], x[:, self.n_right :]


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of each row of a with the same row of b."""
    return (a * b).sum(1)


def _largest(values: Tensor) -> float:
    """Return the largest absolute value; NaN where one is."""
    low, high = (float(value) for value in values.aminmax())
    return max(-low, high)


def open_factors(
    right: FeatureReader,
    left: FeatureReader,
    make_left: Callable[[Tensor, int], Tensor],
    *,
    constant: bool,
    among: Tensor,
) -> tuple[KroneckerSpace, StreamedRows]:
    """Return the space and the rows of two factors, in one pass over them unless they must be scaled.

    Args:
        right: as in `FactorReader`.
        left: as in `FactorReader`.
        make_left: as in `FactorReader`.
        constant: as in `FactorReader`.
        among: (N,) bool, the rows whose distances must be told apart.

    Raises:
        DataError: a number of h is NaN or infinite; what `make_left` raises.
    """
    dtype = torch.promote_types(torch.promote_types(right.dtype, left.dtype), torch.float32)
    reader = FactorReader(right, left, make_left, dtype=dtype, constant=constant)
    space = KroneckerSpace(n_columns=reader.n_columns, n_right=reader.n_right, dtype=dtype)
    source = StreamedRows(reader, space)
    peaks, highest = [0.0, 0.0], [0.0, 0.0]  # of those rows, and of all

    def look(where: slice, rows: Rows) -> None:
        for i, factor in enumerate(space.factors(rows.x)):
            largest = _largest(factor)
            if not math.isfinite(largest):
                check_finite("features", factor, first_row=where.start)
            highest[i] = max(highest[i], largest)
            some = factor[among[where]]
            peaks[i] = max(peaks[i], _largest(some) if len(some) else 0.0)

    source.each(look, width=1)
    seen = torch.tensor([peaks, highest], dtype=torch.float64)
    peaks, highest = reader.shards.all_reduce(seen, "max").tolist()
    if any(0 < peak < 1e-6 * high for peak, high in zip(peaks, highest, strict=True)):
        dtype = torch.float64  # the squares of both have no room in float32
    # Between these limits no square of a product overflows float32, and none that matters vanishes.
    scales = [1.0 if 1e-6 < peak < 1e6 or not peak else 2.0 ** min(-math.frexp(peak)[1], 100) for peak in peaks]
    if scales == [1.0, 1.0] and dtype == space.dtype:
        return space, source
    if not 1e-12 < peaks[0] < 1e15 and peaks[0] > 0:
        dtype, scales[0] = torch.float64, 2.0 ** min(-math.frexp(peaks[0])[1], 1000)
    reader = FactorReader(right, left, make_left, dtype=dtype, constant=constant)
    space = KroneckerSpace(
        n_columns=reader.n_columns, n_right=reader.n_right, dtype=dtype, scales=(scales[0], scales[1])
    )
    return space, StreamedRows(reader, space)
