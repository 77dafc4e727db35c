"""Representatives of the rows inside a classifier's margin."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_float, as_mask, as_row_values, check_budget
from torchal._chunks import values_per_chunk
from torchal.engine.features import FeatureReader, Features
from torchal.errors import DataError
from torchal.functional.k_center import check_masks
from torchal.functional.kmeans import kmeans, nearest_rows
from torchal.functional.selection import Selection, filled_up, top_n


def inside_margin(values: ArrayLike, *, labeled: ArrayLike | None = None) -> Tensor:
    """Tell which rows lie inside the margin: near enough to the boundary of at least one class.

    The margin of a class reaches as far as the labeled row nearest to its boundary: a row is inside where the size of
    its decision value is smaller than that of every labeled row, of whatever class. Without labeled rows it reaches to
    1, as that of a support vector machine.

    Shapes:
        values: (N, C) float, decision values of one class against the others, or (N, 1) of two classes; 0 on the
            boundary. Infinite ones are allowed.
        labeled: (N,) bool. If no row is labeled, every row with a finite value is inside.

    Returns:
        (N,) bool.

    Raises:
        ShapeError: values is no float matrix, or the tensors disagree in rows or device.
        DataError: a value is NaN.

    Example:
        >>> values = torch.tensor([[-2.0, 2.0], [-0.4, 3.0], [1.5, -0.5], [4.0, -4.0]])
        >>> inside_margin(values, labeled=torch.tensor([True, False, False, True]))
        tensor([False,  True,  True, False])
        >>> inside_margin(values)
        tensor([False,  True,  True, False])
    """
    values = as_float("values", values, ndim=2)
    size = max(1, values_per_chunk(values.device) // max(1, values.shape[1]))
    reach = values.new_ones(values.shape[1])
    if labeled is not None:
        labeled = as_mask("labeled", labeled, n_rows=len(values), device=values.device)
        reach.fill_(torch.inf)
        rows = labeled.nonzero().squeeze(1)
        for start in range(0, len(rows), size):
            reach = torch.minimum(reach, values[rows[start : start + size]].abs().amin(0))
    inside = torch.empty(len(values), dtype=torch.bool, device=values.device)
    for start in range(0, len(values), size):
        chunk = values[start : start + size]
        if bool(chunk.isnan().any()):
            row = start + int(chunk.isnan().any(1).nonzero()[0])
            raise DataError(f"values must not be NaN, the first that is stands in row {row}")
        inside[start : start + size] = (chunk.abs() < reach).any(1)
    return inside


def margin_cluster_mean(
    features: Features,
    n: int,
    *,
    uncertainty: ArrayLike,
    inside: ArrayLike,
    generator: torch.Generator,
    candidates: ArrayLike | None = None,
    max_iterations: int = 20,
) -> Selection:
    """Pick the rows nearest to the means of n clusters of the candidates inside the margin.

    Where one row is the nearest to two means, the batch is filled with the most uncertain candidates. With fewer than n
    candidates inside, the batch is that of uncertainty alone.

    Args:
        features: what is clustered.
        n: number of picks and of clusters.
        uncertainty: higher = less sure, as `torchal.functional.margin` gives it.
        inside: the rows inside the margin, as `inside_margin` gives them.
        generator: the randomness of the clusters' start.
        candidates: rows that may be picked; all unless given.
        max_iterations: of Lloyd's algorithm.

    Shapes:
        features: (N, D) float; a tensor or a mapped file.
        uncertainty: (N,) float.
        inside: (N,) bool.
        candidates: (N,) bool.

    Returns:
        indices (n,), the most uncertain first, equal ones by row number; scores (n,), their uncertainty.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: the tensors disagree in rows, dtype or device.
        DataError: features that are not finite, or an uncertainty of a candidate that is NaN.

    Reference:
        Xu, Yu, Tresp, Xu & Wang, "Representative Sampling for Text Classification Using Support Vector Machines",
        ECIR 2003. There the representatives are medoids of k-means on rows of length 1; here rows are taken as given.

    Complexity:
        M D n multiply-adds per iteration for M candidates inside, and one copy of their features.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
        >>> uncertainty = torch.tensor([0.0, -1.0, -2.0, -1.5, 0.0, -1.0])
        >>> inside = torch.ones(6, dtype=torch.bool)
        >>> generator = torch.Generator().manual_seed(0)
        >>> margin_cluster_mean(x, 2, uncertainty=uncertainty, inside=inside, generator=generator).indices
        tensor([4, 1])
    """
    reader = FeatureReader(features)
    n_rows, device = len(reader), reader.device
    uncertainty = as_row_values("uncertainty", uncertainty, n_rows=n_rows, device=device)
    inside = as_mask("inside", inside, n_rows=n_rows, device=device)
    _, candidates = check_masks(None, candidates, n_rows=n_rows, device=device)
    check_budget(n, int(candidates.sum()))
    rows = (inside & candidates).nonzero().squeeze(1)
    if len(rows) < n:
        return top_n(uncertainty, n, candidates=candidates)
    some = reader.rows(rows)
    centers = kmeans(some, n, generator=generator, max_iterations=max_iterations).centers
    chosen = torch.zeros_like(candidates)
    chosen[rows[nearest_rows(some, centers)]] = True
    return filled_up(chosen, n, uncertainty, candidates)
