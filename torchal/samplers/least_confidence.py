"""Least-confidence sampling."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from torchal import functional
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities
from torchal.samplers.base import ScoreSampler


@dataclass(frozen=True)
class LeastConfidence(ScoreSampler):
    """Picks the rows whose most probable class is least probable.

    Reference:
        See `torchal.functional.least_confidence`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> view = PoolView.from_tensors(log_probs=torch.tensor([[0.9, 0.1], [0.4, 0.6]]).log())
        >>> LeastConfidence().select(view, 1).indices
        tensor([1])
    """

    requires = (HasProbabilities,)
    on_ranks = True

    def score(self, view: PoolView) -> Tensor:
        """Return 1 minus the largest probability of each row, (N,)."""
        return functional.least_confidence(view.log_probs)
