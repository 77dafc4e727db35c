"""Probability coverage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from torchal import functional
from torchal._checks import check_budget, check_fraction, check_whole
from torchal.engine.distances import ProductMetric
from torchal.functional.coverage import MAX_EDGES, check_ball_settings
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler
from torchal.samplers.remembered import OncePerInputs, shared_by_samplers


@dataclass
class ProbCover(Sampler):
    """Picks the rows around which most rows are that lie near no labeled one, in the model's embedding if it has one.

    It needs no label to begin with. Its radius, and the rows of the balls, are found once for the same features: for a
    pool's inputs once, for an embedding in every round. In between it keeps them, at 4 bytes for each row of a ball.

    Args:
        radius: how near is near; that of `torchal.functional.purity_radius`, with as many clusters as classes (two at
            least, and not more than rows), unless given.
        metric: euclidean, or cosine: the authors scale rows to length 1, whose half squared distance that is.
        alpha: the share of balls of one cluster, where the radius is not given.
        seed: of the clusters, where the radius is not given.
        max_edges: the most rows that all balls may hold together.

    Raises:
        ConfigError: a setting is out of range.

    Reference:
        See `torchal.functional.prob_cover`.

    Example:
        >>> view = PoolView.from_tensors(features=torch.tensor([[0.0], [1.0], [2.0], [8.0], [9.0]]))
        >>> ProbCover(radius=1.5).select(view, 2).indices
        tensor([1, 3])
    """

    reads_model = False

    radius: float | None = None
    metric: ProductMetric = "euclidean"
    alpha: float = 0.95
    seed: int = 0
    max_edges: int = MAX_EDGES
    _cover: OncePerInputs[functional.BallCover] = field(
        default_factory=OncePerInputs, init=False, repr=False, compare=False
    )
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_ball_settings(1.0 if self.radius is None else self.radius, self.metric, self.max_edges)
        check_fraction("alpha", self.alpha)
        check_whole("seed", self.seed, least=0)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick the n candidates that `prob_cover` picks from the view's features."""
        check_budget(n, int(view.candidates.sum()))
        radius = self._radius_in(view) if self.radius is None else self.radius
        selection = self._cover_in(view, radius).pick(n, labeled=view.labeled, candidates=view.candidates)
        covered = int(selection.scores.sum())
        self._report = {"features": view.features_from, "radius": radius, "newly_covered": covered}
        return selection

    def report(self) -> dict[str, Any]:
        """Return what the distances were measured on, the radius, and how many rows the batch was first to cover."""
        return dict(self._report)

    def _cover_in(self, view: PoolView, radius: float) -> functional.BallCover:
        """Return the balls of the view's features, found once while these are the pool's inputs."""

        def find() -> functional.BallCover:
            return functional.BallCover(view.features, radius=radius, metric=self.metric, max_edges=self.max_edges)

        if view.features_from != "inputs":  # an embedding is another one in every round
            return find()
        return self._cover.get(view.inputs, (radius, self.metric, self.max_edges), find)

    def _radius_in(self, view: PoolView) -> float:
        """Return the radius for the view's features, found once while they are the same."""
        features, k = view.features, min(max(view.n_classes, 2), len(view))

        def find() -> float:
            generator = torch.Generator().manual_seed(self.seed)
            return functional.purity_radius(
                features, n_clusters=k, generator=generator, alpha=self.alpha, metric=self.metric
            )

        if len(view) == 1:
            return float("inf")  # one row is near itself
        of = view.inputs if view.features_from == "inputs" else features
        return shared_by_samplers(of, ("purity_radius", k, self.metric, self.alpha, self.seed), find)
