"""K-means: its D^2-weighted start, exact and in blocks, and Lloyd's iterations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_row_weights, check_budget, check_finite, check_whole
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.distributed import Group, as_shards
from torchal.engine.distances import Rows, Space, make_space, survey
from torchal.engine.draws import draw, draw_stratified
from torchal.engine.features import FeatureReader, Features, as_matrix
from torchal.engine.greedy import Picks, Pool, sample_by_value
from torchal.engine.sources import HeldRows, Source, StreamedRows, nearest_centers, nearest_in_chunk, split
from torchal.engine.sums import ChunkSums, ExactSums
from torchal.errors import ConfigError, ShapeError
from torchal.functional.k_center import check_masks
from torchal.functional.selection import Selection, top_n

_MANY = 5_000  # rows, from which on centres have momentum; below that every step is Lloyd's
_SAMPLED = 25_000  # rows, at least, of a sample that is clustered first
_SAMPLED_PER_CLUSTER = 250
_SAMPLED_VALUES = 2**27  # most numbers of the sample, 0.5 GB
_SHARE = 4  # a quarter of the rows is the most that a sample has, and all its starts read unless told otherwise
_STARTS = 3
_LIGHT = 2**-5  # of the largest weight; sums of rows of less are rounded less
_MOMENTUM = 0.9  # of the centres: twenty of Lloyd's steps become about ten, and most steps left out were the smallest
_LEAST_GAIN = 1e-5  # of the inertia: what other starts differ by is hundreds of times as much


def kmeans_plus_plus(
    features: Features,
    n: int,
    *,
    generator: torch.Generator,
    weights: ArrayLike | None = None,
    labeled: ArrayLike | None = None,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> Selection:
    """Draw rows one after another, each in proportion to its squared distance from the nearest one drawn so far.

    The first is drawn in proportion to the weights alone. The draws have the distribution of the sequential algorithm,
    but are made in blocks, by rejection (`torchal.engine.greedy`). A row is never drawn twice. Once every row
    equals one that was drawn, the rest are drawn in proportion to the weights.

    Args:
        features: a tensor on any device, an array, or a mapped file; they may be larger than the device's memory.
        n: how many rows to draw.
        generator: the randomness.
        weights: what each squared distance is multiplied with; 0 for a row that must not be drawn. 1 unless given.
        labeled: rows that count as drawn already, so that the first draw too keeps away from them.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; as many as fit into a cache (CPU) or 128 MiB (GPU), unless given.
        group: of ranks that call this together, each with its own rows, and with generators that were seeded alike; see
            `torchal.distributed`.

    Shapes:
        features: (N, D) float. Any N: sums of the weights are taken in float64.
        weights: (N,) float, on the features' device.
        labeled: (N,) bool, on the features' device.

    Returns:
        indices (n,) in the order of the draws; scores (n,), weight times squared distance at the time of the draw, and
        the weight of a first draw. Both on the features' device.

    Raises:
        BudgetError: n is not between 1 and the number of rows that are not labeled and have a positive weight.
        ShapeError: features is no float matrix, or a tensor disagrees in shape, dtype or device.
        DataError: no rows; features that are not finite; a weight that is negative or not finite.
        DeviceMemoryError: the smallest chunk does not fit on the device.
        GroupError: another rank failed or is gone.

    Reference:
        Arthur & Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007, with one draw per step.

    Complexity:
        N D n multiply-adds in a handful of matrix products; O(N) memory beyond the features, and chunks.

    Example:
        >>> x = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
        >>> picks = kmeans_plus_plus(x, 2, generator=torch.Generator().manual_seed(0)).indices
        >>> x[picks].sort(0).values.tolist()
        [[0.0], [9.0]]
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        reader = FeatureReader(features, device=device, chunk_rows=chunk_rows, shards=shards)
        meeting.rows(len(reader), reader.n_columns)
        labeled, candidates = check_masks(labeled, None, n_rows=len(reader), device=reader.home)
        weights = _checked_weights(weights, reader)
        candidates = candidates & (weights > 0)
        meeting.count(candidates.count_nonzero(), labeled.count_nonzero())
        meeting.same(n=n, dtypes=(reader.stored_dtype, weights.dtype, reader.device.type), generator=generator)
    n_candidates, n_labeled, *_ = meeting.totals
    check_budget(n, n_candidates)
    weights, unit = _scaled_weights(weights, reader)
    with exact_arithmetic(reader.device):
        space, source = euclidean_rows(reader)
        centers = shards.numbers_of(labeled).to(reader.device) if n_labeled else None
        rows, scores = _draw_start(source, space, n, weights, candidates.to(reader.device), centers, generator)
    dtype = torch.promote_types(reader.dtype, torch.float32)
    return Selection(rows.to(reader.home), (scores.double() * unit).to(reader.home, dtype))


