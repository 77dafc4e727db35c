"""Rows far from all that are labeled or picked: MaxDist, and LCMD, which looks where many such rows are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._checks import ArrayLike, check_budget, check_flag
from torchal._chunks import exact_arithmetic
from torchal.engine.distances import Rows, Space, make_space, survey
from torchal.engine.features import FeatureReader, Features
from torchal.engine.gradients import open_gradients, read_factors
from torchal.engine.greedy import Picks, Pool, farthest_first
from torchal.engine.kronecker import KroneckerSpace
from torchal.engine.sources import HeldRows, Source, StreamedRows, nearest_in_chunk
from torchal.errors import ConfigError
from torchal.functional.k_center import check_masks
from torchal.functional.selection import Selection

_HELD = 1 << 27  # numbers; both factors of gradients are held up to here, 512 MiB in float32
_PICKED = -torch.inf  # the value of a row that may not be picked


def max_dist(
    features: Features,
    n: int,
    *,
    log_probs: Features | None = None,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    bias: bool = False,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Selection:
    r"""Pick, again and again, the row farthest from every labeled row and every pick.

    The distance is that of the features, or, where log_probs are given, of the gradients that `badge` draws by: of the
    weights of the last layer, were the predicted class the label. With no labeled row, the first pick is the row of
    largest norm; but for that, picks by features are those of `k_center_greedy`. Equal distances go to the lowest row,
    as there.

    Args:
        features: a tensor on any device, an array, or a memory-mapped file; for gradients, what the last layer reads.
        n: how many rows to pick.
        log_probs: of the classes that the model has seen, for gradients.
        labeled: the first centres.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        bias: of gradients, whether that by the layer's bias counts too.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; as many as fit into a cache (CPU) or 128 MiB (GPU), unless given.

    Shapes:
        features: (N, D) float. Half precision is computed in float32, float64 in float64.
        log_probs: (N, C) float, natural logarithms of probabilities that sum to 1; -inf is probability 0.
        labeled, candidates: (N,) bool, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), the distance from the nearest labeled row or earlier pick, and of a
        first pick without labels the norm. Both on the features' device.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: features or log_probs are no float matrix, or the tensors disagree in rows, dtype or device.
        DataError: no rows; features that are not finite; a row of log_probs that does not sum to 1.
        ConfigError: a `bias` that is not true or false, or true without log_probs.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Holzmüller, Zaverkin, Kästner & Steinwart, "A Framework and Benchmark for Deep Batch Active Learning for
        Regression", JMLR 2023: MaxDist, with the labeled rows as first centres (TP mode). There, rows are compared by
        gradients of the one output of a regression, here by those of a classifier's loss.

    Complexity:
        At most N D (L + n) multiply-adds, or N (C + D) (L + n), in a handful of matrix products. O(N) memory beyond the
        features, and chunks.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
        >>> max_dist(x, 2).indices
        tensor([3, 0])
    """
    given = _Given(log_probs=log_probs, labeled=labeled, candidates=candidates, bias=bias)
    return _pick(_farthest, features, n, given, device=device, chunk_rows=chunk_rows)


def lcmd(
    features: Features,
    n: int,
    *,
    log_probs: Features | None = None,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    bias: bool = False,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Selection:
    r"""Pick, again and again, the row farthest from its centre in the largest cluster.

    The centres are the labeled rows and the picks so far. A cluster is all candidates with the same nearest centre, and
    its size the sum of their squared distances from it: so picks go where many rows are far from all centres, and not
    to single rows far from everything. Distances, and the first pick where there is no labeled row, are those of
    `max_dist`.

    A row as far from two centres belongs to the earlier one. Of equally large clusters, the farthest row of any is
    picked, and of those the lowest. Squared distances are added up as whole numbers, multiples of about 2^-62 of their
    sum, so that the order of addition changes nothing.

    Args:
        features: as in `max_dist`.
        n: as in `max_dist`.
        log_probs: as in `max_dist`.
        labeled: as in `max_dist`.
        candidates: as in `max_dist`; rows that are neither candidates nor labeled play no part.
        bias: as in `max_dist`.
        device: as in `max_dist`.
        chunk_rows: as in `max_dist`.

    Shapes:
        features: (N, D) float.
        log_probs: (N, C) float.
        labeled, candidates: (N,) bool, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), the distance from the nearest labeled row or earlier pick, and of a
        first pick without labels the norm. Both on the features' device.

    Raises:
        See `max_dist`.

    Reference:
        Holzmüller, Zaverkin, Kästner & Steinwart, "A Framework and Benchmark for Deep Batch Active Learning for
        Regression", JMLR 2023: LCMD (largest cluster maximum distance), with the labeled rows as first centres (TP
        mode). There, rows are compared by gradients of the one output of a regression, here by those of a classifier's
        loss.

    Complexity:
        N D (L + n) multiply-adds, or N (C + D) (L + n), in one pass over the rows for each pick. O(N) memory beyond the
        features, and chunks; gradients' factors are held up to 512 MiB, which saves making them again for each pick.

    Example:
        >>> x = torch.tensor([[0.0], [10.0], [2.0], [2.1], [2.2], [13.0]])
        >>> lcmd(x, 1, labeled=torch.arange(6) < 2).indices  # three rows about 2 from a centre are more than one 3 away
        tensor([4])
    """
    given = _Given(log_probs=log_probs, labeled=labeled, candidates=candidates, bias=bias)
    return _pick(_farthest_in_largest, features, n, given, device=device, chunk_rows=chunk_rows)


class _Given(NamedTuple):
    """What the caller of either function gives beside the features."""

    log_probs: Features | None
    labeled: ArrayLike | None
    candidates: ArrayLike | None
    bias: bool


def _pick(
    rule: Callable[[Pool, Tensor, int], Picks],
    features: Features,
    n: int,
    given: _Given,
    *,
    device: torch.device | str | None,
    chunk_rows: int | None,
) -> Selection:
    """Check, and pick n rows by a rule: a function of a pool, its first centres (L,) with L > 0, and n."""
    check_flag("bias", given.bias)
    if given.bias and given.log_probs is None:
        raise ConfigError("bias=True is of gradients, which need log_probs; distances of features have no bias")
    if given.log_probs is None:
        reader, left = FeatureReader(features, device=device, chunk_rows=chunk_rows), None
    else:
        reader, left = read_factors(given.log_probs, features, device=device, chunk_rows=chunk_rows)
    labeled, candidates = check_masks(given.labeled, given.candidates, n_rows=len(reader), device=reader.home)
    check_budget(n, int(candidates.sum()))
    with exact_arithmetic(reader.device):
        labeled, candidates = labeled.to(reader.device), candidates.to(reader.device)
        space: Space
        if left is None:
            space = make_space(reader, survey(reader, "euclidean"), "euclidean")
            source = StreamedRows(reader, space)
        else:
            space, source = open_gradients(reader, left, bias=given.bias, among=labeled | candidates)
        pool = Pool(source, space, torch.where(candidates, torch.inf, _PICKED).to(space.dtype))
        centers = labeled.nonzero().squeeze(1)
        if len(centers):
            rows, values = rule(pool, centers, n)
        else:
            lengths_sq = source.sq if left is not None else _lengths_sq(reader, space)
            first = _longest(pool, lengths_sq)
            rows, values = rule(pool, first, n - 1)
            rows, values = torch.cat([first, rows]), torch.cat([lengths_sq[first].to(space.dtype), values])
        distances = space.distance(values)
    dtype = torch.promote_types(reader.dtype, torch.float32)
    return Selection(rows.to(reader.home), distances.to(reader.home, dtype))


def _lengths_sq(reader: FeatureReader, space: Space) -> Tensor:
    """Return the squared lengths of the rows themselves, (N,) float64, which the space may have shifted."""
    lengths_sq = torch.empty(len(reader), dtype=torch.float64, device=reader.device)

    def measure(start: int, stop: int) -> None:
        lengths_sq[start:stop] = (reader.read(start, stop).double() * space.scale).square_().sum(1)

    reader.in_chunks(len(reader), reader.chunk_rows(), measure)
    return lengths_sq


def _longest(pool: Pool, lengths_sq: Tensor) -> Tensor:
    """Return the longest row that may be picked, (1,), and mark it as picked; of equal rows the lowest."""
    allowed = pool.values > _PICKED
    row = torch.where(allowed, lengths_sq, -1).argmax(0, keepdim=True)
    near = Pool(pool.source, pool.space, pool.values.clone())
    near.lower(row)
    row = (allowed & (near.values == 0)).to(torch.uint8).argmax(0, keepdim=True)
    pool.values[row] = _PICKED
    return row


def _farthest(pool: Pool, centers: Tensor, n: int) -> Picks:
    pool.lower(centers)
    return farthest_first(pool, n, finish=False)


def _farthest_in_largest(pool: Pool, centers: Tensor, n: int) -> Picks:
    clusters = _Clusters(pool, centers, n)
    rows = torch.empty(n, dtype=torch.int64, device=centers.device)
    values = torch.empty(n, dtype=pool.space.dtype, device=centers.device)
    for i in range(n):
        row = clusters.farthest_in_largest()
        values[i : i + 1] = pool.values[row]
        rows[i : i + 1] = clusters.add(row)
    return rows, values


class _Clusters:
    """Rows of a pool by their nearest centre.

    Args:
        pool: its values are kept up to date.
        centers: row numbers, at least one.
        n: how many centres will be added.
    """

    def __init__(self, pool: Pool, centers: Tensor, n: int) -> None:
        source = pool.source
        if isinstance(pool.space, KroneckerSpace) and len(source) * source.n_columns <= _HELD:
            source = _held(source)
        self._source, self._space, self._values = source, pool.space, pool.values
        self._assigned = torch.empty(len(source), dtype=torch.int64, device=centers.device)
        self._n_centers = len(centers)
        there = source.select(centers)
        # Equal centres may be told apart by rounding: all of them are the first.
        kinds, kind = there.x.unique(dim=0, return_inverse=True)
        number = torch.arange(len(centers), device=centers.device)
        first = number.new_full((len(kinds),), len(centers)).scatter_reduce_(0, kind, number, "amin")[kind]

        def assign(where: slice, rows: Rows) -> None:
            index, found = nearest_in_chunk(rows, pool.space, there)
            self._assigned[where] = first[index]
            torch.minimum(self._values[where], found, out=self._values[where])

        source.each(assign, width=len(centers))
        total = float(self._values.clamp(min=0).sum(dtype=torch.float64))
        self._units = 2.0 ** min(62 - math.frexp(total)[1], 1000) if total else 1.0
        self._sums = torch.zeros(len(centers) + n, dtype=torch.int64, device=centers.device)
        self._sums.index_add_(0, self._assigned, self._whole(self._values))

    def farthest_in_largest(self) -> Tensor:
        """Return the row to be picked next, (1,)."""
        largest = self._sums == self._sums.max()
        return torch.where(largest[self._assigned], self._values, _PICKED).argmax(0, keepdim=True)

    def add(self, row: Tensor) -> Tensor:
        """Make a row (1,) the next centre; return the lowest row like it, (1,), which is then picked."""
        center, number, lowest = self._source.select(row), self._n_centers, row

        def lower(where: slice, rows: Rows) -> None:
            nonlocal lowest
            found = self._space.nearest(rows, center)
            moved = (found < self._values[where]).nonzero().squeeze(1)
            if not len(moved):
                return
            found, moved = found[moved], moved + where.start
            lost, gained = self._whole(self._values[moved]), self._whole(found).sum()
            like = torch.where(found == 0, moved, len(self._values)).amin(0, keepdim=True)
            left = self._assigned[moved]
            # from here on nothing needs memory: a chunk that did not fit is done anew
            self._sums.index_add_(0, left, lost, alpha=-1)
            self._sums[number] += gained
            self._values[moved] = found
            self._assigned[moved] = number
            lowest = torch.minimum(lowest, like)

        self._source.each(lower, width=1)
        self._n_centers += 1
        self._values[lowest] = _PICKED
        return lowest

    def _whole(self, values: Tensor) -> Tensor:
        """Return values as multiples of the unit, int64; 0 for what may not be picked."""
        return values.clamp(min=0).double().mul_(self._units).long()


def _held(source: Source) -> HeldRows:
    """Return rows in memory."""
    longest_sq = source.longest_sq
    everything = Rows(longest_sq.new_empty(len(source), source.n_columns), longest_sq.new_empty(len(source)))

    def keep(where: slice, rows: Rows) -> None:
        everything.x[where], everything.sq[where] = rows

    source.each(keep, width=1)
    return HeldRows(everything, longest_sq, source.in_chunks)
