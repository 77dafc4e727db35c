"""Facility location."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torchal import functional
from torchal._checks import check_budget, check_whole
from torchal.engine.affinity import Similarity, check_similarity
from torchal.engine.coverage import MAX_HELD
from torchal.engine.features import Features
from torchal.functional.selection import Selection
from torchal.functional.submodular import Covering
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler


@dataclass
class FacilityLocation(Sampler):
    """Picks rows such that every row is like a labeled one, in the model's embedding if it has one.

    It needs no label to begin with, and its cost is quadratic in the number of rows.

    Args:
        similarity: cosine, rbf or euclidean.
        gamma: of rbf; from the features' variance unless given.
        max_held: of no more similarities than these, of all rows with each other, all are held: more memory, less time.

    Raises:
        ConfigError: an unknown similarity; gamma is not above 0, or is given for another similarity.

    Reference:
        See `torchal.functional.facility_location`.

    Example:
        >>> import torch
        >>> view = PoolView.from_tensors(features=torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]]))
        >>> FacilityLocation().select(view, 2).indices
        tensor([0, 3])
    """

    reads_model = False
    on_ranks = True

    similarity: Similarity = "cosine"
    gamma: float | None = None
    max_held: int = MAX_HELD
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_similarity(self.similarity, self.gamma)
        check_whole("max_held", self.max_held, least=0)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick the n candidates that add most to what the labeled rows cover."""
        check_budget(n, view.n_candidates)
        picks = self._covering(
            view.features,
            n,
            similarity=self.similarity,
            gamma=self.gamma,
            labeled=view.labeled,
            candidates=view.candidates,
            max_held=self.max_held,
            group=view.group,
        )
        self._report = {"features": view.features_from, "value": picks.value, "bound": picks.bound}
        return Selection(picks.indices, picks.scores)

    def _covering(self, features: Features, n: int, **settings: Any) -> Covering:
        return functional.facility_location(features, n, **settings)

    def report(self) -> dict[str, Any]:
        """Return what the similarities were measured on, what the labels and the batch reach, and at most could."""
        return dict(self._report)
