"""TypiClust: the most typical row of each cluster that has no label yet, for budgets of a few labels a class."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_groups, check_budget, check_whole
from torchal._chunks import exact_arithmetic
from torchal.distributed import Group, as_shards
from torchal.engine.features import FeatureReader, Features
from torchal.engine.near_in_group import group_rows, least_mean_distances
from torchal.engine.near_on_ranks import least_of_all_ranks
from torchal.functional.k_center import check_masks
from torchal.functional.kmeans import euclidean_rows, kmeans
from torchal.functional.quotas import rank_within
from torchal.functional.selection import Selection

_FEW = 50  # clusters, up to which the best of several starts is taken, as the authors do
_STARTS = 10


def typiclust(
    features: Features,
    n: int,
    *,
    generator: torch.Generator,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    max_clusters: int = 500,
    min_cluster_size: int = 5,
    n_neighbors: int = 20,
    max_iterations: int = 20,
    group: Group | None = None,
) -> Selection:
    """Pick the most typical rows of the largest k-means clusters that have no label yet.

    There is a cluster for each label bought so far and for each pick, up to `max_clusters`, of up to 50 clusters by the
    best of ten starts; `typical_rows` picks from them. No label is needed, and none is read: `labeled` says only where
    labels are.

    Args:
        features: what is clustered, and where typicality is measured. The paper's are self-supervised embeddings; its
            authors scale them to length 1, which is left to the caller here.
        n: how many rows to pick.
        generator: the randomness of the clusters' start.
        labeled: rows whose labels are bought already. They cover their clusters.
        candidates: rows that may be picked; all that are not labeled unless given. Rows that are neither take no part.
        max_clusters: the most clusters there are.
        min_cluster_size: clusters of fewer rows are left out as long as others have candidates.
        n_neighbors: as in `typical_rows`.
        max_iterations: of k-means.
        group: of ranks that call this together, each with its own rows, on the same kind of device; see
            `torchal.distributed`. What depends on how the rows are split is said by `kmeans`.

    Shapes:
        features: (N, D) float; a tensor or a mapped file.
        labeled: (N,) bool, on the features' device.
        candidates: (N,) bool, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), the typicality; as `typical_rows`.

    Raises:
        ConfigError: a setting is no whole number of at least 1.
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: features is no float matrix, the tensors disagree in rows, dtype or device, or a row is both labeled
            and a candidate.
        DataError: no rows, or features that are not finite.
        GroupError: another rank failed or is gone.

    Reference:
        Hacohen, Dekel & Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets",
        ICML 2022, Algorithm 1 with k-means, TPC_RP; the settings are those of its appendix. For the deviations see
        `typical_rows`; the authors take scikit-learn's mini-batch k-means for more than 50 clusters.

    Complexity:
        N D K multiply-adds per iteration for K clusters, and those of `typical_rows`; O(N) memory beyond the features,
        chunks, and one copy of the rows that take part where some take none.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [1.1], [1.3], [8.0], [8.2], [8.3]])
        >>> generator = torch.Generator().manual_seed(0)
        >>> typiclust(x, 2, generator=generator, min_cluster_size=2, n_neighbors=2).indices
        tensor([2, 5])
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        check_typiclust(max_clusters, min_cluster_size, n_neighbors)
        check_whole("max_iterations", max_iterations, least=1)
        reader = FeatureReader(features, shards=shards)
        meeting.rows(len(reader), reader.n_columns)
        labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
        meeting.count(candidates.sum(), labeled.sum())
        meeting.same(n=n, max_clusters=max_clusters, dtype=reader.dtype)
    n_candidates, n_labeled, *_ = meeting.totals
    check_budget(n, n_candidates)
    rows, first = (labeled | candidates).nonzero().squeeze(1), shards.start
    if n_candidates + n_labeled < shards.n_rows:
        labeled, candidates = labeled[rows], candidates[rows]
        features = shards.attempt(partial(reader.own_rows, rows), partial(reader.read, 0, 0))
    n_clusters = min(n_labeled + n, max_clusters)
    starts = _STARTS if n_clusters <= _FEW else 1
    clusters = kmeans(
        features, n_clusters, generator=generator, max_iterations=max_iterations, n_starts=starts, group=shards
    )
    picks = typical_rows(
        features,
        n,
        clusters=clusters.assignments,
        labeled=labeled,
        candidates=candidates,
        min_cluster_size=min_cluster_size,
        n_neighbors=n_neighbors,
        group=shards,
    )
    # picks count through the rows that take part, of all ranks
    return Selection(shards.values_of(picks.indices, rows + first), picks.scores)


