"""One row for each of n directions in which some rows of a pool lie: how a batch of uncertain rows is made diverse."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_mask, as_row_values, check_budget
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.distances import unit_rows
from torchal.engine.features import FeatureReader, Features
from torchal.functional.k_center import check_masks
from torchal.functional.kmeans import Clusters, kmeans
from torchal.functional.selection import Selection, filled_up


def cluster_representatives(
    features: Features,
    n: int,
    *,
    wanted: ArrayLike,
    scores: ArrayLike,
    generator: torch.Generator,
    candidates: ArrayLike | None = None,
    max_iterations: int = 20,
) -> Selection:
    """Pick, of each of n clusters of the wanted candidates, the row nearest to the mean.

    Rows are clustered by k-means after scaling to length 1, so clusters are of directions; a row of zeros stays. With
    fewer than n wanted candidates all of them are picked, and with fewer than n different ones some clusters are empty;
    the batch is then filled with the candidates that have the highest scores.

    Args:
        features: what is clustered.
        n: number of picks and of clusters.
        wanted: the rows worth a label.
        scores: higher = more wanted; what fills the batch, and its order.
        generator: the randomness of the clusters' start.
        candidates: rows that may be picked; all unless given.
        max_iterations: of Lloyd's algorithm.

    Shapes:
        features: (N, D) float; a tensor or a mapped file.
        wanted: (N,) bool.
        scores: (N,) float.
        candidates: (N,) bool.

    Returns:
        indices (n,), the highest score first, equal ones by row number; scores (n,).

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: the tensors disagree in rows, dtype or device.
        DataError: features of wanted candidates that are not finite, or a score of a candidate that is NaN.

    Complexity:
        M D n multiply-adds per iteration for M wanted candidates, and one copy of their features.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.1], [3.0, 0.3], [0.0, 1.0], [0.1, 2.0], [0.3, 3.0]])
        >>> wanted, scores = torch.ones(6, dtype=torch.bool), torch.arange(6.0)
        >>> generator = torch.Generator().manual_seed(0)
        >>> cluster_representatives(x, 2, wanted=wanted, scores=scores, generator=generator).indices
        tensor([4, 1])
    """
    reader = FeatureReader(features)
    n_rows, device = len(reader), reader.device
    scores = as_row_values("scores", scores, n_rows=n_rows, device=device)
    wanted = as_mask("wanted", wanted, n_rows=n_rows, device=device)
    _, candidates = check_masks(None, candidates, n_rows=n_rows, device=device)
    check_budget(n, int(candidates.sum()))
    chosen = wanted & candidates
    rows = chosen.nonzero().squeeze(1)
    if len(rows) > n:
        with exact_arithmetic(device):
            units = _units(reader, rows)
            clusters = kmeans(units, n, generator=generator, max_iterations=max_iterations)
            chosen = torch.zeros_like(candidates)
            chosen[rows[_nearest_members(units, clusters)]] = True
    return filled_up(chosen, n, scores, candidates)


def _units(reader: FeatureReader, rows: Tensor) -> Tensor:
    """Return some rows scaled to length 1, (M, D)."""
    dtype = torch.promote_types(reader.dtype, torch.float32)
    units = torch.empty(len(rows), reader.n_columns, dtype=dtype, device=reader.device)
    size = reader.chunk_rows()
    for part, index in zip(units.split(size), rows.split(size), strict=True):
        part.copy_(unit_rows(reader.rows(index)))
    return units


def _nearest_members(x: Tensor, clusters: Clusters) -> Tensor:
    """Return of each cluster that has rows the one nearest to its centre, (n,) at most; equal ones: the lowest.

    A row of another cluster may be nearer to the centre than all of its own, and would then stand for both.
    """
    n_rows, n_columns = x.shape
    n_clusters = len(clusters.centers)
    sq_distances = x.new_empty(n_rows)
    size = max(1, values_per_chunk(x.device) // n_columns)
    for start in range(0, n_rows, size):
        part = slice(start, start + size)
        centers = clusters.centers.index_select(0, clusters.assignments[part])
        sq_distances[part] = (x[part] - centers).square_().sum(1)
    least = x.new_full((n_clusters,), torch.inf).scatter_reduce_(0, clusters.assignments, sq_distances, "amin")
    nearest = (sq_distances == least[clusters.assignments]).nonzero().squeeze(1)
    first = nearest.new_full((n_clusters,), n_rows).scatter_reduce_(0, clusters.assignments[nearest], nearest, "amin")
    return first[first < n_rows]
