"""K-center greedy: cover the pool, so that no row is far from a labeled one."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchal._checks import (
    ArrayLike,
    as_integers,
    as_mask,
    as_row_weights,
    as_rows,
    check_budget,
    check_positive,
    check_share,
    rows_in,
)
from torchal._chunks import exact_arithmetic
from torchal.distributed import Group, Shards, as_shards
from torchal.engine.distances import (
    Backend,
    Metric,
    Rows,
    check_backend,
    check_metric,
    make_space,
    survey,
    unit_rows,
)
from torchal.engine.features import FeatureReader, Features
from torchal.engine.greedy import Picks, Pool, farthest_first
from torchal.engine.order_statistics import Largest
from torchal.engine.sharded import ShardedPool, first_of_all
from torchal.engine.sources import StreamedRows, nearest_centers
from torchal.errors import CapabilityError, ShapeError
from torchal.functional.selection import Selection

_SMALL_FACTOR = 1e-12  # weights whose squares are smaller beside the largest one are multiplied in float64


def k_center_greedy(
    features: Features,
    n: int,
    *,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    outliers: float = 0.0,
    min_distance: float | None = None,
    metric: Metric = "euclidean",
    backend: Backend = "auto",
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> Selection:
    r"""Pick, again and again, the row farthest from every centre so far.

    Labeled rows are the first centres. With none, the first pick is the row farthest from the mean of all rows (cosine:
    of the rows scaled to length 1), so that the result never depends on a random draw. The picks are those of the plain
    greedy algorithm, one by one, but made in blocks (`torchal.engine.greedy`).

    Equal distances go to the lowest row: those of equal rows always, and all others where the features are whole
    numbers (below 2^25 / sqrt(D), cosine: 2^13 / sqrt(D)). Where two different rows' distances d are closer than
    rounding, either may come first: closer than 4 (D + 4) e R^2 / d, with e = 2^-23 for float32 (2^-52 for float64) and
    R the largest length of a row, after columns whose mean is more than two standard deviations from 0 were centred,
    if that halves the lengths (cosine: 4 (D + 4) e; manhattan: 2 (D + 4) e d).

    With weights w, each pick is the row with the largest w d, and what was said of d is so of w d: ties go to the
    lowest row where w^2 is rounded in none of them (cosine, manhattan: w), and always among equal rows of equal
    weights. Without labels the first pick is the farthest from the mean among the heaviest rows. Rows of weight 0, and
    of less than 1e-150 of the largest weight, are picked last, in their order, as copies of centres are.

    Weights are one factor, as it is: for several, for powers of them or of the distance, for class balance, and for
    values in float64 there is `combined_greedy`, in somewhat more time.

    With a share of outliers, each pick is the farthest row but for so many candidates, which are left out of the cover:
    those that are farthest at the end are none of the picks. Of rows at the same distance, the lowest is picked.

    Args:
        features: a tensor on any device, a NumPy array, or a memory-mapped file; all may be larger than the device's
            memory. Whole numbers are read as floats, chunk by chunk.
        n: how many rows to pick; at most so many where `min_distance` is given.
        labeled: the first centres.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        weights: how much the distance of each row counts, as how unsure a model is of it; all alike unless given.
        outliers: the share of the candidates, below 1, that need not be covered, rounded down to rows; never so many
            that fewer than n are left.
        min_distance: pick no row that is nearer than this to a centre or an earlier pick, and fewer than n rows, or
            none, where no others are left. With weights too it is the distance, without them; then rows of weight 0 are
            not picked.
        metric: euclidean; cosine, which is 1 - cos; or manhattan.
        backend: who computes manhattan distances; "auto" takes faiss on a CPU where it is installed.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; as many as fit into a cache (CPU) or 128 MiB (GPU), unless given.
        group: of ranks that call this together, each with its own rows; see `torchal.distributed`. Not with outliers.

    Shapes:
        features: (N, D) float. Half precision is computed in float32, float64 in float64.
        labeled, candidates: (N,) bool, on the features' device.
        weights: (N,) float, finite and at least 0, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), the distance to the nearest centre at the time of the pick, or from the
        mean for a first pick without centres; with weights, weight times distance. Both on the features' device.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: features is no float matrix, weights no float vector, or a mask or weights disagree in shape or
            device.
        DataError: no rows; features or weights that are not finite; a negative weight; a row of zeros with cosine
            distances.
        ConfigError: an unknown metric or backend; outliers outside [0, 1); a min_distance that is not above 0.
        CapabilityError: the backend lacks the metric, the device or the dtype.
        DeviceMemoryError: the smallest chunk does not fit on the device.
        GroupError: another rank failed or is gone.

    Reference:
        Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018,
        Algorithm 1; Gonzalez, "Clustering to Minimize the Maximum Intercluster Distance", Theoretical Computer Science
        1985: no candidate is farther from a centre than twice the least that any n centres beside the labeled rows
        could do. Weights: Dyer & Frieze, "A Simple Heuristic for the p-Centre Problem", Operations Research Letters
        1985: the largest w d is at most min(3, 1 + a) times the least, where a is the largest weight over the smallest
        positive one; of several heaviest rows they start at any, and know no labeled rows.

        Outliers: the problem is that of Charikar, Khuller, Mount & Narasimhan, "Algorithms for Facility Location
        Problems with Outliers", SODA 2001, whose algorithm takes N^2 distances; the greedy choice beyond the z farthest
        rows that of Ding, Yu & Wang, "Greedy Strategy Works for k-Center Clustering with Outliers and Coreset
        Construction", ESA 2019, Algorithms 1 and 2. They draw at random from the (1 + e) z farthest; this takes the one
        behind the z farthest, which depends on no draw. If j of the n picks are outliers of the best n - j centres
        with z outliers, all but z candidates are at most twice as far as with those (with weights 1 + a times): so
        with no pick among its outliers, twice the best for n; in any case, as j <= z, twice the best for n - z.

    Complexity:
        At most N D (L + n) multiply-adds, in a handful of matrix products; the last block of picks, often most of them,
        meets only an eighth of the rows. O(N) memory beyond the features, and chunks. With z outliers, a pick meets
        2 z rows or more; from z = N / 4 on, each takes a pass over all rows.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
        >>> k_center_greedy(x, 2, labeled=torch.tensor([True, False, False, False])).indices
        tensor([3, 2])
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        reader = FeatureReader(features, device=device, chunk_rows=chunk_rows, shards=shards)
        meeting.rows(len(reader), reader.n_columns)
        meeting.same(**distance_settings(reader, metric, backend))
        labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
        _check_settings(outliers, min_distance, shards)
        if weights is not None:
            weights = as_row_weights("weights", weights, n_rows=len(reader), device=reader.home)
        meeting.count(candidates.count_nonzero(), labeled.count_nonzero())  # a sum of bools copies them as int64
        meeting.same(n=n, weights=weights is not None, min_distance=min_distance)
    n_candidates, n_labeled, *_ = meeting.totals
    check_budget(n, n_candidates)
    cover = Cover(reader, metric=metric, backend=backend)
    if n_labeled:
        cover._add(shards.numbers_of(labeled))
    del labeled  # a byte a row
    return cover._pick_allowed(n, n_candidates, candidates, weights, outliers, min_distance, keep=False)