def typical_rows(
    features: Features,
    n: int,
    *,
    clusters: ArrayLike,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    min_cluster_size: int = 1,
    n_neighbors: int = 20,
    group: Group | None = None,
) -> Selection:
    """Pick, again and again, the most typical candidate left of the largest among the clusters with the fewest labels.

    A row's typicality is the inverse of its mean distance to the nearest other rows of its cluster, labeled or not,
    picked or not. A pick counts as a label, so that with more picks than clusters it is the next round's turn. Where
    all clusters of at least `min_cluster_size` rows have run out of candidates, the smaller ones are next. Equal
    clusters go to the lowest number, equally typical rows to the lowest row.

    Args:
        features: where typicality is measured, by euclidean distances.
        n: how many rows to pick.
        clusters: of the rows, however they were found.
        labeled: rows whose labels are bought already.
        candidates: rows that may be picked; all that are not labeled unless given. Rows that are neither take no part.
        min_cluster_size: clusters of fewer rows are the last to be picked from.
        n_neighbors: how many neighbours a row's typicality depends on, or all other rows of a cluster with fewer.
        group: of ranks that call this together, each with its own rows, on the same kind of device; see
            `torchal.distributed`. Clusters have the same numbers on all ranks, and may be spread over them; the picks
            are those of one process, ties included.

    Shapes:
        features: (N, D) float; a tensor or a mapped file.
        clusters: (N,) int64, any numbers of at least 0; on the features' device, as are the masks.
        labeled: (N,) bool.
        candidates: (N,) bool.

    Returns:
        indices (n,) in pick order; scores (n,), the typicality: infinite where the nearest rows are copies, 0 for a row
        that is alone in its cluster.

    Raises:
        ConfigError: a setting is no whole number of at least 1.
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: features is no float matrix, the tensors disagree in rows, dtype or device, or a row is both labeled
            and a candidate.
        DataError: no rows, features that are not finite, or a negative cluster.
        GroupError: another rank failed or is gone.

    Reference:
        Hacohen, Dekel & Weinshall (2022), Algorithm 1 and its typicality, where no cluster gives two picks. The
        authors' code measures among the rows neither labeled nor picked, by squared distances, to at most half of them;
        drops clusters of `min_cluster_size` rows too; and, with more picks than clusters, goes round all of them in
        their first order, however many labels each has.

    Complexity:
        M^2 D multiply-adds for a cluster of M rows that gives a pick; O(N) memory beyond the features, and tiles of at
        most 2048 rows by as many others as make a chunk. A rank with R of these rows does R M D, and holds R times
        `n_neighbors` numbers of them; the cluster's rows travel past all ranks twice, a block at once.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [1.5], [9.0], [9.0]])
        >>> typical_rows(x, 3, clusters=torch.tensor([0, 0, 0, 1, 1]))
        Selection(indices=tensor([1, 3, 2]), scores=tensor([1.3333,    inf, 1.0000]))
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        check_typiclust(1, min_cluster_size, n_neighbors)
        reader = FeatureReader(features, shards=shards)
        meeting.rows(len(reader), reader.n_columns)
        labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
        clusters = as_groups("clusters", clusters, n_rows=len(reader), device=reader.home)
        meeting.count(candidates.sum())
        settings = (n, min_cluster_size, n_neighbors)
        meeting.same(settings=settings, dtype=reader.dtype, device=reader.device.type)
    check_budget(n, meeting.totals[0])
    rows = (labeled | candidates).nonzero().squeeze(1)
    groups = group_rows(rows, clusters[rows], shards)
    had = torch.zeros_like(groups.sizes).index_add_(0, groups.group, labeled[groups.rows].long())
    sizes, had = shards.all_reduce(torch.stack([groups.sizes, had]))
    turns = _turns(sizes, had, sizes < min_cluster_size, n)
    counts = turns.bincount(minlength=len(had))
    asked = counts > 0
    groups, counts, turns = groups.only(asked), counts[asked], (asked.cumsum(0) - 1)[turns]
    dtype = torch.promote_types(reader.dtype, torch.float32)
    with exact_arithmetic(reader.device):
        _, source = euclidean_rows(reader)
        if not shards.alone:
            wanted = candidates[groups.rows]
            picks, means = least_of_all_ranks(reader, source, groups, n_neighbors, wanted=wanted, counts=counts)
            order = (counts.cumsum(0) - counts)[turns] + rank_within(turns)
            return Selection(picks[order], means[order].reciprocal().to(dtype))
        means = least_mean_distances(source, groups, n_neighbors, wanted=candidates[groups.rows], counts=counts)
    places = groups.sorted_by(means)[groups.begins[turns] + rank_within(turns)]
    return Selection(groups.rows[places], means[places].reciprocal().to(dtype))


def _turns(sizes: Tensor, had: Tensor, late: Tensor, n: int) -> Tensor:
    """Return the cluster of each pick, (n,).

    Shapes:
        sizes: (K,) int64, the rows of each cluster.
        had: (K,) int64, how many of them are labeled; the others are candidates.
        late: (K,) bool, clusters whose turn comes when no other has a candidate.
    """
    n_clusters, device = len(sizes), sizes.device
    # a cluster's j-th pick is made when it has so many labels
    most = (sizes - had).clamp(max=n)
    cluster = torch.arange(n_clusters, device=device).repeat_interleave(most)
    labels = torch.arange(len(cluster), device=device) - (most.cumsum(0) - most)[cluster] + had[cluster]
    place = torch.empty_like(sizes)
    place[sizes.sort(descending=True, stable=True).indices] = torch.arange(n_clusters, device=device)
    turn = (late[cluster] * (labels.max() + 1) + labels) * n_clusters + place[cluster]
    return cluster[turn.sort().indices[:n]]


def check_typiclust(max_clusters: object, min_cluster_size: object, n_neighbors: object) -> None:
    """Require settings of `typiclust` that make sense.

    Raises:
        ConfigError: one of them is no whole number of at least 1.
    """
    check_whole("max_clusters", max_clusters, least=1)
    check_whole("min_cluster_size", min_cluster_size, least=1)
    check_whole("n_neighbors", n_neighbors, least=1)
