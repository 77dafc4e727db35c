"""Cluster-Margin: rows of small margin, spread over the clusters of the pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal import functional
from torchal._checks import check_at_least, check_budget, check_flag, check_whole
from torchal.engine.distances import ProductMetric
from torchal.errors import DataError
from torchal.functional.cluster_tree import check_hac
from torchal.functional.selection import Selection
from torchal.pool.round_result import RoundResult
from torchal.pool.view import PoolView
from torchal.protocols import UNLABELED
from torchal.samplers.base import Sampler, check_state
from torchal.samplers.margin import Margin, MarginOf
from torchal.samplers.remembered import Remembered, shared_by_samplers
from torchal.samplers.told import Told


@dataclass
class ClusterMargin(Sampler):
    """Picks among the rows of smallest margin one of each cluster in turn, from the smallest cluster to the largest.

    The clusters are those of the model's embedding where it has one, in the first round in which rows were bought by
    this sampler, and kept for all that follow on the same pool. In a loop of your own, `tell` it which were: a view of
    tensors is of the same pool where it has as many rows, and those bought are labeled, whatever their features.

    Args:
        oversampling: how many times the batch has the rows of smallest margin among which it is picked.
        mean_size: the least number of rows in a cluster, on average.
        metric: euclidean, or cosine.
        max_rows: cluster all rows up to this many; above that so many drawn at random, to whose clusters the others go.
        recluster: cluster the embedding of each round anew, in the place of the first.
        seed: of the rows drawn.
        on: what the margin is of; see `Margin`.

    Raises:
        ConfigError: a setting is unknown or out of range.

    Reference:
        See `torchal.functional.cluster_margin` and `hac_clusters`.

    Example:
        >>> features = torch.tensor([[0.0], [0.1], [0.2], [9.0]])
        >>> scores = torch.tensor([0.1, 0.2, 0.3, 0.4])
        >>> view = PoolView.from_tensors(features=features, scores=scores)
        >>> 3 in ClusterMargin(mean_size=2).select(view, 2).indices  # margin alone would pick 0 and 1
        True
    """

    oversampling: float = 10.0
    mean_size: float = 10.0
    metric: ProductMetric = "euclidean"
    max_rows: int = 10_000
    recluster: bool = False
    seed: int = 0
    on: MarginOf = "auto"
    _clusters: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _bought: list[int] = field(default_factory=list, init=False, repr=False, compare=False)  # by these clusters
    _inputs: Remembered | None = field(default=None, init=False, repr=False, compare=False)
    _told: Told = field(default_factory=Told, init=False, repr=False, compare=False)
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_at_least("oversampling", self.oversampling, least=1)
        check_hac(self.mean_size, self.max_rows, self.metric)
        check_flag("recluster", self.recluster)
        check_whole("seed", self.seed, least=0)
        Margin(self.on)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes over: the clusters, but not the inputs that they are of."""
        return self.__dict__ | {"_inputs": None}

    def check_model(self, model: object) -> None:
        """Require what the margin is of."""
        Margin(self.on).check_model(model)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `cluster_margin`."""
        check_budget(n, int(view.candidates.sum()))
        clusters = self._clusters_of(view)
        if not self.recluster:
            self._told.warn_of_others(view, by=type(self).__name__)
        self._report = {"n_clusters": int(clusters.max()) + 1}
        return functional.cluster_margin(
            Margin(self.on).score(view),
            clusters.to(view.candidates.device),
            n,
            generator=view.generator,
            candidates=view.candidates,
            oversampling=self.oversampling,
        )

    def observe(self, result: RoundResult) -> None:
        """Keep the clusters by which rows were bought; rows that others picked have no score."""
        if self._clusters is not None:
            self._bought += result.rows[~result.scores.isnan()].tolist()
        self._told.add(result.rows)

    def revised(self, rows: Tensor, labels: Tensor) -> None:
        """Forget picks whose labels were taken back; the clusters stay."""
        gone = set(rows[labels == UNLABELED].tolist())
        self._bought = [row for row in self._bought if row not in gone]

    def extended(self, n_rows: int) -> None:  # noqa: ARG002 - clusters of other rows do not help
        """Cluster anew, with the rows that came."""
        self._clusters, self._bought, self._inputs = None, [], None

    def report(self) -> dict[str, Any]:
        """Return how many clusters there are."""
        return dict(self._report)

    def state_dict(self) -> dict[str, Any]:
        """Return the clusters, what they were made with, and which rows were bought by them."""
        clusters = None if self._clusters is None else self._clusters.cpu()
        return {"clusters": clusters, "settings": self._settings(), "bought": list(self._bought)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            DataError: the state's clusters were made with other settings.
        """
        check_state(state, "clusters", "settings", "bought", by=type(self).__name__)
        if state["settings"] != self._settings():
            raise DataError(
                f"the state's clusters were made with {state['settings']}, this sampler has {self._settings()}"
            )
        self._clusters, self._bought = state["clusters"], list(state["bought"])
        self._inputs, self._told = None, Told()

    def _settings(self) -> dict[str, Any]:
        """Return what decides on the clusters of features."""
        return {name: getattr(self, name) for name in ("mean_size", "metric", "max_rows", "seed")}

    def _clusters_of(self, view: PoolView) -> Tensor:
        """Return the clusters kept, or those of the view's features where there are none of this pool."""
        kept = None if self.recluster or not self._bought else self._clusters
        if kept is not None and len(kept) == len(view) and self._is_of(view):
            self._inputs = Remembered(view.inputs) if self._inputs is None else self._inputs
            return kept
        features = view.features
        of = view.inputs if view.features_from == "inputs" else features
        settings = ("hac_clusters", *self._settings().items())
        self._clusters = shared_by_samplers(of, settings, lambda: self._made(features))
        self._bought, self._inputs = [], Remembered(view.inputs)
        return self._clusters

    def _is_of(self, view: PoolView) -> bool:
        """Tell whether a view of as many rows is of the pool that was clustered."""
        if self._inputs is None or view.features_from == "given":  # then features stand in the place of inputs
            return bool(view.labeled[self._bought].all())
        return self._inputs.is_same(view.inputs)

    def _made(self, features: Tensor) -> Tensor:
        return functional.hac_clusters(
            features,
            mean_size=self.mean_size,
            metric=self.metric,
            max_rows=self.max_rows,
            generator=torch.Generator().manual_seed(self.seed),
        )