class Clusters(NamedTuple):
    """The result of `kmeans`.

    Shapes:
        centers: (k, D) float.
        assignments: (N,) int64, the cluster of each row.
        inertia: () float64, the sum of weight times squared distance from the row to its centre.
    """

    centers: Tensor
    assignments: Tensor
    inertia: Tensor


def kmeans(
    features: Features,
    k: int,
    *,
    generator: torch.Generator,
    weights: ArrayLike | None = None,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
    n_starts: int = 1,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> Clusters:
    """Cluster rows around k means: a start by `kmeans_plus_plus`, then Lloyd's iterations.

    Of 5 000 rows or more, centres keep some of the speed they had, as in accelerated gradient descent, until the
    inertia grows, and stop where a step gains less than a part in 100 000: about half as many iterations end about as
    low. Of 100 000 rows or more a sample is clustered first, from up to three starts, or `n_starts` if these are more,
    and all rows go on from the best of them: a million rows take about a third of the time of Lloyd's iterations from a
    start of their own. With so many clusters that a quarter of the rows would be too small a sample, there is none.

    A cluster that has lost all its rows starts anew at the row farthest from its centre. With fewer than k different
    rows, some clusters share a centre, and all but the first of them are empty.

    Args:
        features: as in `kmeans_plus_plus`.
        k: number of clusters, at most the number of rows with a positive weight.
        generator: the randomness of the starts.
        weights: of the rows; 1 unless given.
        max_iterations: steps of the centres. Of 100 000 rows or more: half as many, on the sample if there is one, and
            then a third as many on all, but not fewer than 10 and 5 where so many are allowed.
        tolerance: stop when the squared distance that the centres move, in all, is below this fraction of the mean
            variance of a column.
        n_starts: the best of so many, by their inertia. Few clusters that are far apart need several: a start may have
            none in one of them, and no iteration mends that.
        device: as in `kmeans_plus_plus`.
        chunk_rows: as in `kmeans_plus_plus`.
        group: as in `kmeans_plus_plus`. The centres are the same on every rank, assignments are about its own rows.
            Their sums are the same for any split of the rows, but a row that is as near to two centres, but for
            rounding, may go to either.

    Shapes:
        features: (N, D) float.
        weights: (N,) float.

    Raises:
        ConfigError: max_iterations or tolerance are out of range.
        See `kmeans_plus_plus` for the others.

    Reference:
        Lloyd, "Least Squares Quantization in PCM", 1982. The momentum, with its restarts, is that of Nesterov as in
        O'Donoghue & Candes, "Adaptive Restart for Accelerated Gradient Schemes", 2015.

    Complexity:
        N D k multiply-adds per iteration and start, in one pass; O(N) memory beyond the features, and chunks; the
        sample has 25 000 or 250 k rows, and at most 2^27 numbers.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [8.0], [9.0]])
        >>> clusters = kmeans(x, 2, generator=torch.Generator().manual_seed(0))
        >>> clusters.centers.sort(0).values.tolist(), float(clusters.inertia)
        ([[0.5], [8.5]], 1.0)
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        check_whole("k", k, least=1)
        check_whole("max_iterations", max_iterations, least=1)
        check_whole("n_starts", n_starts, least=1)
        if not tolerance >= 0:
            raise ConfigError(f"tolerance must be at least 0, got {tolerance!r}")
        reader = FeatureReader(features, device=device, chunk_rows=chunk_rows, shards=shards)
        meeting.rows(len(reader), reader.n_columns)
        weights = _checked_weights(weights, reader)
        meeting.count((weights > 0).count_nonzero())
        settings = (max_iterations, tolerance, n_starts)
        dtypes = (reader.stored_dtype, weights.dtype, reader.device.type)
        meeting.same(k=k, settings=settings, dtypes=dtypes, generator=generator)
    check_budget(k, meeting.totals[0])
    weights, unit = _scaled_weights(weights, reader)
    with exact_arithmetic(reader.device):
        space, source = euclidean_rows(reader)
        centers = _find_centers(
            source, space, k, weights, meeting.totals[0], max_iterations, tolerance, n_starts, generator
        )
        assigned, values = nearest_centers(source, space, centers)
        inertia = shards.all_reduce((values.double() * weights).sum()) * unit / space.scale / space.scale
        means = space.restore(centers.x)
    dtype = torch.promote_types(reader.dtype, torch.float32)
    return Clusters(means.to(reader.home, dtype), assigned.to(reader.home), inertia.to(reader.home))


def _find_centers(  # noqa: PLR0917 - as `_draw_start`
    source: StreamedRows,
    space: Space,
    k: int,
    weights: Tensor,
    n_weighted: int,
    max_iterations: int,
    tolerance: float,
    n_starts: int,
    generator: torch.Generator,
) -> Rows:
    """Do what `kmeans` does, between its checks and the last assignment."""
    shards = source.shards
    fewer = max(max_iterations // 2, min(max_iterations, 10))
    most = n_weighted // _SHARE
    if most < _SAMPLED:
        tries = (_started(source, space, k, weights, generator) for _ in range(n_starts))
        return _best_of(tries, max_iterations, tolerance, accelerate=shards.n_rows >= _MANY)
    n_sampled = min(max(_SAMPLED, _SAMPLED_PER_CLUSTER * k), most, _SAMPLED_VALUES // source.n_columns)
    rows, copies = draw_stratified(weights, n_sampled, generator, shards).unique(return_counts=True)
    if len(rows) < 0.8 * _SAMPLED_PER_CLUSTER * k:  # many clusters, or few rows that have nearly all the weight
        tries = (_started(source, space, k, weights, generator) for _ in range(n_starts))
        return _best_of(tries, fewer, tolerance, accelerate=True)
    some = HeldRows(source.select(rows), source.longest_sq, source.in_chunks)
    n_tries = max(n_starts, min(_STARTS, most // n_sampled))
    tries = (_started(some, space, k, copies.to(weights.dtype), generator) for _ in range(n_tries))
    found = _best_of(tries, fewer, tolerance, accelerate=True)  # on every rank, and should their last digits differ:
    begin = shards.broadcast(found.x)
    best = _Lloyd(source, space, weights, Rows(begin, begin.square().sum(1)))
    return best.run(max(max_iterations // 3, min(max_iterations, 5)), tolerance, accelerate=True)


def _best_of(tries: Iterable[_Lloyd], max_iterations: int, tolerance: float, *, accelerate: bool) -> Rows:
    """Return the centres with the lowest inertia, each run to its end."""
    best, least = None, math.inf
    for lloyd in tries:
        centers = lloyd.run(max_iterations, tolerance, accelerate=accelerate)
        if best is None or float(lloyd.inertia) < least:
            best, least = centers, float(lloyd.inertia)
    assert best is not None
    return best


def _started(source: Source, space: Space, k: int, weights: Tensor, generator: torch.Generator) -> _Lloyd:
    """Return centres drawn by `kmeans_plus_plus`."""
    start, _ = _draw_start(source, space, k, weights, weights > 0, None, generator)
    return _Lloyd(source, space, weights, source.select(start))


def nearest_rows(
    features: Features,
    centers: Features,
    *,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """Return the row nearest to each centre by euclidean distance: what a cluster's mean is nearly.

    Equal distances go to the lowest row. Rows that rounding cannot tell from the nearest are compared once more, by
    sums of squared differences in float64.

    Args:
        features: as in `kmeans_plus_plus`.
        centers: points among the rows, as `kmeans` finds them; two of them may have the same nearest row.
        device: as in `kmeans_plus_plus`.
        chunk_rows: as in `kmeans_plus_plus`.

    Shapes:
        features: (N, D) float.
        centers: (k, D) float, on the features' device.

    Returns:
        (k,) int64, on the features' device.

    Raises:
        ShapeError: features is no float matrix; there are no centres, or they have other columns.
        DataError: no rows; features or centres that are not finite.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Complexity:
        N D k multiply-adds, in one pass; memory for k rows and chunks.

    Example:
        >>> nearest_rows(torch.tensor([[0.0], [1.0], [1.0], [9.0]]), torch.tensor([[1.2], [7.0]]))
        tensor([1, 3])
    """
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    centers = as_matrix("centers", centers, device=reader.home)
    if not len(centers) or centers.shape[1] != reader.n_columns or centers.device != reader.home:
        raise ShapeError(
            f"centers must be (k, {reader.n_columns}) on {reader.home} with k at least 1, "
            f"got {tuple(centers.shape)} on {centers.device}"
        )
    check_finite("centers", centers)
    with exact_arithmetic(reader.device):
        space, source = euclidean_rows(reader)
        # of equal centres one, since each would be compared with all copies of its row
        kinds, kind = centers.to(reader.device).unique(dim=0, return_inverse=True)
        rows = torch.cat([_nearest_rows(source, space, some) for some in split(space.prepare(kinds))])
    return rows[kind].to(reader.home)


def _nearest_rows(source: StreamedRows, space: Space, points: Rows) -> Tensor:
    """Return the row nearest to each of a few points."""
    k, device = len(points.x), points.x.device
    rough = torch.full((k,), torch.inf, dtype=space.dtype, device=device)
    longest_sq = torch.zeros((), dtype=space.dtype, device=device)
    best = torch.full((k,), torch.inf, dtype=torch.float64, device=device)
    nearest = torch.zeros(k, dtype=torch.int64, device=device)

    def compare(where: slice, rows: Rows) -> None:
        values = space.rough(points, rows)
        least = values.amin(1)
        torch.minimum(rough, least, out=rough)
        torch.maximum(longest_sq, rows.sq.max(), out=longest_sq)
        limits = rough + 2 * space.bound * (points.sq + longest_sq)
        near = (least <= limits).nonzero().squeeze(1)
        point, row = (values[near] <= limits[near].unsqueeze(1)).nonzero().unbind(1)
        point = near[point]
        size = max(1, values_per_chunk(device) // points.x.shape[1])
        for p, r in zip(point.split(size), row.split(size), strict=True):
            exact = (points.x[p].double() - rows.x[r].double()).square_().sum(1)
            value = torch.full_like(best, torch.inf).scatter_reduce_(0, p, exact, "amin")
            first = exact == value[p]
            lowest = torch.full_like(nearest, len(source)).scatter_reduce_(0, p[first], r[first], "amin")
            nearer = (value < best) | ((value == best) & (lowest + where.start < nearest))
            best[nearer], nearest[nearer] = value[nearer], lowest[nearer] + where.start

    source.each(compare, width=k)
    return nearest


class _Lloyd:
    """Centres that move to the means of their rows."""

    def __init__(self, source: Source, space: Space, weights: Tensor, centers: Rows) -> None:
        self.centers = centers
        self.inertia = centers.sq.new_full((), torch.inf, dtype=torch.float64)
        """() of the centres before the last step."""
        self.n_empty = 0
        """Clusters that had lost all their rows in the last step."""
        self._source = source
        self._space = space
        self._weights = weights
        self._fine = False
        if isinstance(source, StreamedRows):
            some = weights[:1] if not weights.stride(0) else weights  # one number for all rows
            lightest = torch.where(some > 0, some, 1).amin(0) if len(some) else some.new_ones(())
            self._fine = space.dtype == torch.float64 or bool(source.shards.all_reduce(lightest, "min") < _LIGHT)

    def run(self, max_iterations: int, tolerance: float, *, accelerate: bool = False) -> Rows:
        """Return the centres once they move by no more than `tolerance`.

        Accelerated, rows go to the nearest of centres that moved on by a part of their last way; not in the first step,
        nor in one after the inertia grew or a cluster was empty. A step that gains next to nothing is the last.
        """
        means, before, ahead = self.centers, math.inf, False
        for step in range(max_iterations):
            if self.step() <= tolerance:
                break
            gain, before = before - float(self.inertia), float(self.inertia)
            if accelerate and gain < _LEAST_GAIN * before and (gain >= 0 or not ahead):
                break
            latest, ahead = self.centers, accelerate and step > 0 and gain > 0 and not self.n_empty
            if ahead and step < max_iterations - 1:
                x = latest.x + _MOMENTUM * (latest.x - means.x)
                self.centers = Rows(x, x.square().sum(1))
            means = latest
        return self.centers

    def _new_sums(self, k: int, n_columns: int) -> ExactSums | ChunkSums:
        source, device = self._source, self.centers.x.device
        if not isinstance(source, StreamedRows):
            return ChunkSums(k, n_columns, device=device)
        longest = math.sqrt(float(source.longest_sq))
        n_rows = source.shards.n_rows
        return ExactSums(k, n_columns, longest=longest, n_rows=n_rows, fine=self._fine, device=device)

    def step(self) -> float:
        """Move the centres once; return the sum of their squared moves, in mean variances of a column."""
        k, n_columns = self.centers.x.shape
        source, device = self._source, self.centers.x.device
        sums = self._new_sums(k, n_columns)
        squares = torch.zeros((), dtype=torch.float64, device=device)
        misfits = torch.empty(len(source), dtype=self._space.dtype, device=device)

        def gather(where: slice, rows: Rows) -> None:
            index, values = nearest_in_chunk(rows, self._space, self.centers)
            weights = self._weights[where]
            misfits[where] = values * (weights > 0)
            square = (rows.sq * weights).sum(dtype=torch.float64)
            sums.add(index, rows.x, weights)
            squares.add_(square)

        source.each(gather, width=k)
        inertia = (misfits * self._weights).sum(dtype=torch.float64)
        flat = source.shards.all_reduce(torch.cat([sums.parts.flatten(), torch.stack([squares, inertia])]))
        squares, self.inertia = flat[-2], flat[-1]
        of_clusters, masses = sums.total(flat[:-2].view_as(sums.parts))
        empty = (masses == 0).nonzero().squeeze(1)
        means = (of_clusters / masses.unsqueeze(1)).to(self._space.dtype)
        self.n_empty = len(empty)
        if self.n_empty:
            farthest = top_n(misfits, len(empty), group=source.shards).indices
            means[empty] = source.select(farthest).x
        moved = float((means - self.centers.x).square().sum())
        self.centers = Rows(means, means.square().sum(1))
        variance = float(squares / masses.sum() - (of_clusters.sum(0) / masses.sum()).square().sum()) / n_columns
        if not moved:
            return 0.0
        return moved / variance if variance > 0 else math.inf


def euclidean_rows(reader: FeatureReader) -> tuple[Space, StreamedRows]:
    """Return the space and the rows; without exact arithmetic for whole numbers, since there are no ties to keep."""
    space = make_space(reader, survey(reader, "euclidean")._replace(whole=False), "euclidean")
    return space, StreamedRows(reader, space)


def _checked_weights(weights: ArrayLike | None, reader: FeatureReader) -> Tensor:
    """Return weights (N,), 1 unless given."""
    if weights is None:
        one = torch.ones((), dtype=torch.promote_types(reader.dtype, torch.float32), device=reader.home)
        return one.expand(len(reader))  # one number for all rows
    return as_row_weights("weights", weights, n_rows=len(reader), device=reader.home)


def _scaled_weights(weights: Tensor, reader: FeatureReader) -> tuple[Tensor, float]:
    """Return weights (N,) of at most 1 on the device, and what they are to be multiplied with, a power of two."""
    heaviest = weights.max().double() if len(weights) else torch.zeros((), dtype=torch.float64, device=weights.device)
    heaviest = reader.shards.all_reduce(heaviest, "max")
    exponent = 0 if heaviest == 1 else max(-1000, math.frexp(float(heaviest))[1])
    dtype = torch.promote_types(reader.dtype, torch.float32)
    scaled = (weights if exponent == 0 else weights.double() * 2.0**-exponent).to(reader.device, dtype)
    if exponent or weights.dtype != dtype:  # a row that may be drawn keeps a chance, however small
        positive = weights.to(reader.device) > 0
        scaled = torch.where(positive, scaled.clamp(min=torch.finfo(dtype).smallest_normal), scaled)
    return scaled, 2.0**exponent


def _draw_start(  # noqa: PLR0917 - both functions above pass all of it
    source: Source,
    space: Space,
    n: int,
    weights: Tensor,
    candidates: Tensor,
    centers: Tensor | None,
    generator: torch.Generator,
) -> Picks:
    """Do what `kmeans_plus_plus` does, after its checks; centres are rows of the pool, on any rank."""
    values = torch.where(candidates, torch.inf, -torch.inf).to(space.dtype)
    pool = Pool(source, space, values)
    weights = weights.to(space.dtype)
    if centers is None:
        centers = draw(torch.where(candidates, weights, 0), 1, generator, source.shards)
        first = centers, source.shards.values_of(centers, weights)
    else:
        first = centers[:0], weights[:0]
    values[source.shards.local(centers)] = -torch.inf
    if n == len(first[0]):
        return first
    pool.lower(centers)
    rows, scores = sample_by_value(pool, n - len(first[0]), weights, generator)
    return torch.cat([first[0], rows]), torch.cat([first[1], scores / space.scale / space.scale])
