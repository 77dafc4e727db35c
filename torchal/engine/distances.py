"""Distances between rows: as matrix products where there is one, and exactly zero between equal rows.

A *space* belongs to one metric and one set of features. It makes rows ready (centred, or scaled to length 1) and gives
*values* that are ordered as the distances are: squared distances for euclidean and cosine, where no root is needed
until the end.

The squared distance of two rows is |a|^2 + |b|^2 - 2 ab, one matrix product for many pairs. Its rounding error is at
most `bound` (|a|^2 + |b|^2) with `bound` = (D + 4) machine epsilons: each of the three sums of D products is off by at
most D / 2 epsilons of its size, and 2 |ab| <= |a|^2 + |b|^2. So two equal rows, whose distance is 0, come out below
that bound, and pairs below it are computed again as the sum of squared differences: 0 for equal rows, and accurate for
near ones. Features that are whole numbers, so small that every product and sum is one too, have no error at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import check_finite
from torchal._chunks import values_per_chunk
from torchal.engine import faiss_search
from torchal.engine.features import FeatureReader
from torchal.errors import CapabilityError, ConfigError, DataError

Metric: TypeAlias = Literal["euclidean", "cosine", "manhattan"]
ProductMetric: TypeAlias = Literal["euclidean", "cosine"]  # those whose values are one matrix product
Backend: TypeAlias = Literal["auto", "faiss", "torch"]


class Rows(NamedTuple):
    """Rows made ready by a space.

    Shapes:
        x: (R, D).
        sq: (R,), the squared lengths.
    """

    x: Tensor
    sq: Tensor

    def select(self, index: Tensor) -> Rows:
        """Return a copy of the rows of this index (n,) int64."""
        return Rows(self.x.index_select(0, index), self.sq.index_select(0, index))


class Survey(NamedTuple):
    """What one pass over the features says about them.

    Shapes:
        total: (D,) float64, the sum of the rows (cosine: of the rows scaled to length 1).
    """

    total: Tensor
    peak: float
    """The largest size of a number."""
    spread: float
    """The largest difference between two numbers."""
    whole: bool
    """Whether every number is a whole one."""
    some: Tensor | None = None
    """(n, D), the rows that `_spread` names, where they had to be fetched from other ranks."""


def check_rows(x: Tensor, metric: Metric, *, first_row: int) -> tuple[float, float]:
    """Require of some rows that they have distances; return their least and largest number.

    Args:
        x: the rows.
        metric: of the distances.
        first_row: the number of the first of them, by which they are called.

    Shapes:
        x: (n, D) float.

    Raises:
        DataError: a number is NaN or infinite; a row of zeros, which has no direction, with cosine distances.
    """
    low, high = (float(value) for value in x.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        check_finite(f"features (from row {first_row} on)" if first_row else "features", x, first_row=first_row)
    if metric == "cosine":
        zeros = (x == 0).all(1)
        if bool(zeros.any()):
            row = first_row + int(zeros.nonzero()[0])
            raise DataError(f"cosine distances need rows with a direction; row {row} is all zeros")
    return low, high


def survey(reader: FeatureReader, metric: Metric) -> Survey:
    """Read all features once and check them; those of all ranks.

    Raises:
        DataError: a number is NaN or infinite; a row of zeros, which has no direction, with cosine distances.
    """
    total = torch.zeros(reader.n_columns, dtype=torch.float64, device=reader.device)
    low, high, whole = math.inf, -math.inf, True

    def look(start: int, stop: int) -> None:
        nonlocal total, low, high, whole
        x = reader.read(start, stop)
        extremes = check_rows(x, metric, first_row=reader.shards.start + start)
        whole = whole and bool((x == x.round()).all())
        if metric == "cosine":
            x = unit_rows(x)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        total = total + (x.sum(0, dtype=torch.float64) if whole else x.sum(0).double())
        low, high = min(low, extremes[0]), max(high, extremes[1])

    reader.in_chunks(len(reader), reader.chunk_rows(), look)
    some = None
    if not reader.shards.alone:
        seen = torch.cat([total, total.new_tensor([-low, high, not whole])]).unsqueeze(0)
        index = _spread(reader)
        some, of_ranks = reader.rows_beside(index if metric == "euclidean" else index[:0], seen)
        total, rest = of_ranks[:, :-3].sum(0), of_ranks[:, -3:].amax(0).tolist()
        low, high, whole = -rest[0], rest[1], not rest[2]
    return Survey(total, max(-low, high), high - low, whole, some)


def unit_rows(x: Tensor) -> Tensor:
    """Return rows scaled to length 1, at least float32; a row of zeros stays."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    peak = x.abs().amax(1, keepdim=True)
    zeros = peak == 0
    x = x / peak.masked_fill_(zeros, 1)  # or squares might overflow or vanish
    lengths: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x.div_(lengths.masked_fill_(zeros, 1))


