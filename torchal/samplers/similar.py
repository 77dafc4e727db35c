"""Rows of rare classes, or unlike what is labeled: submodular information measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal import functional
from torchal._checks import check_budget, check_positive, check_whole
from torchal.engine.affinity import Similarity, check_similarity
from torchal.engine.coverage import MAX_HELD
from torchal.engine.features import FeatureReader
from torchal.errors import ConfigError
from torchal.functional.selection import Selection
from torchal.functional.targeted import Measure, check_measure
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler


@dataclass
class Similar(Sampler):
    """Picks rows that are like, or unlike, the labeled rows of some classes, in the model's embedding if it has one.

    For pools in which the classes that matter are rare: flqmi finds more rows of them, flvmi what represents the pool
    around them; flcg what the labeled rows, or some classes of them, do not cover yet.

    As long as no row of these classes is labeled, there is nothing to be like: the picks are then those of
    `FacilityLocation`, which covers the pool, rare regions too.

    Args:
        measure: flqmi, flvmi or flcg.
        classes: whose labeled rows the picks should be like (flqmi, flvmi), or unlike (flcg). Unless given: the class
            with the fewest labels, the lowest of several, among those that have one; for flcg, all classes.
        strength: above 1, these rows count more.
        similarity: cosine, rbf or euclidean.
        gamma: of rbf; from the features' variance unless given.
        max_held: of no more similarities than these, of all rows with each other, all are held: more memory, less time.

    Raises:
        ConfigError: a setting is out of range.

    Reference:
        See `torchal.functional.similar`. As there, flvmi and flcg cover the rows that are not labeled.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.1, 1.0], [0.9, 0.1]])
        >>> view = PoolView.from_tensors(features=features, targets=torch.tensor([0, -1, 1, -1, -1]))
        >>> Similar(classes=[1]).select(view, 1).indices
        tensor([3])
    """

    reads_model = False

    measure: Measure = "flqmi"
    classes: Sequence[int] | None = None
    strength: float = 1.0
    similarity: Similarity = "cosine"
    gamma: float | None = None
    max_held: int = MAX_HELD
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_measure(self.measure, query=self.measure != "flcg", private=self.measure == "flcg")
        if self.classes is not None:
            if isinstance(self.classes, str) or not isinstance(self.classes, Sequence) or not len(self.classes):
                raise ConfigError(f"classes must be a list of at least one class, got {self.classes!r}")
            for label in self.classes:
                check_whole("a class", label, least=0)
        check_positive("strength", self.strength)
        check_similarity(self.similarity, self.gamma)
        check_whole("max_held", self.max_held, least=0)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick the n candidates that `similar` picks from the view's features."""
        check_budget(n, int(view.candidates.sum()))
        rows, classes = self._wanted(view)
        settings: dict[str, Any] = {
            "similarity": self.similarity,
            "gamma": self.gamma,
            "candidates": view.candidates,
            "max_held": self.max_held,
        }
        if len(rows):
            some = FeatureReader(view.features).rows(rows)
            settings |= {"measure": self.measure, "strength": self.strength}
            if self.measure != "flqmi":
                settings["weights"] = (~view.labeled).to(torch.float32)
            settings["private" if self.measure == "flcg" else "query"] = some
            picks = functional.similar(view.features, n, **settings)
        else:
            picks = functional.facility_location(view.features, n, labeled=view.labeled, **settings)
        self._report = {
            "features": view.features_from,
            "classes": classes,
            "n_rows": len(rows),
            "value": picks.value,
            "bound": picks.bound,
        }
        return Selection(picks.indices, picks.scores)

    def report(self) -> dict[str, Any]:
        """Return which classes and how many of their rows the picks were compared with, and what was reached."""
        return dict(self._report)

    def _wanted(self, view: PoolView) -> tuple[Tensor, list[int]]:
        """Return the labeled rows that the measure is about, (q,) int64, and their classes."""
        labels = view.targets[view.labeled]
        if self.classes is not None:
            classes = torch.tensor(list(self.classes), device=labels.device)
        elif self.measure == "flcg" or not len(labels):
            classes = labels.unique()
        else:
            seen, counts = labels.unique(return_counts=True)
            classes = seen[counts.argmin()].reshape(1)
        found = view.labeled & torch.isin(view.targets, classes)
        return found.nonzero().squeeze(1), classes.tolist()
