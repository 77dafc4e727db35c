"""BADGE: batches of rows with large and diverse gradients."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from torchal._checks import check_budget, check_flag
from torchal.functional.badge import First, badge, check_first
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities
from torchal.samplers.base import Sampler


@dataclass
class Badge(Sampler):
    """Draws rows whose last layer's gradients, were the predicted class the label, are large and unlike each other.

    The last layer reads the model's embedding. Of a model without one the inputs stand in its place, which is right for
    linear models.

    Args:
        first: the first row: "largest", that with the largest gradient, or "uniform", any.
        bias: whether the gradient by the layer's bias counts too.

    Raises:
        ConfigError: an unknown `first`, or a `bias` that is not true or false.

    Reference:
        See `torchal.functional.badge`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> log_probs = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.9, 0.1]]).log()
        >>> view = PoolView.from_tensors(features=torch.ones(3, 2), log_probs=log_probs)
        >>> Badge().select(view, 1).indices
        tensor([1])
    """

    requires = (HasProbabilities,)
    on_ranks = True

    first: First = "largest"
    bias: bool = False
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_first(self.first)
        check_flag("bias", self.bias)

    def select(self, view: PoolView, n: int) -> Selection:
        """Draw n candidates by `badge` from the view's log-probabilities and features."""
        check_budget(n, view.n_candidates)
        features = view.features
        self._report = {"features": view.features_from, "n_features": features.shape[1]}
        selection = badge(
            view.log_probs,
            features,
            n,
            generator=view.generator,
            candidates=view.candidates,
            first=self.first,
            bias=self.bias,
            group=view.group,
        )
        if self.first == "largest" and not bool(selection.scores.any()):
            warnings.warn(
                f"the gradient of every candidate is 0: all {n} picks are as good as any. Is the model quite sure of "
                "every row, or has it seen one class only?",
                UserWarning,
                stacklevel=2,
            )
        return selection

    def report(self) -> dict[str, Any]:
        """Return what stood for the last layer's input: the model's embedding, the inputs, or what was given."""
        return dict(self._report)