def kinds(x: Tensor) -> Tensor:
    """Return a number for each row (R,) float64, the same for equal rows, and by all likelihood for no others."""
    weights = torch.arange(1, x.shape[1] + 1, dtype=torch.float64, device=x.device).sin_()
    size = max(1, values_per_chunk(x.device) // x.shape[1])
    return torch.cat([(some * weights).sum(1) for some in x.split(size)])


class Space:
    """Euclidean distances; the base of the others. Values are squared distances.

    Args:
        dtype: in which it computes.
        shift: what is taken off each row, (D,): distances stay, and rounding errors shrink with the rows' lengths.
        scale: a power of two that each row is multiplied with, so that squares neither overflow nor vanish.
        exact: whether no product or sum is rounded.
        largest: an upper bound on the values, where they are exact.
    """

    block_rows = 1024
    """How many rows' distances to each other cost less than a pass over a large pool."""

    def __init__(
        self,
        *,
        n_columns: int,
        dtype: torch.dtype,
        shift: Tensor | None = None,
        scale: float = 1.0,
        exact: bool = False,
        largest: float = math.inf,
    ) -> None:
        self.n_columns = n_columns
        self.dtype = dtype
        self.shift = None if shift is None else (shift * scale).to(dtype)
        self.scale = scale
        self.exact = exact
        self.largest = largest
        """An upper bound on the values, where they are exact."""
        self.bound = 0.0 if exact else (n_columns + 4) * torch.finfo(dtype).eps
        # |a| and |b| of a pair below the bound differ by at most sqrt(2 bound) (|a| + |b|)
        root = math.sqrt(2 * self.bound)
        self.near = self.bound * (1 + ((1 + root) / (1 - root)) ** 2) if root < 1 else math.inf
        """No pair whose value is to be computed again has one of more than this many squared lengths of either row."""
        self._room = torch.empty(0, dtype=dtype)

    def whole_step(self, n_rows: int) -> float:
        """Return a number that can be added n_rows times to any value, exactly in float64, without reaching the next.

        0 where values are no whole numbers, or too large.
        """
        step = 2.0 ** -n_rows.bit_length()
        return step if self.exact and self.largest / step < 2**53 else 0.0

    def prepare(self, x: Tensor, sq: Tensor | None = None) -> Rows:
        """Return rows (R, D) made ready; their squared lengths are computed unless known."""
        x = x.to(self.dtype)
        if self.scale != 1:
            x = x * self.scale
        if self.shift is not None:
            x = x - self.shift
        return Rows(x, (x * x).sum(1) if sq is None else sq)

    def restore(self, x: Tensor) -> Tensor:
        """Return what `prepare` made of rows (R, D), as it was."""
        return (x if self.shift is None else x + self.shift) / self.scale

    def pairwise(self, a: Rows, b: Rows) -> Tensor:
        """Return the values of all pairs, (A, B)."""
        values = self._product(a, b, a.x.new_empty(len(a.x), len(b.x))).add_(a.sq.unsqueeze(1))
        if not self.exact:
            # First by one number a row: a matrix of bounds would cost more than the product.
            i, j = (values < (self.near * a.sq).unsqueeze(1)).nonzero().unbind(1)
            close = values[i, j] <= self.bound * (a.sq[i] + b.sq[j])
            size = max(1, values_per_chunk(values.device) // a.x.shape[1])
            for some, others in zip(i[close].split(size), j[close].split(size), strict=True):
                values[some, others] = self.between(a.select(some), b.select(others))
        return values

    def rough(self, a: Rows, b: Rows) -> Tensor:
        """Return the values of all pairs, (A, B), near ones as they are rounded; to be used before the next call."""
        return self.products(a, b).add_(a.sq.unsqueeze(1))

    def products(self, a: Rows, b: Rows) -> Tensor:
        """Return |b|^2 - 2 ab for all pairs, (A, B); to be used before the next call."""
        return self._product(a, b, self._room_for(a, b))

    def lookup(self, rows: Rows) -> Callable[[int], NDArray[Any]]:
        """Return a function that gives the values (R,) of one row with all others, for few rows on a CPU.

        The pairs that are to be computed again are found row by row, since few of the rows are ever asked for.
        """
        matrix = torch.addmm(rows.sq, rows.x, rows.x.T, alpha=-2).add_(rows.sq.unsqueeze(1)).fill_diagonal_(0).numpy()
        if self.exact:
            return lambda i: matrix[i]
        x, sq = rows.x.numpy(), rows.sq.numpy()
        limits = (self.bound * (sq + sq.max())).tolist()

        def row(i: int) -> NDArray[Any]:
            values: NDArray[Any] = matrix[i]
            close = (values <= limits[i]).nonzero()[0]
            if len(close) > 1:
                close = close[values[close] <= self.bound * (sq[close] + sq[i])]
                values[close] = np.square(x[close] - x[i]).sum(1)
            return values

        return row

    def nearest(self, a: Rows, b: Rows) -> Tensor:
        """Return the value of each row of a with the nearest row of b, (A,)."""
        values = self.products(a, b).amin(1).add_(a.sq)
        if not self.exact:
            close = (values < self.near * a.sq).nonzero().squeeze(1)
            if len(close):
                values[close] = self.pairwise(a.select(close), b).amin(1)
        return values

    def _product(self, a: Rows, b: Rows, out: Tensor) -> Tensor:
        """Return |b|^2 - 2 ab for all pairs, (A, B)."""
        return torch.addmm(b.sq, a.x, b.x.T, alpha=-2, out=out)

    def _room_for(self, a: Rows, b: Rows) -> Tensor:
        """Return memory for a number of each pair, (A, B), that is used again: new memory costs too much."""
        if len(self._room) < len(a.x) * len(b.x) or self._room.device != a.x.device:
            self._room = a.x.new_empty(len(a.x) * len(b.x))
        return self._room[: len(a.x) * len(b.x)].view(len(a.x), len(b.x))

    def nearest_index(self, a: Rows, b: Rows) -> tuple[Tensor, Tensor]:
        """Return the value of each row of a with the nearest row of b, and which, (A,) both; ties to the first."""
        products = self.products(a, b)
        on_cpu = products.device.type == "cpu"  # where numpy's argmin is three times faster
        index = torch.from_numpy(products.numpy().argmin(1)) if on_cpu else products.argmin(1)
        values = products.gather(1, index.unsqueeze(1)).squeeze(1) + a.sq
        close = (values <= self.bound * (a.sq + b.sq.max())).nonzero().squeeze(1)
        if len(close) and not self.exact:
            values[close], index[close] = self.pairwise(a.select(close), b).min(1)
        return values, index

    def dots(self, a: Rows, b: Rows) -> Tensor:
        """Return the products ab of all pairs of rows as they were made ready, (A, B)."""
        return a.x @ b.x.T

    def between(self, a: Rows, b: Rows) -> Tensor:
        """Return the value of each row of a with the same row of b, (A,), as sums of differences."""
        return (a.x - b.x).square_().sum(1)

    def slack(self, value: Tensor, longest_sq: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return how far apart the computed values of two equal distances near `value` may be, times weights."""
        slack = 4 * self.bound * longest_sq
        return slack if weights is None else slack * weights

    def linear(self) -> Space:
        """Return a space of the same distances whose values are multiples of the distances, or of their squares."""
        return self

    def squared(self, factors: Tensor) -> Tensor:
        """Return what multiplies values where distances are multiplied by some factors: their squares."""
        return factors * factors

    def distance(self, values: Tensor) -> Tensor:
        """Return the distances that have these values."""
        return values.sqrt() / self.scale

    def value(self, distance: float) -> float:
        """Return the value that has this distance."""
        return (distance * self.scale) ** 2


class CosineSpace(Space):
    """Cosine distances, 1 - cos: half the squared distances of rows scaled to length 1."""

    def prepare(self, x: Tensor, sq: Tensor | None = None) -> Rows:
        """Return rows scaled to length 1."""
        return super().prepare(unit_rows(x.to(self.dtype)), sq)

    def squared(self, factors: Tensor) -> Tensor:
        """Return what multiplies values where distances are multiplied by some factors: the same."""
        return factors

    def distance(self, values: Tensor) -> Tensor:
        """Return 1 - cos."""
        return values / 2

    def value(self, distance: float) -> float:
        """Return the value of 1 - cos."""
        return distance * 2


class PairSpace(Space):
    """A space whose values of pairs are right at once: none is computed again."""

    def rough(self, a: Rows, b: Rows) -> Tensor:
        """Return the values of all pairs, (A, B)."""
        return self.pairwise(a, b)

    def lookup(self, rows: Rows) -> Callable[[int], NDArray[Any]]:
        """Return a function that gives the values (R,) of one row with all others."""
        matrix: NDArray[Any] = self.pairwise(rows, rows).numpy()
        return lambda i: matrix[i]

    def nearest(self, a: Rows, b: Rows) -> Tensor:
        """Return the value of each row of a with the nearest row of b, (A,)."""
        return self.pairwise(a, b).amin(1)

    def nearest_index(self, a: Rows, b: Rows) -> tuple[Tensor, Tensor]:
        """Return the value of each row of a with the nearest row of b, and which it is."""
        values, index = self.pairwise(a, b).min(1)
        return values, index


class WholeCosineSpace(PairSpace):
    """Cosine distances of features that are whole numbers. Values are 1 - cos |cos|.

    cos |cos| = ab |ab| / (|a|^2 |b|^2) is one rounded division of two whole numbers, so equal angles have equal values.
    """

    def pairwise(self, a: Rows, b: Rows) -> Tensor:
        """Return the values of all pairs, (A, B)."""
        products = a.x @ b.x.T
        return (products * products.abs()).div_(a.sq.unsqueeze(1) * b.sq).neg_().add_(1)

    def between(self, a: Rows, b: Rows) -> Tensor:
        """Return the value of each row of a with the same row of b, (A,)."""
        products = (a.x * b.x).sum(1)
        return 1 - products * products.abs() / (a.sq * b.sq)

    def linear(self) -> Space:
        """Return a space whose values are 1 - cos: equal angles still have equal ones, some of unequal ones too."""
        return _WholeCosineDistances(n_columns=self.n_columns, dtype=self.dtype, exact=True)

    def squared(self, factors: Tensor) -> Tensor:
        """Return what multiplies values of the `linear` space where distances are multiplied: the same."""
        return factors

    def distance(self, values: Tensor) -> Tensor:
        """Return 1 - cos."""
        signed = 1 - values
        return 1 - signed.sign() * signed.abs().sqrt()

    def value(self, distance: float) -> float:
        """Return the value of 1 - cos."""
        return 1 - (1 - distance) * abs(1 - distance)


class _WholeCosineDistances(WholeCosineSpace):
    """Cosine distances of features that are whole numbers. Values are 1 - cos, which can be multiplied by weights."""

    def linear(self) -> Space:
        """Return this space."""
        return self

    def pairwise(self, a: Rows, b: Rows) -> Tensor:
        """Return the values of all pairs, (A, B)."""
        return super().distance(super().pairwise(a, b))

    def between(self, a: Rows, b: Rows) -> Tensor:
        """Return the value of each row of a with the same row of b, (A,)."""
        return super().distance(super().between(a, b))

    def distance(self, values: Tensor) -> Tensor:
        """Return the values themselves."""
        return values

    def value(self, distance: float) -> float:
        """Return the distance itself."""
        return distance


class ManhattanSpace(PairSpace):
    """Manhattan distances, by faiss or by torch."""

    block_rows = 256

    def __init__(
        self, *, n_columns: int, dtype: torch.dtype, scale: float, exact: bool, largest: float, use_faiss: bool
    ) -> None:
        super().__init__(n_columns=n_columns, dtype=dtype, scale=scale, exact=exact, largest=largest)
        self._use_faiss = use_faiss

    def prepare(self, x: Tensor, sq: Tensor | None = None) -> Rows:
        """Return rows in the dtype of the space; their squared lengths are not needed."""
        x = x.to(self.dtype)
        x = x * self.scale if self.scale != 1 else x
        return Rows(x, x.new_zeros(len(x)) if sq is None else sq)

    def pairwise(self, a: Rows, b: Rows) -> Tensor:
        """Return the distances of all pairs, (A, B)."""
        if self._use_faiss:
            return faiss_search.l1_pairwise(a.x, b.x)
        if has_triton(a.x):
            from torchal.engine import triton_kernels

            return triton_kernels.manhattan(a.x, b.x)
        return torch.cdist(a.x, b.x, p=1)

    def nearest(self, a: Rows, b: Rows) -> Tensor:
        """Return the distance from each row of a to the nearest row of b, (A,)."""
        if self._use_faiss:
            return faiss_search.l1_nearest(a.x, b.x)
        if a.x.device.type != "cpu" or a.x.shape[1] < 128:
            return self.pairwise(a, b).amin(1)
        # Row by row of b, everything in the cache: twice as fast as cdist where rows are long.
        values = a.x.new_full((len(a.x),), torch.inf)
        difference = torch.empty_like(a.x)
        for row in b.x:
            torch.minimum(values, torch.sub(a.x, row, out=difference).abs_().sum(1), out=values)
        return values

    def between(self, a: Rows, b: Rows) -> Tensor:
        """Return the distance from each row of a to the same row of b, (A,)."""
        return (a.x - b.x).abs_().sum(1)

    def slack(self, value: Tensor, longest_sq: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return how far apart the computed values of two equal distances near `value` may be: weights are in it."""
        return 2 * self.bound * value

    def squared(self, factors: Tensor) -> Tensor:
        """Return what multiplies values where distances are multiplied by some factors: the same."""
        return factors

    def distance(self, values: Tensor) -> Tensor:
        """Return the values themselves."""
        return values / self.scale

    def value(self, distance: float) -> float:
        """Return the distance itself."""
        return distance * self.scale


def make_space(
    reader: FeatureReader,
    seen: Survey,
    metric: Metric,
    backend: Backend = "auto",
    dtype: torch.dtype = torch.float32,
) -> Space:
    """Return the space of a metric for features that were surveyed; it computes at least in `dtype`.

    Raises:
        ConfigError: an unknown metric or backend.
        CapabilityError: the backend lacks the metric, the device or the dtype.
    """
    check_metric(metric)
    check_backend(backend)
    dtype = torch.promote_types(reader.dtype, dtype)
    n_columns = reader.n_columns
    # The largest partial sum of a distance, if all numbers are whole; 4: |a|^2 + |b|^2 + 2 ab
    if metric == "manhattan":
        largest = n_columns * seen.spread
    elif metric == "euclidean":
        largest = 4 * n_columns * seen.spread * seen.spread
    else:
        largest = n_columns * seen.peak * seen.peak
        largest = largest * largest
    exact = seen.whole and largest < 2**53
    if exact and (metric == "cosine" or largest >= 2**24):
        dtype = torch.float64
    # Between these limits no sum of squares overflows float32, and none that matters vanishes.
    scale = 1.0
    if metric != "cosine" and not exact and not 1e-12 < seen.peak < 1e15 and seen.peak > 0:
        dtype, scale = torch.float64, 2.0 ** min(-math.frexp(seen.peak)[1], 1000)
    if metric == "manhattan":
        use_faiss = _use_faiss(backend, reader.device, dtype)
        return ManhattanSpace(
            n_columns=n_columns, dtype=dtype, scale=scale, exact=exact, largest=largest, use_faiss=use_faiss
        )
    if backend == "faiss":
        raise CapabilityError(f"the faiss backend is for manhattan distances here, got {metric!r}; use backend='torch'")
    if metric == "cosine":
        kind = WholeCosineSpace if exact else CosineSpace
        return kind(n_columns=n_columns, dtype=dtype, exact=exact)
    unshifted = 4 * n_columns * seen.peak * seen.peak
    if exact and unshifted < (2**24 if dtype == torch.float32 else 2**53):
        shift, largest = None, unshifted
    else:
        rows = reader.rows(_spread(reader)) if seen.some is None else seen.some
        shift = _center(rows.double(), exact)
    return Space(n_columns=n_columns, dtype=dtype, shift=shift, scale=scale, exact=exact, largest=largest)


def _spread(reader: FeatureReader) -> Tensor:
    """Return some rows of the pool, at even distances: the same whatever the chunks, so that these change nothing."""
    n_rows = reader.shards.n_rows
    n = min(n_rows, 1024, max(16, (1 << 18) // reader.n_columns))
    return torch.linspace(0, n_rows - 1, n, dtype=torch.float64, device=reader.device).long()


def _center(rows: Tensor, exact: bool) -> Tensor | None:
    """Return what to take off each column, (D,): about its mean, or 0 where that would round more than it saves.

    A difference to a number of like size has no rounding error, so only columns far from 0 are shifted; of exact whole
    numbers each is, by a whole number, since a fraction would break ties. A shift costs a copy of each row in each
    pass: nothing is taken off unless rows come out half as long.
    """
    mean = rows.mean(0)
    if exact:
        return mean.round()
    variance, mean_sq = (rows - mean).square_().mean(0), mean.square()
    far = mean_sq > 4 * variance
    length_sq, saved_sq = (variance + mean_sq).sum(), mean_sq[far].sum()
    return torch.where(far, mean, 0) if bool(saved_sq > 0.75 * length_sq) else None


def has_triton(x: Tensor) -> bool:
    """Tell whether kernels of triton can work on a tensor."""
    return x.is_cuda and find_spec("triton") is not None


def check_metric(metric: object, *, among: Any = Metric) -> None:
    """Require a metric that is known, one of a literal type."""
    if metric not in get_args(among):
        raise ConfigError(f"metric must be one of {', '.join(get_args(among))}, got {metric!r}")


def check_backend(backend: object, *, among: Any = Backend) -> None:
    """Require a backend that is known, one of a literal type."""
    if backend not in get_args(among):
        raise ConfigError(f"backend must be one of {', '.join(get_args(among))}, got {backend!r}")


def _use_faiss(backend: Backend, device: torch.device, dtype: torch.dtype) -> bool:
    able = device.type == "cpu" and dtype == torch.float32
    if backend == "faiss":
        if not able:
            raise CapabilityError(f"the faiss backend computes on the CPU in float32, asked for {device} in {dtype}")
        faiss_search.load()
        return True
    return backend == "auto" and able and find_spec("faiss") is not None
