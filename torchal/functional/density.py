"""Graph density: rows in the middle of many near rows, and not all of them from the same crowd."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_float, as_mask, as_rows, check_budget, check_finite
from torchal._csr import csr_tensor
from torchal.engine.distances import Backend
from torchal.engine.features import Features
from torchal.errors import ShapeError
from torchal.functional.neighbors import knn_graph
from torchal.functional.selection import Selection


def density_graph(
    features: Features,
    n_neighbors: int = 10,
    *,
    backend: Backend = "auto",
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """Return the graph of the nearest neighbours, with weights that fall with the manhattan distance.

    Two rows have an edge if either is among the nearest neighbours of the other; its weight is exp(-distance / D). A
    row has no edge to itself, and a weight that is 0 in float64 is no edge.

    Args:
        features: a tensor on any device, an array, or a memory-mapped file.
        n_neighbors: of each row, before edges of both directions are united.
        backend: who computes the distances; see `knn_graph`.
        device: where to compute; where the features are, unless given.
        chunk_rows: see `knn_graph`.

    Shapes:
        features: (N, D) float.

    Returns:
        A sparse CSR tensor (N, N) of float64, symmetric, on the features' device.

    Raises:
        See `knn_graph`.

    Reference:
        Ebert, Fritz & Schiele, "RALF: A Reinforced Active Learning Formulation for Object Class Recognition", CVPR
        2012, with the settings of google/active-learning: k = 10 and a Gaussian's width of D instead of a tuned one.

    Complexity:
        That of `knn_graph`; O(N k) memory.

    Example:
        >>> graph = density_graph(torch.tensor([[0.0], [1.0], [3.0]]), 1)
        >>> graph.to_dense()
        tensor([[0.0000, 0.3679, 0.0000],
                [0.3679, 0.0000, 0.1353],
                [0.0000, 0.1353, 0.0000]], dtype=torch.float64)
    """
    indices, distances, _ = knn_graph(
        features, n_neighbors, metric="manhattan", backend=backend, device=device, chunk_rows=chunk_rows
    )
    n_rows = len(indices)
    weights = (-distances.double() / features.shape[1]).exp().flatten()
    n_lost = int((weights.view(n_rows, -1) == 0).all(1).sum())
    if n_lost:
        warnings.warn(
            f"{n_lost} of {n_rows} rows are so far from all others that exp(-distance / D) is 0: without an edge, "
            "their density is 0. Bring the features to a common scale, as with sklearn.preprocessing.StandardScaler",
            UserWarning,
            stacklevel=2,
        )
    rows = torch.arange(n_rows, device=indices.device).repeat_interleave(n_neighbors)
    columns = indices.flatten()
    edges = torch.cat([rows * n_rows + columns, columns * n_rows + rows])
    edges, order = edges.sort()
    weights = torch.cat([weights, weights])[order]
    keep = (edges != edges.roll(1)) & (weights > 0)  # the same edge from both its ends has the same weight
    keep[0] = weights[0] > 0
    edges, weights = edges[keep], weights[keep]
    starts = torch.searchsorted(edges, torch.arange(n_rows + 1, device=edges.device) * n_rows)
    return csr_tensor(starts, edges % n_rows, weights, (n_rows, n_rows))


def graph_density(graph: Tensor) -> Tensor:
    """Return the mean weight of each row's edges; 0 where it has none.

    Shapes:
        graph: (N, N) sparse CSR, as `density_graph` gives it.

    Returns:
        (N,) float64.

    Raises:
        ShapeError: graph is not a square sparse CSR tensor.

    Reference:
        See `density_graph`.

    Example:
        >>> graph_density(density_graph(torch.tensor([[0.0], [1.0], [3.0]]), 1))
        tensor([0.3679, 0.2516, 0.1353], dtype=torch.float64)
    """
    _check_graph(graph)
    degrees = graph.crow_indices().diff()
    sums = torch.segment_reduce(graph.values(), "sum", lengths=degrees)
    return sums / degrees.clamp(min=1)


def graph_density_greedy(
    graph: Tensor, n: int, *, values: Tensor | None = None, candidates: ArrayLike | None = None
) -> Selection:
    """Pick the row of the largest value, again and again; each pick takes its own value off its neighbours' values.

    Values may become negative, and a pick of negative value raises its neighbours. Ties go to the lowest row.

    Args:
        graph: see `density_graph`.
        n: how many rows to pick.
        values: of the rows at the start, which are left as they are; `graph_density(graph)` unless given.
        candidates: the rows that may be picked; all, unless given.

    Shapes:
        graph: (N, N) sparse CSR.
        values: (N,) float, on the graph's device.
        candidates: (N,) bool, on the graph's device.

    Returns:
        indices (n,) in pick order; scores (n,), the value of each pick when it was picked.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: the tensors disagree in shape, dtype or device.

    Reference:
        See `density_graph`.

    Complexity:
        O(N) per pick and its degree.

    Example:
        >>> graph = density_graph(torch.tensor([[0.0], [1.0], [3.0]]), 1)
        >>> graph_density_greedy(graph, 2).indices
        tensor([0, 2])
    """
    values = _checked_values(graph, values)
    if candidates is None:
        candidates = torch.ones(len(values), dtype=torch.bool, device=values.device)
    candidates = as_mask("candidates", candidates, n_rows=len(values), device=values.device)
    check_budget(n, int(candidates.sum()))
    left = torch.where(candidates, values, -torch.inf)
    if values.device.type != "cpu":
        return _pick_masked(graph, left, n)
    starts, columns = graph.crow_indices().numpy(), graph.col_indices().numpy()
    now = left.numpy()
    picked, scores = np.empty(n, np.int64), np.empty(n, now.dtype)
    for step in range(n):
        row = now.argmax()
        picked[step], scores[step] = row, now[row]
        now[columns[starts[row] : starts[row + 1]]] -= now[row]
        now[row] = -np.inf
    return Selection(torch.from_numpy(picked), torch.from_numpy(scores))


def subtract_picks(graph: Tensor, values: Tensor, rows: ArrayLike) -> Tensor:
    """Return the values after these rows were picked, one after another, as `graph_density_greedy` would pick them.

    Shapes:
        graph: (N, N) sparse CSR.
        values: (N,) float, on the graph's device.
        rows: (n,) int64.

    Returns:
        (N,), a copy.

    Raises:
        ShapeError: the tensors disagree in shape, dtype or device; rows repeat or lie outside of [0, N).

    Example:
        >>> graph = density_graph(torch.tensor([[0.0], [1.0], [3.0]]), 1)
        >>> subtract_picks(graph, graph_density(graph), torch.tensor([0]))
        tensor([ 0.3679, -0.1163,  0.1353], dtype=torch.float64)
    """
    values = _checked_values(graph, values).clone()
    rows = as_rows("rows", rows, n_rows=len(values), device=values.device)
    around = _Around(graph)
    for step in range(len(rows)):
        row = rows[step : step + 1]
        around.subtract(values, row, values[row])
    return values


def _pick_masked(graph: Tensor, left: Tensor, n: int) -> Selection:
    """Do what the loop of `graph_density_greedy` does, without waiting for the device."""
    picked = torch.empty(n, dtype=torch.int64, device=left.device)
    scores = left.new_empty(n)
    around = _Around(graph)
    for step in range(n):
        row = left.argmax(0, keepdim=True)
        picked[step : step + 1], scores[step : step + 1] = row, left[row]
        around.subtract(left, row, left[row])
        left.index_fill_(0, row, -torch.inf)
    return Selection(picked, scores)


class _Around:
    """The neighbours of a row that only the device knows: as many places as the largest degree, some of them empty."""

    def __init__(self, graph: Tensor) -> None:
        self._starts, self._columns = graph.crow_indices(), graph.col_indices()
        self._places = torch.arange(int(self._starts.diff().max()), device=graph.device)

    def subtract(self, values: Tensor, row: Tensor, amount: Tensor) -> None:
        """Take an amount (1,) off the values of the neighbours of a row (1,)."""
        if not len(self._places):
            return
        place = self._starts[row] + self._places
        amounts = torch.where(place < self._starts[row + 1], amount, 0)
        values.index_add_(0, self._columns[place.clamp(max=len(self._columns) - 1)], amounts, alpha=-1)


def _check_graph(graph: Tensor) -> None:
    if not isinstance(graph, Tensor) or graph.layout != torch.sparse_csr or graph.shape[0] != graph.shape[1]:
        got = f"{graph.layout} of shape {tuple(graph.shape)}" if isinstance(graph, Tensor) else type(graph).__name__
        raise ShapeError(f"graph must be a square sparse CSR tensor, got {got}")


def _checked_values(graph: Tensor, values: Tensor | None) -> Tensor:
    _check_graph(graph)
    if values is None:
        return graph_density(graph)
    values = as_float("values", values, ndim=1, device=graph.device)
    check_finite("values", values)
    if len(values) != len(graph) or values.device != graph.device:
        raise ShapeError(
            f"values must have shape ({len(graph)},) on {graph.device}, got {tuple(values.shape)} on {values.device}"
        )
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))
