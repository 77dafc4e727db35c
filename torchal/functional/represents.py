"""What picks stand for: each row of the pool by the pick that is nearest to it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_mask, as_rows
from torchal.engine.distances import Backend, Metric
from torchal.engine.features import FeatureReader, Features
from torchal.functional.k_center import assign_to_centers


class Representation(NamedTuple):
    """Which rows each pick stands for. A pick is known by its rank: its place among the picks, 0 for the first.

    Shapes:
        ranks: (N,) int64, the rank of the pick that stands for each row; -1 for rows that are not to be stood for.
        distances: (N,) float, how far it is; NaN for those.
        counts: (P,) int64, how many rows each pick stands for.
        farthest: (P,) float, how far the farthest of them is; 0 where there is none.
    """

    ranks: Tensor
    distances: Tensor
    counts: Tensor
    farthest: Tensor

    def rows_of(self, rank: int) -> Tensor:
        """Return the rows (m,) int64 that the pick of this rank stands for, nearest first."""
        rows = (self.ranks == rank).nonzero().squeeze(1)
        return rows[self.distances[rows].sort(stable=True).indices]


def represents(
    features: Features,
    picks: ArrayLike,
    *,
    among: ArrayLike | None = None,
    metric: Metric = "euclidean",
    backend: Backend = "auto",
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Representation:
    """Return which pick stands for each row, how far it is, and how many rows each pick stands for.

    A row is stood for by its nearest pick, of several as near by the first. A pick stands for itself, unless an equal
    row was picked before it: that one has all of its rows.

    Args:
        features: as in `k_center_greedy`.
        picks: rows in pick order, as `Selection.indices`, whoever picked them.
        among: the rows to be stood for, as those that are not labeled; all unless given.
        metric: as in `k_center_greedy`.
        backend: as in `k_center_greedy`.
        device: as in `k_center_greedy`.
        chunk_rows: as in `k_center_greedy`.

    Shapes:
        features: (N, D) float.
        picks: (P,) int64.
        among: (N,) bool, on the features' device.

    Raises:
        ShapeError: no picks, rows that repeat or lie outside of [0, N), or a mask that disagrees in shape or device.
        See `k_center_greedy` for the others.

    Complexity:
        N D P multiply-adds: one matrix product, chunk by chunk. O(N) memory beyond the features.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
        >>> found = represents(x, torch.tensor([3, 0]))
        >>> found.ranks, found.counts
        (tensor([1, 1, 0, 0]), tensor([2, 2]))
        >>> found.rows_of(0), found.farthest
        (tensor([3, 2]), tensor([4., 1.]))
    """
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    picks = as_rows("picks", picks, n_rows=len(reader), device=reader.home)
    if among is not None:
        among = as_mask("among", among, n_rows=len(reader), device=reader.home)
    found = assign_to_centers(features, picks, metric=metric, backend=backend, device=device, chunk_rows=chunk_rows)
    rank_of = torch.full((len(reader),), -1, device=reader.home)
    rank_of[picks] = torch.arange(len(picks), device=reader.home)
    ranks, distances = rank_of[found.centers], found.distances
    kept = ranks if among is None else ranks[among]
    counts = kept.bincount(minlength=len(picks))
    farthest = distances.new_zeros(len(picks)).scatter_reduce_(
        0, kept, distances if among is None else distances[among], "amax"
    )
    if among is not None:
        ranks, distances = torch.where(among, ranks, -1), torch.where(among, distances, torch.nan)
    return Representation(ranks, distances, counts, farthest)
