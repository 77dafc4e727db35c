"""Balanced samples of k-means of k-means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torchal import functional
from torchal._checks import check_budget, check_whole
from torchal.functional.hierarchical_kmeans import ClusterLevels, Within, check_levels, check_within
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler
from torchal.samplers.remembered import shared_by_samplers


@dataclass(frozen=True)
class HierarchicalKMeans(Sampler):
    """Draws as many rows from each region of the pool, however many rows lie there.

    Regions are levels of k-means clusters of the features, of the model's embedding where it has one, spread by
    resampling, and found once while these are the pool's inputs; labeled rows count as drawn. No label is read and none
    is needed. `Hierarchical` is another method: it asks where the labels do not yet show that a cluster is pure.

    Args:
        sizes: clusters of each level, the most first; small pools have as many as there are rows.
        resample: for each level, how many of each cluster's nearest points are clustered anew; half of their mean size,
            and at most 20, unless given.
        n_resamples: how often.
        max_iterations: of each k-means.
        within: how rows of a cluster of the first level are drawn: "random", or those "closest" to its centre.
        seed: of the clusters.

    Raises:
        ConfigError: a setting is unknown or out of range.

    Reference:
        See `torchal.functional.hierarchical_kmeans` and `balanced_sample`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> view = PoolView.from_tensors(features=torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4], [9.0], [9.1]]))
        >>> rows = HierarchicalKMeans(sizes=(2,)).select(view, 4).indices
        >>> (rows < 5).sum(), (rows >= 5).sum()
        (tensor(2), tensor(2))
    """

    reads_model = False
    on_ranks = True

    sizes: Sequence[int] = (1000, 100)
    resample: Sequence[int] | None = None
    n_resamples: int = 10
    max_iterations: int = 20
    within: Within = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        check_levels(self.sizes, self.resample, self.n_resamples, self.max_iterations)
        check_within(self.within)
        check_whole("seed", self.seed, least=0)
        object.__setattr__(self, "sizes", tuple(self.sizes))  # as a config file has a list
        if self.resample is not None:
            object.__setattr__(self, "resample", tuple(self.resample))

    def select(self, view: PoolView, n: int) -> Selection:
        """Draw n candidates by `balanced_sample`.

        Raises:
            BudgetError: n is not between 1 and the number of candidates.
        """
        check_budget(n, view.n_candidates)
        levels, labeled, candidates = self._levels_of(view), view.labeled, view.candidates
        if view.group is not None:  # every rank draws the same rows, from what is known of all: a few bytes of each
            with view.group.meeting() as meeting:
                meeting.rows(len(view), 1, name="the view")
                meeting.same(n=n, within=self.within, generator=view.generator)
            gather = view.group.all_gather
            of_rows, distances = gather(levels.parents[0]), gather(levels.distances)
            levels = levels._replace(parents=(of_rows, *levels.parents[1:]), distances=distances)
            labeled, candidates = gather(labeled), gather(candidates)
        return functional.balanced_sample(
            levels,
            n,
            generator=view.generator,
            labeled=labeled,
            candidates=candidates,
            within=self.within,
        )

    def _levels_of(self, view: PoolView) -> ClusterLevels:
        """Return the levels of the view's features."""

        def find() -> ClusterLevels:
            return functional.hierarchical_kmeans(
                view.features,
                self.sizes,
                generator=torch.Generator().manual_seed(self.seed),
                resample=self.resample,
                n_resamples=self.n_resamples,
                max_iterations=self.max_iterations,
                group=view.group,
            )

        if view.features_from != "inputs":  # an embedding is another one in every round
            return find()
        settings = ("levels", self.sizes, self.resample, self.n_resamples, self.max_iterations, self.seed)
        return shared_by_samplers(view.inputs, settings, find)
