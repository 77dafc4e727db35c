"""Cluster-Margin: uncertain rows, spread over the clusters of the pool."""

from __future__ import annotations

import math
from fractions import Fraction

import torch

from torchal._checks import ArrayLike, as_float, as_groups, check_at_least, check_budget
from torchal.functional.k_center import check_masks
from torchal.functional.quotas import rank_within
from torchal.functional.selection import Selection, top_n


def cluster_margin(
    scores: ArrayLike,
    clusters: ArrayLike,
    n: int,
    *,
    generator: torch.Generator,
    candidates: ArrayLike | None = None,
    oversampling: float = 10.0,
) -> Selection:
    """Pick among the most uncertain rows one of each cluster in turn, from the smallest cluster to the largest.

    The candidates with the highest scores are taken, `oversampling` times as many as are to be picked, and grouped by
    cluster. Each turn goes once through the groups, in ascending order of how many rows they had at first, and picks
    one row at random of each that has any left, until there are n. So a row in a sparse region comes early, and a
    region with many alike gives more than one row only when all others have given theirs.

    Args:
        scores: higher = less sure, as `torchal.functional.margin` gives them; equal scores go to the lowest row.
        clusters: any number for each row, as `torchal.functional.hac_clusters` gives them.
        n: how many rows to pick.
        generator: the randomness.
        candidates: the rows that may be picked; all unless given.
        oversampling: how many times n rows are grouped, rounded up; at least 1. All candidates, where they are fewer.

    Shapes:
        scores: (N,) float; -inf and inf are allowed, NaN is not.
        clusters: (N,) int64, at least 0.
        candidates: (N,) bool.

    Returns:
        indices (n,) in pick order; scores (n,).

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: the tensors disagree in shape, dtype or device.
        DataError: a candidate's score is NaN; a negative cluster.
        ConfigError: oversampling is no finite number of at least 1.

    Reference:
        Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh & Kumar, "Batch Active Learning at Scale",
        NeurIPS 2021: the k_m rows of smallest margin, in turns over the clusters, until there are k_t = n. A cluster's
        size, which orders them, is taken as that of its part among the k_m rows; of equal sizes the cluster with the
        lower number comes first.

    Complexity:
        O(N) reads, and sorts of `oversampling` n rows; O(N) memory.

    Example:
        >>> scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
        >>> clusters = torch.tensor([0, 0, 1, 0, 1])
        >>> picked = cluster_margin(scores, clusters, 2, oversampling=2.0, generator=torch.Generator().manual_seed(0))
        >>> clusters[picked.indices]  # of the first four rows one is in cluster 1, so that comes first
        tensor([1, 0])
    """
    scores = as_float("scores", scores, ndim=1)
    clusters = as_groups("clusters", clusters, n_rows=len(scores), device=scores.device)
    check_at_least("oversampling", oversampling, least=1)
    _, candidates = check_masks(None, candidates, n_rows=len(scores), device=scores.device)
    n_candidates = int(candidates.sum())
    check_budget(n, n_candidates)
    # 1.1 of 10 rows are 11, which float arithmetic makes 12
    times = Fraction(oversampling).limit_denominator(1_000_000)
    best = top_n(scores, min(math.ceil(n * times), n_candidates), candidates=candidates)
    order = torch.randperm(len(best.indices), generator=generator, device=generator.device).to(scores.device)
    rows, values = best.indices[order], best.scores[order]
    group = clusters[rows].unique(return_inverse=True)[1]
    sizes = group.bincount()
    turns = rank_within(group)  # in which a row is picked: the rows of a group are in random order
    # by turn, then by size, then by group: stable sorts, from the last key to the first
    chosen = group.argsort(stable=True)
    chosen = chosen[sizes[group[chosen]].argsort(stable=True)]
    chosen = chosen[turns[chosen].argsort(stable=True)][:n]
    return Selection(rows[chosen], values[chosen])
