"""Informative and diverse sampling: margin sampling within the clusters' shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal._checks import check_budget, check_whole
from torchal.functional.kmeans import kmeans
from torchal.functional.quotas import fill_quotas
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler
from torchal.samplers.margin import Margin
from torchal.samplers.remembered import OncePerInputs, shared_by_samplers


@dataclass
class InformativeDiverse(Sampler):
    """Picks rows with a small margin, from each cluster of the pool no more than its share of the batch.

    The clusters are those of k-means on the inputs, whatever the model, and made once. Where a cluster has too few
    candidates left, the rest of the batch is that of margin sampling.

    Args:
        n_clusters: as many as there are classes, unless given; never more than rows.
        max_iterations: of k-means.
        seed: of k-means.

    Raises:
        ConfigError: n_clusters or max_iterations is not a whole number of at least 1, or seed of at least 0.

    Reference:
        google/active-learning, informative_diverse; see `torchal.functional.fill_quotas`. Its last batches are filled
        with rows in no order; here by margin.

    Example:
        >>> features = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
        >>> scores = torch.tensor([0.1, 0.2, 0.3, 4.0, 5.0, 6.0])
        >>> InformativeDiverse().select(PoolView.from_tensors(features=features, scores=scores), 2).indices
        tensor([0, 3])
    """

    n_clusters: int | None = None
    max_iterations: int = 100
    seed: int = 0
    _clusters: OncePerInputs[Tensor] = field(default_factory=OncePerInputs, init=False, repr=False, compare=False)
    _report: Mapping[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.n_clusters is not None:
            check_whole("n_clusters", self.n_clusters, least=1)
        check_whole("max_iterations", self.max_iterations, least=1)
        check_whole("seed", self.seed, least=0)

    def check_model(self, model: object) -> None:
        """Require decision values or probabilities."""
        Margin().check_model(model)

    def clusters(self, view: PoolView) -> Tensor:
        """Return the cluster of each row, (N,) int64."""
        k = min(self.n_clusters or view.n_classes, len(view))

        def cluster() -> Tensor:
            generator = torch.Generator().manual_seed(self.seed)
            return kmeans(view.flat_inputs, k, generator=generator, max_iterations=self.max_iterations).assignments

        def shared() -> Tensor:
            return shared_by_samplers(view.inputs, ("kmeans", k, self.seed, self.max_iterations), cluster)

        # the features of a view without a model are not those of its inputs
        return self._clusters.get(view.inputs, k, cluster if view.features_from == "given" else shared)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `fill_quotas`, scored by margin."""
        check_budget(n, int(view.candidates.sum()))
        clusters = self.clusters(view)
        selection = fill_quotas(Margin().score(view), clusters, n, candidates=view.candidates)
        sizes = clusters.bincount()
        picks = clusters[selection.indices].bincount(minlength=len(sizes))
        self._report = {"cluster_sizes": sizes.tolist(), "picks_per_cluster": picks.tolist()}
        return selection

    def report(self) -> dict[str, Any]:
        """Return the sizes of the clusters, and how many rows of the batch are from each."""
        return dict(self._report)
