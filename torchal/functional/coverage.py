"""Probability coverage: as many rows as possible in the balls around the labeled ones, and how large a ball may be."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from torchal._checks import ArrayLike, check_budget, check_fraction, check_whole, rows_in
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.balls import Balls, Ruler, check_edges, find_balls, slices
from torchal.engine.distances import ProductMetric, check_metric, unit_rows
from torchal.engine.features import FeatureReader, Features
from torchal.errors import ConfigError, DataError
from torchal.functional.k_center import Cover, check_masks
from torchal.functional.kmeans import kmeans
from torchal.functional.selection import Selection

MAX_EDGES = 2**28
"""The most rows that balls hold in all, unless told otherwise: 1 GiB, and 1.5 GiB while they are found."""

_NEVER = -(2**62)  # the gain of a row that may not be picked
_STARTS = 10  # of k-means: in one of few clusters that two classes share, half of the balls would seem impure
_POINTS = 1024  # rows that look for another cluster at once


def prob_cover(
    features: Features,
    n: int,
    *,
    radius: float,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    metric: ProductMetric = "euclidean",
    max_edges: int = MAX_EDGES,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Selection:
    r"""Pick, again and again, the row whose ball holds the most rows that no ball around a centre holds yet.

    Labeled rows are the first centres, and each pick becomes one; with none labeled, the first ball is the fullest. A
    ball holds the rows that are nearer than the radius, its own row among them: `purity_radius` finds one. Ties go to
    the lowest row. All rows want to be covered, those too that are no candidates. When no candidate's ball holds an
    uncovered row, the rest are those farthest from all centres (`k_center_greedy`), with the score 0: what the radius
    cannot tell apart any more, distances can.

    A distance counts as below the radius if that is so in float64, whatever the dtype of the features: pairs that are
    too near to the radius for a product in float32 are measured again. So the picks are those of the algorithm, one by
    one, and do not depend on chunks or devices, up to the rounding of float64.

    The rows of all balls are kept, and each covered row is taken off the balls that hold it once. How many there will
    be is estimated from 512 balls, and at least 65 536 rows that may lie in them, before any other work on a pool where
    they might be more than `max_edges`.

    Args:
        features: a tensor on any device, an array, or a mapped file; they may be larger than the device's memory.
        n: how many rows to pick.
        radius: of the balls, above 0, in the units of the metric; infinite balls hold everything.
        labeled: the first centres.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        metric: euclidean; or cosine, which is 1 - cos. Rows of length 1 have the euclidean distance sqrt(2 (1 - cos)).
        max_edges: the most rows that all balls may hold together, a row counted once for each. Each takes 6 bytes
            while they are found, and 4 then.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows compared at once with as many others; what makes a block of 4 MiB (CPU) or 128 MiB (GPU),
            unless given.

    Shapes:
        features: (N, D) float. Half precision is computed in float32, float64 in float64.
        labeled, candidates: (N,) bool, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), how many rows each pick was the first to cover. Both on the features'
        device.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ConfigError: the radius is not above 0; the balls hold more than `max_edges` rows in all, and the message names
            a radius that fits; an unknown metric.
        ShapeError: features is no float matrix, or a mask disagrees in shape, dtype or device.
        DataError: no rows; features that are not finite; a row of zeros with cosine distances.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Yehuda, Dekel, Hacohen & Weinshall, "Active Learning Through a Covering Lens", NeurIPS 2022, Algorithm 1. Balls
        are open, as in the authors' code. They scale rows to length 1 first, which metric="cosine" with half the square
        of their radius does. What is left open there, once all rows are covered, is said above (their code would pick
        row 0 again and again), and their code makes the last N mod 500 rows no centres.

    Complexity:
        N^2 D / 2 multiply-adds for the balls, each pair of blocks once. The picks take O(E + N n) for E rows in all
        balls, and memory 6 E bytes beyond the features, and blocks.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [7.0], [8.0], [20.0]])
        >>> prob_cover(x, 3, radius=1.5)
        Selection(indices=tensor([1, 3, 5]), scores=tensor([3., 2., 1.]))
    """
    check_ball_settings(radius, metric, max_edges)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
    check_budget(n, int(candidates.sum()))  # before the balls are found
    cover = BallCover(features, radius=radius, metric=metric, max_edges=max_edges, device=device, chunk_rows=chunk_rows)
    return cover.pick(n, labeled=labeled, candidates=candidates)


class BallCover:
    """The balls of `prob_cover`, found once for as many batches as are picked from the same features.

    Args:
        features, radius, metric, max_edges, device, chunk_rows: see `prob_cover`, which also says what is raised.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [7.0], [8.0], [20.0]])
        >>> cover = BallCover(x, radius=1.5)
        >>> first = cover.pick(1).indices
        >>> cover.pick(1, labeled=torch.arange(6) == first).indices
        tensor([3])
    """

    def __init__(
        self,
        features: Features,
        *,
        radius: float,
        metric: ProductMetric = "euclidean",
        max_edges: int = MAX_EDGES,
        device: torch.device | str | None = None,
        chunk_rows: int | None = None,
    ) -> None:
        check_ball_settings(radius, metric, max_edges)
        self._reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
        self._metric = metric
        with exact_arithmetic(self._reader.device):
            ruler = Ruler(self._reader, metric)
            check_edges(ruler, radius, max_edges)
            self._balls = find_balls(ruler, radius, max_edges)

    @property
    def n_edges(self) -> int:
        """How many rows all balls hold together, at 4 bytes each."""
        return len(self._balls.rows)

    def pick(self, n: int, *, labeled: Tensor | None = None, candidates: Tensor | None = None) -> Selection:
        """Pick n rows as `prob_cover` does; what is picked or labeled is not remembered.

        Shapes:
            labeled, candidates: (N,) bool, as `prob_cover` has them.
        """
        reader = self._reader
        labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
        check_budget(n, int(candidates.sum()))
        with exact_arithmetic(reader.device):
            coverage = _Coverage(self._balls, candidates.to(reader.device))
            coverage.add(labeled.to(reader.device).nonzero().squeeze(1))
            picked, gains = coverage.pick(n)
        scores = torch.zeros(n, dtype=torch.promote_types(reader.dtype, torch.float32), device=reader.home)
        scores[: len(gains)] = gains.to(scores)
        picked = picked.to(reader.home)
        if len(picked) < n:
            cover = Cover(reader, metric=self._metric)
            cover.add(torch.cat([labeled.nonzero().squeeze(1), picked]))
            left = candidates.index_fill(0, picked, False)
            picked = torch.cat([picked, cover.pick(n - len(picked), candidates=left).indices])
        return Selection(picked, scores)


def check_ball_settings(radius: object, metric: object, max_edges: object) -> None:
    """Require settings of `prob_cover` that make sense.

    Raises:
        ConfigError: the radius is no number above 0, max_edges no whole number above 0, or an unknown metric.
    """
    if isinstance(radius, bool) or not isinstance(radius, Real) or not float(radius) > 0:
        raise ConfigError(f"radius must be a number above 0, got {radius!r}")
    check_whole("max_edges", max_edges, least=1)
    check_metric(metric, among=ProductMetric)


class _Coverage:
    """Which rows are covered, and how many more each row's ball would cover."""

    def __init__(self, balls: Balls, candidates: Tensor) -> None:
        self._balls = balls
        self._uncovered = torch.ones_like(candidates)
        self._gains = torch.where(candidates, balls.starts.diff(), _NEVER)

    def add(self, centers: Tensor) -> None:
        """Cover the balls around some rows (p,) int64."""
        for some in self._few(centers):
            held = self._balls.around(some)
            new = held[self._uncovered[held]]
            new = new.unique() if len(some) > 1 else new
            self._uncovered[new] = False
            for covered in self._few(new.long()):
                around = self._balls.around(covered)  # near is mutual: these balls hold it
                self._gains.index_add_(0, around, self._gains.new_full((1,), -1).expand(len(around)))

    def pick(self, n: int) -> tuple[Tensor, Tensor]:
        """Pick n rows, or fewer, (p,) int64, until no ball covers any more; and how many each has covered, (p,)."""
        rows: list[Tensor] = []
        gains: list[Tensor] = []
        for _ in range(n):
            row = self._gains.argmax(0, keepdim=True)
            gain = self._gains[row]
            if not bool(gain > 0):  # how much is to be done depends on the row, so the device is waited for in any case
                break
            self.add(row)
            self._gains[row] = _NEVER
            rows.append(row)
            gains.append(gain)
        empty = self._gains.new_empty(0)
        return torch.cat([empty, *rows]), torch.cat([empty, *gains])

    def _few(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return some rows in parts whose balls fit into a chunk; one ball may be larger."""
        sizes = self._balls.starts[rows + 1] - self._balls.starts[rows]
        part = sizes.cumsum(0) // values_per_chunk(rows.device)
        parts: tuple[Tensor, ...] = rows.split(part.unique_consecutive(return_counts=True)[1].tolist())
        return parts


def purity_radius(
    features: Features,
    *,
    n_clusters: int,
    generator: torch.Generator,
    alpha: float = 0.95,
    metric: ProductMetric = "euclidean",
    max_balls: int = 10_000,
    max_iterations: int = 100,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> float:
    r"""Return the largest radius at which a share `alpha` of the balls holds rows of one cluster only.

    The clusters are those of k-means, the best of ten starts. A ball is pure up to the distance of the nearest row of
    another cluster, so one pass over the rows says how pure the balls of every radius are, and none is tried. The
    radius is one of these distances, measured in float64: at any larger one fewer balls are pure.

    Args:
        features: as in `prob_cover`.
        n_clusters: as many as there are classes; more than one.
        generator: the randomness of the clusters, and of the sample.
        alpha: the share of pure balls.
        metric: as in `prob_cover`; with "cosine" the clusters are those of rows scaled to length 1.
        max_balls: of more rows than that, so many are drawn whose balls count; others still make a ball impure. A share
            of 0.95 has a standard error of 0.002 on 10 000 balls.
        max_iterations: of k-means.
        device: as in `prob_cover`.
        chunk_rows: as in `prob_cover`.

    Shapes:
        features: (N, D) float.

    Returns:
        The radius, for `prob_cover`; infinite where there is one cluster only, as when all rows are equal.

    Raises:
        ConfigError: n_clusters, max_balls or max_iterations is no whole number, alpha is not in (0, 1], an unknown
            metric.
        BudgetError: n_clusters is more than the number of rows.
        DataError: no rows; features that are not finite; a row of zeros with cosine distances; so many rows equal rows
            of other clusters that no ball is small enough.
        ShapeError: features is no float matrix.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Yehuda, Dekel, Hacohen & Weinshall, "Active Learning Through a Covering Lens", NeurIPS 2022, where the radius is
        searched for on a grid, with as many clusters as classes and alpha = 0.95.

    Complexity:
        M N D multiply-adds for M balls, and those of `kmeans`; the features of M rows in memory, and with cosine
        distances a copy of all.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [8.0], [9.0], [10.0]])
        >>> purity_radius(x, n_clusters=2, alpha=1.0, generator=torch.Generator().manual_seed(0))
        6.0
    """
    check_whole("n_clusters", n_clusters, least=2)
    check_fraction("alpha", alpha)
    check_whole("max_balls", max_balls, least=1)
    check_ball_settings(1.0, metric, 1)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    with exact_arithmetic(reader.device):
        ruler = Ruler(reader, metric)
    clusters = kmeans(
        _units(reader) if metric == "cosine" else features,
        n_clusters,
        generator=generator,
        max_iterations=max_iterations,
        n_starts=_STARTS,
        device=device,
        chunk_rows=chunk_rows,
    ).assignments.to(reader.device)
    rows = torch.arange(len(reader), device=reader.device)
    if len(rows) > max_balls:
        rows = torch.randperm(len(rows), generator=generator, device=generator.device)[:max_balls].to(reader.device)
    with exact_arithmetic(reader.device):
        reach = _nearest_of_others(ruler, rows, clusters).sort().values
    radius = ruler.distance(float(reach[min(rows_in(1 - alpha, len(reach)), len(reach) - 1)]))  # so many may be impure
    if radius == 0:
        raise DataError(
            f"{int((reach == 0).sum())} of {len(reach)} rows equal a row of another cluster: no radius leaves a share "
            f"of {alpha} of the balls pure"
        )
    return radius


def _units(reader: FeatureReader) -> Tensor:
    """Return a copy of all rows, scaled to length 1, (N, D)."""
    dtype = torch.promote_types(reader.dtype, torch.float32)
    units = torch.empty(len(reader), reader.n_columns, dtype=dtype, device=reader.device)
    for part in slices(len(reader), reader.chunk_rows()):
        units[part] = unit_rows(reader.read(part.start, part.stop))
    return units


def _nearest_of_others(ruler: Ruler, rows: Tensor, clusters: Tensor) -> Tensor:
    """Return the fine value of each of some rows (M,) with the nearest row of another cluster, in any order, (M,).

    Infinite where there is none. Rows and chunks are sorted by cluster, so that of the table of all pairs of a chunk
    those of one cluster are rectangles.
    """
    rows = rows[clusters[rows].sort(stable=True).indices]
    own, device = clusters[rows], rows.device
    best = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=device)
    rough = torch.full((len(rows),), torch.inf, dtype=ruler.space.dtype, device=device)
    parts = [(some, ruler.select(rows[some])) for some in slices(len(rows), _POINTS)]
    kinds = torch.arange(int(clusters.max()) + 2, device=device)
    edges = [torch.searchsorted(own[some], kinds).tolist() for some, _ in parts]
    longest_sq = torch.zeros((), dtype=ruler.space.dtype, device=device)

    def compare(start: int, stop: int) -> None:
        kind, order = clusters[start:stop].sort(stable=True)
        others = ruler.read(start, stop).select(order)
        ends = torch.searchsorted(kind, kinds).tolist()
        torch.maximum(longest_sq, others.rows.sq.max(), out=longest_sq)
        for (some, points), begin in zip(parts, edges, strict=True):
            values = ruler.space.rough(points.rows, others.rows)
            for c in range(len(kinds) - 1):
                if begin[c] < begin[c + 1] and ends[c] < ends[c + 1]:
                    values[begin[c] : begin[c + 1], ends[c] : ends[c + 1]] = torch.inf
            least = values.amin(1)
            torch.minimum(rough[some], least, out=rough[some])
            limits = rough[some] + 2 * ruler.band * (points.rows.sq + longest_sq)
            near = ((least <= limits) & (least < torch.inf)).nonzero().squeeze(1)
            point, other = (values[near] <= limits[near].unsqueeze(1)).nonzero().unbind(1)
            point = near[point]
            best[some].scatter_reduce_(0, point, ruler.fine(points, point, others, other), "amin")

    width = min(len(rows), _POINTS)
    ruler.reader.in_chunks(len(ruler.reader), ruler.reader.chunk_rows(width), compare)
    return best