def distance_settings(reader: FeatureReader, metric: Metric, backend: Backend) -> dict[str, object]:
    """Return what must be the same on all ranks for the same distances, once metric and backend are known ones."""
    check_metric(metric)
    check_backend(backend)
    settings: dict[str, object] = {"dtype": reader.stored_dtype, "device": reader.device.type}
    if metric == "manhattan":
        settings["faiss"] = backend != "torch" and find_spec("faiss") is not None
    return {"metric": metric, "backend": backend, **settings}


def _check_settings(outliers: object, min_distance: object, shards: Shards) -> None:
    """Require a share of outliers and a distance.

    Raises:
        ConfigError: outliers is not in [0, 1), or min_distance is given and not above 0.
        CapabilityError: there are outliers, and more ranks than one.
    """
    check_share("outliers", outliers)
    if outliers and not shards.alone:
        raise CapabilityError(f"outliers are for one process, asked for {outliers} with {shards.world_size} ranks")
    if min_distance is not None:
        check_positive("min_distance", min_distance)


def check_masks(
    labeled: ArrayLike | None, candidates: ArrayLike | None, *, n_rows: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return both masks, (N,) bool: none labeled, and all that is not labeled, where they are not given.

    Raises:
        ShapeError: a mask disagrees in shape, dtype or device, or a row is in both.
    """
    if labeled is None:
        labeled = torch.zeros(n_rows, dtype=torch.bool, device=device)
    labeled = as_mask("labeled", labeled, n_rows=n_rows, device=device)
    if candidates is None:
        return labeled, ~labeled
    candidates = as_mask("candidates", candidates, n_rows=n_rows, device=device)
    both = int((labeled & candidates).count_nonzero())
    if both:
        raise ShapeError(f"{both} rows are both labeled and candidates")
    return labeled, candidates


class Cover:
    """How far each row is from the nearest centre so far. Centres can be added, and rows picked, at any time.

    For selections in several rounds over the same features: what a round learned is kept for the next.

    Args:
        features: as in `k_center_greedy`.
        metric: as in `k_center_greedy`.
        backend: as in `k_center_greedy`.
        device: as in `k_center_greedy`.
        chunk_rows: as in `k_center_greedy`.
        group: as in `k_center_greedy`. Row numbers are then those of the pool; what is said of each row, as masks and
            distances, is about this rank's.

    Raises:
        See `k_center_greedy`.

    Example:
        >>> cover = Cover(torch.tensor([[0.0], [1.0], [5.0], [9.0]]))
        >>> cover.add(torch.tensor([0]))
        >>> cover.pick(1).indices
        tensor([3])
        >>> cover.distances
        tensor([0., 1., 5., 9.])
    """

    def __init__(
        self,
        features: Features | FeatureReader,
        *,
        metric: Metric = "euclidean",
        backend: Backend = "auto",
        device: torch.device | str | None = None,
        chunk_rows: int | None = None,
        group: Group | None = None,
    ) -> None:
        if not isinstance(features, FeatureReader):
            shards = as_shards(group)
            with shards.meeting() as meeting:
                features = FeatureReader(features, device=device, chunk_rows=chunk_rows, shards=shards)
                meeting.rows(len(features), features.n_columns)
                meeting.same(**distance_settings(features, metric, backend))
        self._reader: FeatureReader = features
        self._shards = features.shards
        self._metric, self._backend = metric, backend
        with exact_arithmetic(self._reader.device):
            self._seen = survey(self._reader, metric)
            self._space = make_space(self._reader, self._seen, metric, backend)
            self._source = StreamedRows(self._reader, self._space)
        self._dtype = torch.promote_types(self._reader.dtype, torch.float32)
        self._values = torch.full((len(self),), torch.inf, dtype=self._space.dtype, device=self._reader.device)
        self._is_center = torch.zeros(len(self), dtype=torch.bool, device=self._reader.device)
        self._n_centers = 0

    @property
    def is_center(self) -> Tensor:
        """(N,) bool, the centres so far."""
        return self._is_center.to(self._reader.home)

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def distances(self) -> Tensor:
        """(N,) the distance of each row to its nearest centre; infinite where there is no centre yet."""
        return self._space.distance(self._values).to(self._reader.home, self._dtype)

    def add(self, rows: Tensor) -> None:
        """Make rows (p,) int64 centres, in one pass."""
        with self._shards.meeting() as meeting:
            meeting.rows(len(self), self._reader.n_columns)
            rows = as_integers("rows", rows)
            meeting.same(rows=rows)
        self._add(as_rows("rows", rows, n_rows=self._shards.n_rows, device=self._reader.device))

    def _add(self, rows: Tensor) -> None:
        if len(rows):
            with exact_arithmetic(self._reader.device):
                self._pool(self._values).lower(rows)
            self._shards.settle()
            self._is_center[self._shards.local(rows)] = True
            self._n_centers += len(rows)

    def extended(self, features: Features | FeatureReader) -> Cover:
        """Return the cover of features with more rows behind these, with the same centres.

        The new rows are measured, in one pass over them; the others are not again, unless the new ones are so far out
        that all numbers must be scaled anew.

        Args:
            features: these rows, with others behind them.

        Shapes:
            features: (M, D) float, with M at least N.

        Raises:
            ShapeError: there are fewer rows, or other columns.
            CapabilityError: the rows are on several ranks, where those behind them would be among others.
            See `k_center_greedy` for the others.

        Example:
            >>> cover = Cover(torch.tensor([[0.0], [1.0], [5.0]]))
            >>> cover.add(torch.tensor([0]))
            >>> cover.extended(torch.tensor([[0.0], [1.0], [5.0], [9.0]])).distances
            tensor([0., 1., 5., 9.])
        """
        if not self._shards.alone:
            raise CapabilityError(f"a cover on {self._shards.world_size} ranks cannot be extended: make it anew")
        settings: dict[str, Any] = {"device": self._reader.device, "chunk_rows": self._reader.given_chunk_rows}
        reader = features if isinstance(features, FeatureReader) else FeatureReader(features, **settings)
        n_old = len(self)
        if len(reader) < n_old or reader.n_columns != self._reader.n_columns:
            raise ShapeError(
                f"a cover of {n_old} rows of {self._reader.n_columns} columns cannot be extended to {len(reader)} rows "
                f"of {reader.n_columns}"
            )
        more = Cover(reader, metric=self._metric, backend=self._backend)
        centers = self._is_center.nonzero().squeeze(1)
        alike = more._space.scale == self._space.scale and more._space.dtype == self._space.dtype
        if not alike or isinstance(features, FeatureReader):
            more.add(centers)
            return more
        more._is_center[centers], more._n_centers = True, len(centers)
        more._values[:n_old] = self._values
        if len(centers) and len(reader) > n_old:
            with exact_arithmetic(reader.device):
                there = more._space.prepare(reader.rows(centers))
                rest = StreamedRows(FeatureReader(features[n_old:], **settings), more._space)
                more._values[n_old:] = nearest_centers(rest, more._space, there)[1]
        return more

    def pick(
        self,
        n: int,
        *,
        candidates: Tensor | None = None,
        weights: Tensor | None = None,
        outliers: float = 0.0,
        min_distance: float | None = None,
    ) -> Selection:
        """Pick n rows by `k_center_greedy`, among all that are no centres unless `candidates` (N,) bool says which.

        The picks do not become centres, since perhaps they are not all labeled: `add` those that are. Weights and
        outliers may be others at each call: what is kept are the distances. All settings, `n`, `weights`,
        `outliers` and `min_distance`, are as `k_center_greedy` has them.
        """
        device, home = self._reader.device, self._reader.home
        with self._shards.meeting() as meeting:
            meeting.rows(len(self), self._reader.n_columns)
            _check_settings(outliers, min_distance, self._shards)
            if weights is not None:
                weights = as_row_weights("weights", weights, n_rows=len(self), device=home)
            if candidates is None:
                candidates = ~self._is_center
            else:
                candidates = as_mask("candidates", candidates, n_rows=len(self), device=home).to(device)
            meeting.count(candidates.count_nonzero())
            meeting.same(n=n, weights=weights is not None, min_distance=min_distance)
        check_budget(n, meeting.totals[0])
        return self._pick_allowed(n, meeting.totals[0], candidates, weights, outliers, min_distance)

    def _pick_allowed(  # noqa: PLR0917 - after the checks of both callers
        self,
        n: int,
        n_allowed: int,
        candidates: Tensor,
        weights: Tensor | None,
        outliers: float,
        min_distance: float | None,
        *,
        keep: bool = True,
    ) -> Selection:
        """Do what `pick` does, after its checks. What need not be kept is used up: each byte a row counts."""
        if not keep:
            self._is_center = self._is_center[:0].clone()
        device, home = self._reader.device, self._reader.home
        allowed = candidates.to(device)
        beyond = min(rows_in(outliers, n_allowed), n_allowed - n)
        with exact_arithmetic(device):
            if weights is None:
                picked, scores = self._pick(n, allowed, beyond, min_distance, keep=keep)
            else:
                picked, scores = self._pick_weighted(n, allowed, weights.to(device), beyond, min_distance)
        return Selection(picked.to(home), scores.to(home, self._dtype))

    def _pick(self, n: int, allowed: Tensor, beyond: int, min_distance: float | None, *, keep: bool) -> Picks:
        values = self._values.clone() if keep else self._values
        pool = self._pool(values.masked_fill_(~allowed, -torch.inf))
        least = -math.inf if min_distance is None else self._rounded(self._space.value(min_distance))
        if self._n_centers:
            picked, values = self._farthest_first(pool, n, least, beyond)
            return picked, self._space.distance(values)
        first, distance, center = self._farthest_from_mean(allowed, beyond)
        pool.values[self._shards.local(first)] = -torch.inf
        if n == 1:
            return first, distance
        pool.lower_near(center)
        picked, values = self._farthest_first(pool, n - 1, least, beyond)
        return torch.cat([first, picked]), torch.cat([distance, self._space.distance(values)])

    def _farthest_first(self, pool: Pool, n: int, least: float, beyond: int) -> Picks:
        if self._shards.alone:
            return farthest_first(pool, n, least, finish=False, beyond=beyond)
        return ShardedPool(pool, self._source).farthest_first(n, least)

    def _pick_weighted(
        self, n: int, allowed: Tensor, weights: Tensor, beyond: int, min_distance: float | None
    ) -> Picks:
        """Do what `_pick` does, with values that are multiplied by what multiplies the distances by the weights."""
        space, shards = self._space.linear(), self._shards
        weights = torch.where(allowed, weights, 0).double()
        heaviest = shards.all_reduce(weights.max() if len(weights) else weights.new_zeros(()), "max")
        scale = 2.0 ** math.frexp(float(heaviest))[1]  # a power of two, by which nothing is rounded
        factors = space.squared(weights / scale)
        # Squares of weights that differ very much would vanish in float32 beside those of small distances.
        lightest = torch.where(factors > 0, factors, 1).min() if len(factors) else factors.new_ones(())
        small = bool(shards.all_reduce(lightest, "min") < _SMALL_FACTOR)
        dtype = torch.float64 if small else space.dtype
        factors = torch.where(factors >= torch.finfo(dtype).smallest_normal, factors, 0).to(dtype)
        closest, least = 0.0, -math.inf
        if min_distance is not None:
            closest, least = self._rounded(space.value(min_distance)), 2 * torch.finfo(dtype).smallest_normal
        values = self._values if space is self._space else self._space.distance(self._values)
        pool = Pool(self._source, space, values.to(dtype), factors, closest)
        if self._n_centers:
            pool.values = torch.where(allowed, pool.weighed(values), -torch.inf)
            picked, values = self._farthest_first(pool, n, least, beyond)
            return picked, space.distance(values) * scale
        if min_distance is not None and not bool(heaviest > 0):
            none = allowed.nonzero().squeeze(1)[:0]
            return none, self._values[none].double()
        among = allowed & (weights == heaviest)
        first, distance, center = self._farthest_from_mean(among, min(beyond, max(int(among.sum()) - 1, 0)))
        mine = shards.local(first)
        pool.values = torch.where(allowed, pool.values, -torch.inf).index_fill_(0, mine, -torch.inf)
        if n == 1:
            return first, distance * heaviest
        pool.lower_near(center)
        picked, values = self._farthest_first(pool, n - 1, least, beyond)
        return torch.cat([first, picked]), torch.cat([distance * heaviest, space.distance(values) * scale])

    def _rounded(self, value: float) -> float:
        """Return a value of the space as it is compared with others."""
        return float(torch.tensor(value, dtype=self._space.dtype))

    def _farthest_from_mean(self, allowed: Tensor, beyond: int = 0) -> tuple[Tensor, Tensor, Rows]:
        """Return the row farthest from the mean of all but for some, (1,), its distance, (1,), and what it holds.

        In float64, and N times as large, so that there is no rounding where the features are whole numbers.
        """
        reader, total, metric = self._reader, self._seen.total * self._space.scale, self._metric
        n_rows = self._shards.n_rows
        farthest = Largest(beyond + 1, total)
        # used again and again: new memory for each chunk would be as much again as the pool's, in pieces
        room = torch.empty(0, dtype=torch.float64, device=reader.device)

        def measure(start: int, stop: int) -> None:
            nonlocal room
            x = reader.read(start, stop)
            if len(room) < len(x):
                room = torch.empty(x.shape, dtype=torch.float64, device=reader.device)
            x = room[: len(x)].copy_(x)
            x = unit_rows(x) if metric == "cosine" else x.mul_(self._space.scale)
            difference = x.mul_(n_rows).sub_(total)
            far = difference.abs_().sum(1) if metric == "manhattan" else difference.square_().sum(1)
            farthest.add(far.masked_fill_(~allowed[start:stop], -torch.inf), start)

        reader.in_chunks(len(self), reader.chunk_rows(), measure)
        if beyond:
            best = farthest.least
            first = farthest.rows[(farthest.values == best).to(torch.uint8).argmax(0, keepdim=True)]
            center = self._source.select(first)
        else:
            (found, row), center = first_of_all(farthest.values, self._source, farthest.rows)
            best, first = total.new_tensor(found), torch.tensor([row], device=total.device)
        value = best.unsqueeze(0) / (n_rows if metric == "manhattan" else n_rows**2)
        space_distance = value / 2 if metric == "cosine" else self._space.distance(value)
        return first, space_distance.to(self._space.dtype), center

    def _pool(self, values: Tensor) -> Pool:
        return Pool(self._source, self._space, values)


class Assignment(NamedTuple):
    """Which centre each row belongs to.

    Shapes:
        centers: (N,) int64, the row number of the nearest centre.
        distances: (N,) float, how far it is.
    """

    centers: Tensor
    distances: Tensor


def assign_to_centers(
    features: Features,
    centers: Tensor,
    *,
    metric: Metric = "euclidean",
    backend: Backend = "auto",
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> Assignment:
    """Return the nearest centre of each row, and its distance: what each pick stands for.

    Args:
        features: as in `k_center_greedy`.
        centers: row numbers, as those that `k_center_greedy` picked. Equal distances go to the earlier of two centres.
        metric: as in `k_center_greedy`.
        backend: as in `k_center_greedy`.
        device: as in `k_center_greedy`.
        chunk_rows: as in `k_center_greedy`.
        group: as in `k_center_greedy`. The centres are rows of the pool, the same on every rank; the answer is about
            this rank's rows.

    Shapes:
        features: (N, D) float.
        centers: (P,) int64.

    Raises:
        ShapeError: no centres, or rows that repeat or lie outside of [0, N).
        See `k_center_greedy` for the others.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
        >>> assign_to_centers(x, torch.tensor([0, 3]))
        Assignment(centers=tensor([0, 0, 3, 3]), distances=tensor([0., 1., 4., 0.]))
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        reader = FeatureReader(features, device=device, chunk_rows=chunk_rows, shards=shards)
        meeting.rows(len(reader), reader.n_columns)
        centers = as_integers("centers", centers)
        meeting.same(centers=centers, **distance_settings(reader, metric, backend))
    rows = as_rows("centers", centers, n_rows=shards.n_rows, device=reader.device)
    if not len(rows):
        raise ShapeError("centers must name at least one row, got none")
    with exact_arithmetic(reader.device):
        space = make_space(reader, survey(reader, metric), metric, backend)
        source = StreamedRows(reader, space)
        there = source.select(rows)
        assigned, values = nearest_centers(source, space, there)
        shards.settle()  # before numbers of rows that could not be read are taken for those of centres
        # Equal centres may be told apart by rounding: all of them are the first.
        kinds, kind = there.x.unique(dim=0, return_inverse=True)
        order = torch.arange(len(rows), device=rows.device)
        first = order.new_full((len(kinds),), len(rows)).scatter_reduce_(0, kind, order, "amin")
        assigned = first[kind[assigned]]
    distances = space.distance(values).to(reader.home, torch.promote_types(reader.dtype, torch.float32))
    return Assignment(rows[assigned].to(reader.home), distances)
