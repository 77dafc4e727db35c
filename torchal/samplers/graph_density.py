"""Graph-density sampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal._checks import check_budget, check_whole
from torchal.engine.distances import Backend, check_backend
from torchal.errors import DataError
from torchal.functional import density
from torchal.functional.selection import Selection
from torchal.pool.round_result import RoundResult
from torchal.pool.view import PoolView
from torchal.protocols import UNLABELED
from torchal.samplers.base import Sampler, check_state
from torchal.samplers.remembered import Remembered, shared_by_samplers
from torchal.samplers.told import Told


@dataclass
class GraphDensity(Sampler):
    """Picks rows in dense regions of the pool; each pick makes its neighbours less wanted, also in later rounds.

    The graph is that of the inputs, whatever the model, and made once. Only rows that this sampler picked, and that
    were labeled then, count as picked: neither a start set nor what others chose takes anything off its neighbours. In
    a loop of your own, `tell` it which were.

    Args:
        n_neighbors: of each row, in the graph.
        backend: who computes the distances: auto, faiss or torch.

    Raises:
        ConfigError: n_neighbors is not a whole number of at least 1, or an unknown backend.

    Reference:
        See `torchal.functional.density_graph`.

    Example:
        >>> view = PoolView.from_tensors(features=torch.tensor([[0.0], [1.0], [2.0], [9.0]]))
        >>> GraphDensity(n_neighbors=1).select(view, 2).indices
        tensor([0, 2])
    """

    reads_model = False

    n_neighbors: int = 10
    backend: Backend = "auto"
    _bought: list[int] = field(default_factory=list, init=False, repr=False, compare=False)
    _n_rows: int | None = field(default=None, init=False, repr=False, compare=False)
    _inputs: Remembered | None = field(default=None, init=False, repr=False, compare=False)
    _graph: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _values: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _n_applied: int = field(default=0, init=False, repr=False, compare=False)
    _told: Told = field(default_factory=Told, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_whole("n_neighbors", self.n_neighbors, least=1)
        check_backend(self.backend)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes over: not the graph, which it makes again."""
        return self.__dict__ | {"_inputs": None, "_graph": None, "_values": None, "_n_applied": 0}

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `graph_density_greedy`, from the values that earlier picks have left."""
        check_budget(n, int(view.candidates.sum()))
        graph, values = self._graph_of(view)
        self._told.warn_of_others(view, by=type(self).__name__)
        return density.graph_density_greedy(graph, n, values=values, candidates=view.candidates)

    def observe(self, result: RoundResult) -> None:
        """Remember the rows that were bought of those that this sampler picked; others have no score."""
        if self._n_rows is not None:  # before its first selection it has picked nothing, whatever it is told
            bought = set(self._bought)
            self._bought += [row for row in result.rows[~result.scores.isnan()].tolist() if row not in bought]
        self._told.add(result.rows)

    def revised(self, rows: Tensor, labels: Tensor) -> None:
        """Forget picks whose labels were taken back; what they took off their neighbours' values is given back."""
        gone = set(rows[labels == UNLABELED].tolist())
        if not gone.isdisjoint(self._bought):
            self._bought = [row for row in self._bought if row not in gone]
            self._inputs = None

    def extended(self, n_rows: int) -> None:
        """Make the graph anew with the rows that came; the picks so far are picks in it too."""
        self._n_rows, self._inputs = n_rows if self._n_rows is not None else None, None

    def report(self) -> dict[str, Any]:
        """Return the number of edges, and of picks whose value was taken off their neighbours'."""
        n_edges = 0 if self._graph is None else len(self._graph.col_indices()) // 2
        return {"features": "inputs", "n_edges": n_edges, "n_picks": len(self._bought)}

    def state_dict(self) -> dict[str, Any]:
        """Return the picks so far; with the graph, which the inputs give, they say what every row is worth."""
        return {"bought": list(self._bought), "n_rows": self._n_rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        check_state(state, "bought", "n_rows", by=type(self).__name__)
        self._bought, self._n_rows = list(state["bought"]), state["n_rows"]
        self._inputs, self._told = None, Told()

    def _made(self, view: PoolView) -> Tensor:
        def graph() -> Tensor:
            return density.density_graph(view.flat_inputs, self.n_neighbors, backend=self.backend)

        if view.features_from == "given":  # its features are not those of its inputs
            return graph()
        return shared_by_samplers(view.inputs, ("density_graph", self.n_neighbors, self.backend), graph)

    def _graph_of(self, view: PoolView) -> tuple[Tensor, Tensor]:
        """Return the graph of the pool, and the values of its rows after all picks so far.

        Raises:
            DataError: the picks so far are of another pool.
        """
        n_rows = len(view)
        if self._bought and (n_rows != self._n_rows or not bool(view.labeled[self._bought].all())):
            raise DataError(
                f"this sampler has picked {len(self._bought)} rows of a pool of {self._n_rows}; this pool has "
                f"{n_rows}, or these rows are not labeled in it. Use a new sampler for each pool"
            )
        if self._graph is None or self._values is None or self._inputs is None or not self._inputs.is_same(view.inputs):
            self._graph = self._made(view)
            self._values, self._n_applied = density.graph_density(self._graph), 0
            self._inputs, self._n_rows = Remembered(view.inputs), n_rows
        new = torch.tensor(self._bought[self._n_applied :], dtype=torch.int64)
        self._values = density.subtract_picks(self._graph, self._values, new)
        self._n_applied = len(self._bought)
        return self._graph, self._values
