"""K-means of k-means, so spread that dense regions do not take all clusters, and samples balanced over its levels.

Not to be mixed up with `torchal.functional.hierarchy`, a binary tree that labels cut into pure nodes: here no label is
read, and a cluster has as many below it as k-means gave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from torchal._checks import ArrayLike, check_budget, check_whole
from torchal._chunks import exact_arithmetic
from torchal.distributed import Group, Shards, as_shards
from torchal.engine.features import FeatureReader, Features
from torchal.engine.sources import nearest_centers
from torchal.errors import ConfigError
from torchal.functional.k_center import check_masks
from torchal.functional.kmeans import euclidean_rows, kmeans
from torchal.functional.quotas import rank_within
from torchal.functional.selection import Selection

Within: TypeAlias = Literal["random", "closest"]

_MOST_RESAMPLED = 20  # rows of a cluster, unless asked for others: k-means of them costs next to nothing at any N


class ClusterLevels(NamedTuple):
    """The result of `hierarchical_kmeans`: levels of clusters, the smallest clusters first.

    Shapes:
        centers: one (K_t, D) float a level.
        parents: one int64 a level, the cluster that each row (N,) belongs to, then that each cluster of the level
            before (K_t-1,) belongs to. A cluster may be empty.
        distances: (N,) float, from each row to the centre of its first cluster.
    """

    centers: tuple[Tensor, ...]
    parents: tuple[Tensor, ...]
    distances: Tensor

    def clusters_at(self, level: int) -> Tensor:
        """Return the cluster of each row at a level, counted from 0, (N,)."""
        clusters = self.parents[0]
        for parents in self.parents[1 : level + 1]:
            clusters = parents[clusters]
        return clusters


def hierarchical_kmeans(
    features: Features,
    sizes: Sequence[int],
    *,
    generator: torch.Generator,
    resample: Sequence[int] | None = None,
    n_resamples: int = 10,
    max_iterations: int = 20,
    group: Group | None = None,
) -> ClusterLevels:
    """Cluster rows by k-means, then the centres by k-means, and so on; spread the centres of each level by resampling.

    K-means alone puts most centres where most rows are. So at each level the few rows nearest to each centre are
    clustered in the place of all, some times over: however dense a region is, each of its clusters gives no more rows
    than any other, and the centres come to lie evenly over all regions.

    Args:
        features: what is clustered.
        sizes: clusters of each level, ever fewer. A level with fewer points than that has one cluster for each.
        generator: the randomness of k-means.
        resample: for each level, how many of each cluster's nearest points are clustered anew; 1 for no resampling
            there. Half of the mean size of its clusters, and at most 20, unless given.
        n_resamples: how often.
        max_iterations: of each k-means.
        group: of ranks that call this together, each with its own rows; see `torchal.distributed`. The centres, and the
            parents of clusters, are the same on every rank; the parents of rows, and their distances, are about its
            own. What depends on how the rows are split is said by `kmeans`.

    Shapes:
        features: (N, D) float; a tensor or a mapped file.

    Raises:
        ConfigError: sizes do not fall, resample has not one number for each of them, or a number is out of range.
        ShapeError: features is no float matrix.
        DataError: no rows, or features that are not finite.
        GroupError: another rank failed or is gone.

    Reference:
        Vo et al., "Automatic Data Curation for Self-Supervised Learning: A Clustering-Based Approach", TMLR 2024,
        hierarchical k-means with resampling. An empty cluster's centre is not clustered further. The authors' k-means
        runs 50 iterations, and its start draws several rows for each centre and keeps the best, which leaves the few
        centres of the upper levels somewhat more even.

    Complexity:
        N D K multiply-adds for each resampling of the first level of K clusters, beyond `kmeans`; the other levels cost
        little. O(N) memory beyond the features, and chunks; K times `resample` rows are copied, to every rank, where
        each clusters them anew.

    Example:
        >>> x = torch.tensor([[0.0], [0.1], [1.0], [1.1], [90.0], [90.1]])
        >>> levels = hierarchical_kmeans(x, (3, 2), generator=torch.Generator().manual_seed(0))
        >>> [len(level.unique()) for level in (levels.clusters_at(0), levels.clusters_at(1))]
        [3, 2]
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        check_levels(sizes, resample, n_resamples, max_iterations)
        reader = FeatureReader(features, shards=shards)
        meeting.rows(len(reader), reader.n_columns)
        numbers = (tuple(sizes), None if resample is None else tuple(resample), n_resamples)
        meeting.same(numbers=numbers, dtype=reader.dtype)
    points, wanted = features, torch.ones(len(reader), dtype=torch.bool, device=reader.home)
    centers: list[Tensor] = []
    parents: list[Tensor] = []
    distances: list[Tensor] = []
    for level, size in enumerate(sizes):
        of_level = shards if level == 0 else Shards(None)  # the centres above are on every rank
        n_points = of_level.total(int(wanted.sum()))
        k = min(size, n_points)
        near = min(_MOST_RESAMPLED, n_points // (2 * k)) if resample is None else resample[level]
        times = n_resamples if near > 1 else 0
        found = _spread(points, wanted, k, near, times, max_iterations, generator, of_level)
        for result, to in zip(found, (centers, parents, distances), strict=True):
            to.append(result if level == 0 else shards.broadcast(result))  # should their last digits differ
        points = centers[-1]
        wanted = of_level.all_reduce(_sizes(parents[-1][wanted], len(points), of_level)) > 0
    shards.settle()
    return ClusterLevels(tuple(centers), tuple(parents), distances[0])


def _sizes(clusters: Tensor, n_clusters: int, shards: Shards) -> Tensor:
    """Return how many rows of this rank are in each cluster."""
    none = clusters.new_zeros(n_clusters)
    return shards.attempt(lambda: clusters.bincount(minlength=n_clusters), lambda: none)


def _spread(  # noqa: PLR0917 - what one level needs
    points: Features,
    wanted: Tensor,
    k: int,
    near: int,
    n_resamples: int,
    max_iterations: int,
    generator: torch.Generator,
    shards: Shards,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the centres of the wanted points (N,), and the cluster of each point and its distance to the centre."""
    reader = FeatureReader(points, shards=shards)
    dtype = torch.promote_types(reader.dtype, torch.float32)
    weights = None if bool(wanted.all()) else wanted.to(dtype)
    centers = kmeans(
        points, k, weights=weights, generator=generator, max_iterations=max_iterations, group=shards
    ).centers
    rows = wanted.nonzero().squeeze(1)
    with exact_arithmetic(reader.device):
        space, source = euclidean_rows(reader)
        assigned, values = nearest_centers(source, space, space.prepare(centers))
        for _ in range(n_resamples):
            some = reader.rows(_nearest_of_all_ranks(rows, assigned, values, near, shards))
            k_now = min(k, len(some))
            centers = kmeans(some, k_now, generator=generator, max_iterations=max_iterations).centers
            centers = shards.broadcast(centers)  # should their last digits differ
            assigned, values = nearest_centers(source, space, space.prepare(centers))
    return centers, assigned, space.distance(values).to(dtype)


def _nearest_of_all_ranks(rows: Tensor, assigned: Tensor, values: Tensor, n: int, shards: Shards) -> Tensor:
    """Return the rows of the pool that `_nearest_of_each` finds among those of all ranks."""
    if shards.alone:
        return _nearest_of_each(rows, assigned, values, n)
    mine = rows
    rows = shards.attempt(lambda: _nearest_of_each(mine, assigned, values, n), lambda: mine[:0])
    sizes = shards.all_gather(torch.tensor([len(rows)]), [1] * shards.world_size).tolist()
    found = [rows + shards.start, assigned[rows], values[rows]]
    numbers, clusters, nearest = shards.all_gather_together(found, [sizes] * len(found))
    return numbers[_nearest_of_each(torch.arange(len(numbers), device=rows.device), clusters, nearest, n)]


def _nearest_of_each(rows: Tensor, assigned: Tensor, values: Tensor, n: int) -> Tensor:
    """Return those of some rows that are among the n with the smallest values of their cluster, ascending."""
    order = rows[values[rows].argsort(stable=True)]
    return order[rank_within(assigned[order]) < n].sort().values


def balanced_sample(
    levels: ClusterLevels,
    n: int,
    *,
    generator: torch.Generator,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    within: Within = "random",
) -> Selection:
    """Draw rows, the same number from each cluster of the last level, from each of the clusters below it, and so on.

    A cluster with too few candidates gives them all, and the others more. Labeled rows count as drawn already, so that
    several rounds together are as balanced as one. Which of several clusters give one row more than the others is
    drawn at random.

    Args:
        levels: of the pool, by `hierarchical_kmeans`.
        n: how many rows to draw: a batch, or a part of the pool to go on with.
        generator: the randomness.
        labeled: rows whose labels are bought already.
        candidates: rows that may be drawn; all that are not labeled unless given.
        within: how rows of a cluster of the first level are drawn: "random", or those "closest" to its centre.

    Shapes:
        labeled: (N,) bool, on the device of the levels.
        candidates: (N,) bool, on the device of the levels.

    Returns:
        indices (n,), the last level's clusters in turn; scores (n,), all 0: no pick is wanted more than another.

    Raises:
        ConfigError: within is neither.
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: the masks disagree in rows, dtype or device, or a row is both labeled and a candidate.

    Reference:
        Vo et al. (2024), hierarchical sampling. There no row is labeled.

    Complexity:
        A few passes over N numbers and one sort of the candidates.

    Example:
        >>> x = torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4], [9.0], [9.1]])
        >>> levels = hierarchical_kmeans(x, (2,), generator=torch.Generator().manual_seed(0))
        >>> rows = balanced_sample(levels, 4, generator=torch.Generator().manual_seed(0)).indices
        >>> (rows < 5).sum(), (rows >= 5).sum()
        (tensor(2), tensor(2))
    """
    check_within(within)
    parents = levels.parents
    n_rows, device = len(parents[0]), parents[0].device
    labeled, candidates = check_masks(labeled, candidates, n_rows=n_rows, device=device)
    check_budget(n, int(candidates.sum()))
    had, room = [labeled.long()], [candidates.long()]
    for parent, centers in zip(parents, levels.centers, strict=True):
        for counts in (had, room):
            counts.append(counts[-1].new_zeros(len(centers)).index_add_(0, parent, counts[-1]))
    shares = torch.tensor([n], device=device)
    above = torch.zeros_like(had[-1])
    for level in range(len(parents), 0, -1):
        shares = _even_shares(had[level], room[level], above, shares, generator)
        above = parents[level - 1]
    rows = candidates.nonzero().squeeze(1)
    if within == "closest":
        order = levels.distances[rows].argsort(stable=True)
    else:
        order = torch.randperm(len(rows), generator=generator, device=generator.device).to(device)
    rows = rows[order]
    first = parents[0][rows]
    rows = rows[rank_within(first) < shares[first]]
    rows = rows[rank_within(levels.clusters_at(len(parents) - 1)[rows]).argsort(stable=True)]
    return Selection(rows, torch.zeros(n, device=device))


def _even_shares(had: Tensor, room: Tensor, above: Tensor, quotas: Tensor, generator: torch.Generator) -> Tensor:
    """Return what each cluster gives, (K,), so that what it gives and what it had come as near to level as they can.

    Shapes:
        had: (K,) int64, what each cluster had.
        room: (K,) int64, what it has to give.
        above: (K,) int64, in [0, P), which clusters share a quota.
        quotas: (P,) int64, what they give together.
    """

    def shares(height: Tensor) -> Tensor:
        return (height[above] - had).clamp(min=0).minimum(room)

    def together(height: Tensor) -> Tensor:
        return torch.zeros_like(quotas).index_add_(0, above, shares(height))

    # the height to which all are filled, at most; by bisection, for all quotas at once
    low, high = torch.zeros_like(quotas), torch.full_like(quotas, int((had + room).max()))
    for _ in range(int(high.max()).bit_length() + 1):
        middle = (low + high + 1) // 2
        fits = together(middle) <= quotas
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle - 1)
    given = shares(low)
    more = (shares(low + 1) > given).nonzero().squeeze(1)
    more = more[torch.randperm(len(more), generator=generator, device=generator.device).to(more.device)]
    one = rank_within(above[more]) < (quotas - together(low))[above[more]]
    return given.index_add(0, more, one.long())


def check_levels(sizes: object, resample: object, n_resamples: object, max_iterations: object) -> None:
    """Require settings of `hierarchical_kmeans` that make sense.

    Raises:
        ConfigError: one is out of range, or they do not fit together.
    """
    for name, numbers in (("sizes", sizes), ("resample", resample)):
        if name == "resample" and numbers is None:
            continue
        if not isinstance(numbers, Sequence) or isinstance(numbers, str) or not len(numbers):
            raise ConfigError(f"{name} must be one whole number for each level, got {numbers!r}")
        for number in numbers:
            check_whole(f"each of {name}", number, least=1)
    assert isinstance(sizes, Sequence)
    if any(second >= first for first, second in pairwise(sizes)):
        raise ConfigError(f"sizes must fall from level to level, got {tuple(sizes)}")
    if isinstance(resample, Sequence) and len(resample) != len(sizes):
        raise ConfigError(f"resample must have one number for each of {len(sizes)} levels, got {len(resample)}")
    check_whole("n_resamples", n_resamples, least=0)
    check_whole("max_iterations", max_iterations, least=1)


def check_within(within: object) -> None:
    """Require a way to draw rows of a cluster.

    Raises:
        ConfigError: an unknown one.
    """
    if within not in get_args(Within):
        raise ConfigError(f"within must be one of {', '.join(get_args(Within))}; got {within!r}")
