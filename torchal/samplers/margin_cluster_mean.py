"""Representative sampling: cluster means inside the margin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from torchal import functional
from torchal._checks import check_budget, check_whole
from torchal.errors import ConfigError
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasDecisionFunction
from torchal.samplers.base import Sampler
from torchal.samplers.margin import Margin

Inside = Literal["labeled", "unit"]


@dataclass
class MarginClusterMean(Sampler):
    """Picks representatives of the rows inside the classifier's margin: those nearest to the means of n clusters.

    The clusters are those of the inputs, whatever the model. With a model that has probabilities only, the decision
    values are their log-odds, class against the others.

    Args:
        inside: how far the margin reaches. "labeled": a row is inside where, for some class, its decision value is
            smaller in size than that of every labeled row; "unit": smaller than 1.
        max_iterations: of k-means.

    Raises:
        ConfigError: an unknown `inside`, or max_iterations that is not a whole number of at least 1.

    Reference:
        See `torchal.functional.margin_cluster_mean`; "unit" is the margin of Xu et al. (2003), "labeled" that of
        google/active-learning, margin_cluster_mean.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
        >>> scores = torch.tensor([0.5, 0.2, 0.4, -0.4, -0.1, 5.0])
        >>> view = PoolView.from_tensors(features=features, scores=scores)
        >>> MarginClusterMean(inside="unit").select(view, 2).indices
        tensor([1, 3])
    """

    inside: Inside = "labeled"
    max_iterations: int = 20
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.inside not in get_args(Inside):
            raise ConfigError(f"inside must be one of {', '.join(get_args(Inside))}; got {self.inside!r}")
        check_whole("max_iterations", self.max_iterations, least=1)

    def check_model(self, model: object) -> None:
        """Require decision values or probabilities."""
        Margin().check_model(model)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `margin_cluster_mean`."""
        check_budget(n, int(view.candidates.sum()))
        inside = self.rows_inside(view)
        self._report = {"n_inside": int((inside & view.candidates).sum())}
        return functional.margin_cluster_mean(
            view.flat_inputs,
            n,
            uncertainty=Margin().score(view),
            inside=inside,
            candidates=view.candidates,
            generator=view.generator,
            max_iterations=self.max_iterations,
        )

    def rows_inside(self, view: PoolView) -> Tensor:
        """Return which rows, labeled or not, lie inside the margin, (N,) bool."""
        values = view.scores if view.has(HasDecisionFunction) else functional.log_odds(view.log_probs)
        return functional.inside_margin(values, labeled=view.labeled if self.inside == "labeled" else None)

    def report(self) -> dict[str, Any]:
        """Return how many candidates were inside the margin; fewer than the batch means that margin sampling chose."""
        return dict(self._report)
